"""Uploading training rows, checked one by one."""
