"""`greentune doctor`: checks what the service needs on this machine; a module for each family of checks."""
