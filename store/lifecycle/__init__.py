"""The life of a job: status, transitions, leases, the queue, and every write of the worker that holds it."""
