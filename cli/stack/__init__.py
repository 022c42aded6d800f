"""The whole service on one machine: its processes, embedded servers, secret and signals."""
