"""Child processes: environment, signals, and the connection to them."""
