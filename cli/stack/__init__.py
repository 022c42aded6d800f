"""The whole service on one machine: its processes, embedded servers, files and signals."""
