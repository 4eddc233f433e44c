"""Accuracy and speed of one saved model on one packed file (`job predict`)."""
