"""API reference page, rendered on the server from the OpenAPI description."""
