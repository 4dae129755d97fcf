"""Scores on registered versions. A record says what was scored, on which terms, and is written
once: another sampling, size, protocol or data is another record."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from e2eft.config import digest_of
from e2eft.secrets import shown_in
from e2eft.tracking.origin import user

RECORD = "e2eft.record."
"""Prefix of a version's tags, each of which holds a `Record` as JSON."""
OLD_SCORE = "score."
"""Prefix of the tags that version 1 wrote: a number, by metric, protocol and data alone."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model scored.

    terms: everything that decides the value besides the model: protocol, data, sampling, processing
    size. Numbers on other terms are never compared. model_digest: of the model's files. scores,
    scores_digest: the artifact that shows it.
    """

    metric_name: str
    value: float
    lower_is_better: bool
    terms: dict[str, Any]
    model_digest: str
    scores: str
    scores_digest: str

    @property
    def terms_digest(self) -> str:
        """SHA-256 of what must be equal where two values are compared."""
        return digest_of({"metric": self.metric_name, **self.terms})

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the value."""
        return digest_of({"terms": self.terms_digest, "model": self.model_digest})

    def as_json(self) -> dict[str, Any]:
        content = asdict(self) | {"terms_digest": self.terms_digest, "digest": self.digest}
        return shown_in(content)

    def beats(self, other: "Record") -> bool:
        return self.value < other.value if self.lower_is_better else self.value > other.value

    def described(self) -> str:
        """Metric and terms, for a person."""
        terms = ", ".join(f"{name} {value}" for name, value in _flat(self.terms) if value)
        return f"{self.metric_name} ({terms}; terms {self.terms_digest[:12]})"


@dataclass(frozen=True)
class Record:
    """A score as a version's tag holds it."""

    value: float
    terms_digest: str
    scores_digest: str
    at: str
    content: dict[str, Any] = field(default_factory=dict)


def note(client: Any, name: str, version: str, score: Score) -> None:
    """Writes the record of a score, unless these scores have theirs."""
    tag = f"{RECORD}{score.terms_digest[:16]}.{score.scores_digest[:16]}"
    if tag in client.get_model_version(name, version).tags:
        return
    noted = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "by": user()}
    client.set_model_version_tag(name, version, tag, json.dumps(score.as_json() | noted))


def record_on(tags: dict[str, str], terms_digest: str) -> Record | None:
    """What a version with these tags scored on these terms. Of several the first: scoring a
    champion again changes nothing of what it was judged by."""
    found = (_read(text) for tag, text in tags.items() if tag.startswith(RECORD))
    same = [record for record in found if record and record.terms_digest == terms_digest]
    return min(same, key=lambda record: record.at, default=None)


def has_old_score(tags: dict[str, str]) -> bool:
    """Whether version 1 noted a score, of which nobody knows with what sampling."""
    return any(tag.startswith(OLD_SCORE) for tag in tags)


def _read(text: str) -> Record | None:
    try:
        content = json.loads(text)
        return Record(
            float(content["value"]),
            str(content["terms_digest"]),
            str(content["scores_digest"]),
            str(content["at"]),
            content,
        )
    except (ValueError, KeyError, TypeError):
        return None


def _flat(terms: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in terms.items():
        if isinstance(value, dict):
            pairs += _flat(value)
        else:
            pairs.append((name, value[:12] if name.endswith("digest") else value))
    return pairs
