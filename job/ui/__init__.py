"""Shows progress in a terminal or in a log."""
