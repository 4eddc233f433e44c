"""Networks and training."""
