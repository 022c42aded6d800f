"""What every process needs before its own work: settings, logs, traces, ids, files and the message broker."""
