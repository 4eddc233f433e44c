"""The INT8 model for oneDNN."""
