"""The pages for a browser, rendered on the server."""
