"""Builds and runs the INT8 model for OpenVINO."""
