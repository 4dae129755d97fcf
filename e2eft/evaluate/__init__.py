"""Scores: label artifacts against shards with ground truth, and whether two of them differ."""

from e2eft.evaluate.pairing import processing_of, require_scored
from e2eft.evaluate.scores import PrimaryScore, paired_difference, primary_score, read_table
from e2eft.evaluate.stage import as_found, look_at, run, say_finished, score
from e2eft.evaluate.tables import comparison_table, differences_table
from e2eft.evaluate.tracked import register, score_of, scored_model

__all__ = [
    "PrimaryScore",
    "as_found",
    "comparison_table",
    "differences_table",
    "look_at",
    "paired_difference",
    "primary_score",
    "processing_of",
    "read_table",
    "register",
    "require_scored",
    "run",
    "say_finished",
    "score",
    "score_of",
    "scored_model",
]
