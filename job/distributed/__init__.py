"""Data-parallel training: the process group and its control connections."""
