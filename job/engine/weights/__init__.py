"""Weights files: reading them without running code, and matching them to a network."""
