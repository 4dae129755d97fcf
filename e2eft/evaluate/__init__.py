"""Scores: label artifacts against shards with ground truth, and whether two of them differ."""

from e2eft.evaluate.scores import Headline, headline, paired_difference, read_table
from e2eft.evaluate.stage import claim_output, register, run

__all__ = [
    "Headline",
    "claim_output",
    "headline",
    "paired_difference",
    "read_table",
    "register",
    "run",
]
