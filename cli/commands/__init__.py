"""Commands with their options and output; heavy imports are made when a command runs, so that `--help` is fast."""
