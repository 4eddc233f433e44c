"""Data sets that are read from S3."""
