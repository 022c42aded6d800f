"""The scheduler: polls carbon intensity, dispatches jobs to workers, and reclaims the jobs of lost workers."""

from scheduler.loop import Scheduler

__all__ = ["Scheduler"]
