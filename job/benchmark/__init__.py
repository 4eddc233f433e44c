"""Interleaved timing of models. Each model runs in a separate process."""
