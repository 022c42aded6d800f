"""Commands with their options; each imports its code when it runs, so that `--help` is fast."""
