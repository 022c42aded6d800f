"""What predicts and places: the cost, duration and end of jobs, budgets, and the zone to run in."""
