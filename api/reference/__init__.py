"""The interface's own description, rendered on the server."""
