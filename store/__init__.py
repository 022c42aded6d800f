"""Database access: tables, repositories, the lifecycle of jobs, energy accounting and carbon intensities."""
