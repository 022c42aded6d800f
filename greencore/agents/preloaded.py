"""Importing this module loads all that a process of a run needs: the fork server of an agent does."""

from greencore.agents.preloading import load_before_fork

load_before_fork(["greencore.training.launch.process"])
