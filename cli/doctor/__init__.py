"""`greentune doctor`: what this machine has of what the service needs, a family of checks a file."""
