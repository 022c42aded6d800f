"""The `greentune` command and the embedded stack behind `greentune serve`."""
