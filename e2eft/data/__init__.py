"""Frames in physical units, their sources, their shards, and the order in which training reads
them."""
