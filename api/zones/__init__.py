"""Carbon intensity of the grid by zone."""
