"""Scores of registered versions, and who is champion by them."""

import math
from typing import Any

from e2eft.config import TrackingConfig
from e2eft.tracking.champion import CHAMPION, Move, Promotion, Standing, move_champion
from e2eft.tracking.connection import TrackingError, client_of, resolve_uri, unavailable, within
from e2eft.tracking.records import Score, has_old_score, note, record_on
from e2eft.tracking.versions import resolve_version


def record_score(config: TrackingConfig, name: str, version: str, score: Score) -> None:
    """Notes on a registered version what it scored, beside what it scored on other terms.

    Raises:
        TrackingError: if there is no such version, no answer within seconds, or no finite score.
    """
    if not math.isfinite(score.value):
        raise TrackingError(_not_finite(version, score))
    uri = resolve_uri(config)
    name, version = resolve_version(config, f"models:/{name}/{version}")
    try:
        within(uri, lambda: note(client_of(uri), name, version, score))
    except Exception as error:
        raise unavailable(uri, error) from None


def promote_if_better(config: TrackingConfig, name: str, version: str, score: Score) -> Promotion:
    """Moves the alias `champion` to a version that beats the present one on the same terms.

    A champion without a score on these terms keeps its alias until it has one.

    Raises:
        TrackingError: if there is no such version, or no answer within seconds.
    """
    name, version = resolve_version(config, f"models:/{name}/{version}")
    if not math.isfinite(score.value):
        return Promotion(False, _not_finite(version, score))
    record_score(config, name, version, score)
    return move_champion(
        config, name, lambda client, standing: _judged(client, name, version, score, standing)
    )


def _not_finite(version: str, score: Score) -> str:
    return f"version {version} has no finite {score.metric_name} ({score.value})"


def _judged(
    client: Any, name: str, version: str, score: Score, standing: Standing
) -> Move | Promotion:
    champion = standing.champion
    if champion == version:
        return Promotion(False, f"version {version} is the champion already")
    for move in standing.rolled_back:
        if move.to == version:
            return Promotion(
                False,
                f"version {version} was champion since {move.at} and was rolled back; if it is to "
                f"be it again, set the alias {CHAMPION} with MLflow",
            )
    evidence = {"winner": score.as_json()}
    if champion is None:
        why = f"the first champion: {score.described()} is {score.value:.4g}"
        return Move(was=None, to=version, why=why, evidence=evidence)
    tags = client.get_model_version(name, champion).tags
    rival = record_on(tags, score.terms_digest)
    if rival is None:
        return Promotion(False, _no_record(name, version, champion, score, has_old_score(tags)))
    if not score.beats(rival):
        return Promotion(
            False,
            f"version {champion} stays champion: {score.described()} is {rival.value:.4g}, "
            f"version {version} has {score.value:.4g}",
        )
    evidence["loser"] = rival.content
    why = f"{score.described()} is {score.value:.4g}, version {champion} had {rival.value:.4g}"
    return Move(was=champion, to=version, why=why, evidence=evidence)


def _no_record(name: str, version: str, champion: str, score: Score, old: bool) -> str:
    known = " (an earlier release noted it without the sampling)" if old else ""
    return (
        f"version {champion} stays champion: it has no {score.described()} to compare "
        f"{score.value:.4g} with{known}; score it (e2eft evaluate ... --model "
        f"models:/{name}@{CHAMPION} with the same --data and options), then evaluate version "
        f"{version} again"
    )
