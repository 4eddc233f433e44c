"""Saved models and Paddle Inference."""
