"""What a job would take and emit, before it is submitted."""
