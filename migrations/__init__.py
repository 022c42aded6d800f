"""The database's schema over time, and the functions that bring a database to it."""
