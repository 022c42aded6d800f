"""Authentication, authorisation, audit log and rate limits."""
