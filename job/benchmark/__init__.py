"""Interleaved timing of the models, in processes of their own."""
