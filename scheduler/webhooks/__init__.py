"""Webhook deliveries: what to send, and one attempt to send it."""
