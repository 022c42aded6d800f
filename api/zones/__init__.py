"""What the grid's carbon intensity is now, zone by zone."""
