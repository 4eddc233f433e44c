"""Builds the INT8 model for oneDNN, and lists its ops."""
