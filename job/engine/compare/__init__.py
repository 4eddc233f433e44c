"""Comparison of two deployed models, op by op."""
