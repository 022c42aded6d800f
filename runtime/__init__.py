"""Process infrastructure: settings, logs, traces, ids, private files and the message broker."""
