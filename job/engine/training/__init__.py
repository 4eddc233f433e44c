"""Networks, their static programs and their training."""
