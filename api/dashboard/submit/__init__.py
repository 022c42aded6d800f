"""Page that submits a job."""
