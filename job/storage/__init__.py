"""Output folders and files, on a local disk and in S3."""
