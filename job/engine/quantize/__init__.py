"""Fake quantization: scales, clipping and quantization-aware training."""
