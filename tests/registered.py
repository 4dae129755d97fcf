"""Registered models without files, and scores of them."""

from pathlib import Path
from typing import Any

from e2eft.artifacts import sha256
from e2eft.config import TrackingConfig
from e2eft.tracking import Score
from e2eft.tracking.connection import client_of, resolve_uri

PROTOCOL = "least-squares-depth to 80 m"
DATA, OTHER_DATA = "a" * 64, "b" * 64


def score(value: float, model: str = "m", *, scores: str = "", **terms: Any) -> Score:
    """A depth score, or another metric's: everything in `terms` is one of the terms."""
    metric = terms.pop("metric", "abs_rel")
    known = {"protocol": PROTOCOL, "data_digest": DATA, "sampling": {"spacing": "trailing"}}
    return Score(
        metric_name=metric,
        value=value,
        lower_is_better=metric == "abs_rel",
        terms=known | terms,
        model_digest=model,
        scores="/scores",
        scores_digest=sha256(f"{scores} {model} {value} {sorted(terms.items())}".encode()),
    )


def registered(
    tracking: TrackingConfig,
    name: str,
    versions: int,
    source: Path | str,
    run_id: str | None = None,
) -> None:
    client = client_of(resolve_uri(tracking))
    client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, str(source), run_id)


def champion(tracking: TrackingConfig, name: str) -> str | None:
    model = client_of(resolve_uri(tracking)).get_registered_model(name)
    found = model.aliases.get("champion")
    return None if found is None else str(found)
