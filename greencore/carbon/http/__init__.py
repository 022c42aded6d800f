"""Sources over HTTP: the client with its limits and retries, and the parsing of responses."""
