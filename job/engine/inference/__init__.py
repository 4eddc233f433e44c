"""Saved models and their inference with Paddle Inference."""
