"""The processes that do the work, and what each is at."""
