"""Checks whether a machine can run the job. One check runs a small INT8 model."""
