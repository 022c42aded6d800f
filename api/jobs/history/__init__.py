"""History of a job: epochs, events, series and selected tensors."""
