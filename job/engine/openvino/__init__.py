"""The INT8 model for OpenVINO."""
