"""What a job did: its epochs, events, series and selected tensors."""
