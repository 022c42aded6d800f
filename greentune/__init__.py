"""The typed client of the GreenTune service: `from greentune.client import Client`."""
