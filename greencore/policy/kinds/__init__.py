"""The kinds of policy, one file for each sort of thing that they look at."""
