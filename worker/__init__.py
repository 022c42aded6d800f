"""The workers: Celery delivers a job's id; the job, its lease and its results are stored in the database."""
