"""The commands with their options; each loads what it needs when it runs, so that `--help` is quick."""
