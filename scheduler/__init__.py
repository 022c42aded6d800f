"""The scheduler: asks the grid, sends jobs to workers, and takes back what a lost worker held."""

from scheduler.loop import Scheduler

__all__ = ["Scheduler"]
