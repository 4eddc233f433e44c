"""Breaks a model's time down by oneDNN primitive, from oneDNN's log."""
