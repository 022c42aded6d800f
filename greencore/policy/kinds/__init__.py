"""The kinds of policy, one module per kind of input."""
