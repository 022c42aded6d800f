"""Choice of ρ by each kind of policy, its smoothing, and the utility of ρ."""
