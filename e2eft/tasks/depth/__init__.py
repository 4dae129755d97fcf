"""Depth up to a scale and a shift."""
