"""Weight files: reads them without running code and matches them to a network."""
