"""Webhook deliveries: the sender, and one HTTP request of it."""
