"""Decoding of images in worker processes."""
