"""Live providers over HTTP: the client, its limits and retries, and the reading of answers."""
