"""Webhooks that notify owners when their jobs end."""
