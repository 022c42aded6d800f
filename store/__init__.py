"""What GreenTune keeps: tables, the allowed transitions, one repository per aggregate, settings."""
