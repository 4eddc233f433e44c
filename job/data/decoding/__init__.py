"""Decode images in worker processes."""
