"""Scores of registered versions, and who is champion by them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from e2eft.config import TrackingConfig
from e2eft.tracking.connection import client_of, resolve_uri, unavailable, within
from e2eft.tracking.registry import resolve_version

T = TypeVar("T")

CHAMPION = "champion"


@dataclass(frozen=True)
class Promotion:
    """Whether the alias `champion` moved, and why; true if it did."""

    promoted: bool
    reason: str

    def __bool__(self) -> bool:
        return self.promoted


def _score_tag(metric_name: str, protocol: str, data_digest: str) -> str:
    return f"score.{metric_name}.{protocol}.{data_digest[:16]}"


def record_score(
    config: TrackingConfig,
    name: str,
    version: str,
    metric_name: str,
    value: float,
    protocol: str,
    data_digest: str,
) -> None:
    """Notes on a registered version what it scored under a protocol on some data.

    Raises:
        TrackingError: if there is no such version, or no answer within seconds.
    """
    name, version = resolve_version(config, f"models:/{name}/{version}")
    tag = _score_tag(metric_name, protocol, data_digest)
    _ask(config, lambda c: c.set_model_version_tag(name, version, tag, repr(float(value))))


def _ask(config: TrackingConfig, ask: Callable[[Any], T]) -> T:
    uri = resolve_uri(config)
    try:
        return within(uri, lambda: ask(client_of(uri)))
    except Exception as error:
        raise unavailable(uri, error) from None


def promote_if_better(
    config: TrackingConfig,
    name: str,
    version: str,
    metric_name: str,
    value: float,
    lower_is_better: bool,
    protocol: str,
    data_digest: str,
) -> Promotion:
    """Moves the alias `champion` to a version that beats the present one on the same terms.

    The same terms are the same metric, protocol and data: numbers of different protocols or data
    are never compared, so a champion without a score on this data keeps its alias until it has one.

    Raises:
        TrackingError: if there is no such version, or no answer within seconds.
    """
    record_score(config, name, version, metric_name, value, protocol, data_digest)
    champion = _ask(config, lambda c: c.get_registered_model(name).aliases.get(CHAMPION))
    if not math.isfinite(value):
        return Promotion(False, f"version {version} has no finite {metric_name} ({value})")
    if str(champion) == str(version):
        return Promotion(False, f"version {version} is the champion already")
    terms = f"{metric_name} under {protocol} on data {data_digest[:16]}"
    if champion is not None:
        tag = _score_tag(metric_name, protocol, data_digest)
        recorded = _ask(config, lambda c: c.get_model_version(name, champion).tags.get(tag))
        if recorded is None:
            return Promotion(
                False,
                f"version {champion} stays champion: it has no {terms} to compare {value:.4g} "
                f"with; score it (e2eft evaluate ... --model models:/{name}@{CHAMPION} with the "
                f"same --data), then evaluate version {version} again",
            )
        rival = float(recorded)
        if not (value < rival if lower_is_better else value > rival):
            return Promotion(
                False,
                f"version {champion} stays champion: {terms} is {rival:.4g}, version {version} "
                f"has {value:.4g}",
            )
        reason = f"{terms} is {value:.4g}, version {champion} had {rival:.4g}"
    else:
        reason = f"the first champion: {terms} is {value:.4g}"
    _ask(config, lambda c: c.set_registered_model_alias(name, CHAMPION, version))
    return Promotion(True, reason)
