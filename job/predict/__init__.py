"""Measures accuracy and speed of a saved model on a packed file (`job predict`)."""
