"""From intensity to ρ: each kind's rule, smoothing, and the value of a share of the work."""
