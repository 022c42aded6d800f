"""Time series prepared to be drawn: read, downsampled, and of many jobs at once."""
