"""What is specific to a task: results of a batch, metrics, gate."""
