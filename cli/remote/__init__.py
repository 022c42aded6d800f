"""Client, output and views of the commands that use a running service."""
