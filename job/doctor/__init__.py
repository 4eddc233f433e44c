"""Checks of the machine, including a real INT8 inference."""
