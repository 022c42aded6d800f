"""What the commands do through the client of a running service."""
