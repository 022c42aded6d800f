"""The files of a finished run: artifacts and their model card."""
