"""Errors of predictions, and how sure their means are. Conventions: `e2eft.geometry`."""
