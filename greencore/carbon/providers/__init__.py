"""Carbon-intensity providers, one module each: their requests and the parsing of their responses."""
