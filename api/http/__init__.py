"""HTTP itself: middleware, conditional requests, pagination, problem responses, idempotency."""
