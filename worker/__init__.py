"""The workers: Celery hands them a job's id; the job itself, its lease and its results live in the database."""
