"""Compares the INT8 model with the fake-quantized model, op by op."""
