"""Comparison of two finished runs: ``job compare A B``."""
