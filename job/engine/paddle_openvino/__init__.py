"""Builds and runs the INT8 model for the OpenVINO engine inside Paddle Inference."""
