"""What a person is told of labels that are finished."""

import logging

from e2eft.artifacts import Artifact
from e2eft.config import LabelConfig
from e2eft.corpora.corpus import changes_since
from e2eft.errors import StorageError
from e2eft.images.reasons import DEGRADATIONS, MAY_MEND, REASONS
from e2eft.label.opening import GALLERY
from e2eft.labels.index import DEGRADED, OK, REJECTED, retried_rows

log = logging.getLogger(__name__)


def say_changes(config: LabelConfig, labels: Artifact) -> None:
    """Says whether the images are still those that were labelled."""
    try:
        later = retried_rows(labels)["key"].to_pylist()
        changes = changes_since(labels.store, config.images, frozenset(later))
    except StorageError as error:
        log.warning("cannot tell whether %s still holds the same images: %s", config.images, error)
        return
    if changes:
        print(
            f"images   {config.images}: {changes} since they were labelled; label the folder into "
            "another --out, or --overwrite to label all of it anew"
        )


def say_retry(config: LabelConfig, labels: Artifact) -> None:
    """Says whether another try may help rejected images."""
    reasons = labels.details["reject_reasons"]
    may = {reason: count for reason, count in sorted(reasons.items()) if reason in MAY_MEND}
    if may and not config.retry:
        counts = ", ".join(f"{count} {reason}" for reason, count in may.items())
        print(f"rejected images that may be fine by now ({counts}): --retry tries them again")


def too_many_rejected(config: LabelConfig, labels: Artifact) -> str | None:
    """What to say of labels of which more images than --max-reject-fraction were rejected."""
    rejected, planned = labels.counts[REJECTED], labels.counts["planned"]
    if rejected <= config.max_reject_fraction * planned:
        return None
    reasons = ", ".join(
        f"{count} {reason}" for reason, count in sorted(labels.details["reject_reasons"].items())
    )
    return (
        f"{rejected} of {planned} images were rejected ({reasons}), more than "
        f"--max-reject-fraction {config.max_reject_fraction:g}; {labels.uri}/index says which and "
        "why, and the labels of the others stay"
    )


def summary(artifact: Artifact) -> str:
    """What became of the images and where it all lies, for a person."""
    counts, details = artifact.counts, artifact.details
    lines = [
        f"{counts['planned']} images: {counts[OK]} ok, {counts[DEGRADED]} degraded, "
        f"{counts[REJECTED]} rejected"
    ]
    for title, reasons, sentences in (
        ("degraded", details["degradations"], DEGRADATIONS),
        ("rejected", details["reject_reasons"], REASONS),
    ):
        for reason, count in sorted(reasons.items(), key=lambda entry: -entry[1]):
            said = "; ".join(sentences[name] for name in reason.split("+"))
            lines.append(f"  {title} {count:6}  {reason}: {said}")
    if details["excluded"]:
        passed = ", ".join(f"{count} {why}" for why, count in details["excluded"].items())
        lines.append(f"  passed over: {passed}")
    lines.append(f"labels   {artifact.uri}/{details['task']}")
    lines.append(f"index    {artifact.uri}/index")
    if any(file.called == GALLERY for file in artifact.files):
        lines.append(f"gallery  {artifact.uri}/{artifact.path(GALLERY)}")
    return "\n".join(lines)
