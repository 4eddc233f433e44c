"""S3: objects, and an output folder in a bucket."""
