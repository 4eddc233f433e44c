"""Progress in the terminal and in logs."""
