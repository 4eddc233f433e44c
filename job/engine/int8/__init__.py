"""Builds and audits the INT8 model for oneDNN."""
