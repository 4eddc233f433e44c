"""Where the time of a model goes, read from oneDNN's log."""
