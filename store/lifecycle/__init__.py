"""Lifecycle of a job: status, transitions, actions, leases, the queue, and the writes of its worker."""
