"""HTTP layer: middleware, conditional requests, pagination, problem responses, idempotency."""
