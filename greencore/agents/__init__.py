"""The agents that start the processes of a run, on one machine or several, and the connections to who asked for it."""
