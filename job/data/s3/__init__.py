"""Data sets in S3."""
