"""Plans and runs the stages of a manifest, and writes the report."""
