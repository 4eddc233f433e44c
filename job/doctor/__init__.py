"""Checks whether a machine can run the job, including a real INT8 inference."""
