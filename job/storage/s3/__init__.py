"""Objects in S3, and an output in a bucket."""
