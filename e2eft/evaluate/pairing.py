"""What is scored against what: datasets with the truth, labels, and how models are to see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from e2eft.artifacts import CLAIM, MANIFEST, Artifact, ArtifactError, load_artifact
from e2eft.config import EvaluateConfig
from e2eft.data.shards import KIND as SHARDS
from e2eft.data.shards import ShardIndex, open_shards
from e2eft.datasets import dataset_of
from e2eft.datasets.base import NATIVE
from e2eft.evaluate.chunks import Pair
from e2eft.evaluate.protocols import Departure, ScoringProtocol, protocol_of
from e2eft.evaluate.protocols.depth import DepthProtocol
from e2eft.labels.index import LabelIndex, open_labels
from e2eft.labels.trees import LabelTree, open_label_tree
from e2eft.storage import absolute, open_store
from e2eft.tasks import label_codec

_ONCE = {("ransac-log-depth", "eth3d"): NATIVE}
"""Processing sizes of evaluations that recorded none, where they were not what the rules say."""


def source_of(shards: Artifact) -> str:
    """The dataset that shards were made of, as `Sample.source` calls it; "" if they do not say."""
    return shards.details.get("source", "")


def processing_of(config: EvaluateConfig) -> list[dict[str, Any]]:
    """How a model is to see the images of each --data: fields of a `LabelConfig`.

    Raises:
        ValueError: as `sizes_of`.
    """
    return [
        {"native_size": True} if size == NATIVE else {"processing_size": size}
        for size in config.processing_px or sizes_of(config)
    ]


def sizes_of(config: EvaluateConfig, *, unrecorded: bool = False) -> tuple[int | None, ...]:
    """`EvaluateConfig.processing_px` as the protocol says of each --data.

    Args:
        unrecorded: as it was for evaluations that do not say.
    """
    sources = [source_of(load_artifact(absolute(data), SHARDS)) for data in config.data]
    protocol = protocol_of(config, sources)
    once = _ONCE if unrecorded else {}
    return tuple(
        once.get((protocol.name, source), protocol.processing_px(source)) for source in sources
    )


def require_scored(config: EvaluateConfig, predicted: str) -> None:
    """Raises ValueError if the protocol does not score labels of the kind that --model predicts."""
    protocol = protocol_of(config)
    if predicted not in protocol.kinds:
        raise ValueError(
            f"{protocol.name} scores {' or '.join(protocol.kinds)}, but --model predicts "
            f"{predicted}; use another protocol, or give --labels that are "
            f"{' or '.join(protocol.kinds)}"
        )


def protocol_for(config: EvaluateConfig, data: Sequence[ShardIndex]) -> ScoringProtocol:
    """The protocol that a configuration names, as it is on these shards.

    Raises:
        ValueError: if the named protocol belongs to another task.
    """
    sources = [source_of(shards.artifact) for shards in data]
    protocol = protocol_of(config, sources)
    return protocol_of(config, sources, _departures(data, protocol))


def range_without_effect(
    config: EvaluateConfig, data: Sequence[Artifact], protocol: ScoringProtocol
) -> str:
    """What to say of a --max-depth-m that other rules stand above; "" if it counts, or is none."""
    if config.max_depth_m == EvaluateConfig.model_fields["max_depth_m"].default:
        return ""
    named = f"--max-depth-m {config.max_depth_m:g} has no effect"
    if not isinstance(protocol, DepthProtocol):
        return f"{named}: {protocol.name} scores {config.task}, at any depth"
    ruled = sorted({name for name in map(source_of, data) if protocol.rules(name)})
    if not ruled:
        return ""
    return f"{named} on {', '.join(ruled)}: {protocol.name} has a range of its own there"


def _departures(data: Sequence[ShardIndex], protocol: ScoringProtocol) -> tuple[Departure, ...]:
    """Benchmarks that the shards are called after and are not, as published scores know them:
    prepared with other settings, of frames of another size, or of more frames than there are.
    (Fewer are incomplete.)"""
    found: set[Departure] = set()
    frames: Counter[str] = Counter()
    for shards in data:
        source = source_of(shards.artifact)
        frames[source] += len(shards)
        otherwise = [
            how
            for name, (published, how) in dataset_of(source).scored_as.items()
            if shards.artifact.config["source"].get(name, published) != published
        ]
        found |= {Departure(source, how) for how in otherwise}
        if not otherwise and (how := _other_sizes(shards, source)):
            found.add(Departure(source, how))
    for source, count in frames.items():
        expected = protocol.expected(source)
        if expected is not None and count > expected:
            found.add(Departure(source, f"of {count} frames instead of {expected}"))
    return tuple(sorted(found, key=str))


def _other_sizes(shards: ShardIndex, source: str) -> str:
    """At which size the frames are that are not of the benchmark's; "" if all are."""
    expected = dataset_of(source).frame_size
    if expected is None:
        return ""
    table = shards.columns("height", "width")
    sizes = set(zip(*(table[name].to_pylist() for name in ("height", "width")), strict=True))
    others = sorted(sizes - {expected})
    if not others:
        return ""
    height, width = others[0]
    more = f" and {len(others) - 1} other size{'s' * (len(others) > 2)}" * (len(others) > 1)
    return f"{'in part ' * (len(others) < len(sizes))}at {width} x {height}{more}"


def open_pairs(config: EvaluateConfig, labels: Sequence[str]) -> tuple[Pair, ...]:
    """The datasets of a configuration with the labels to be scored against them.

    Raises:
        ValueError: (and its subclasses) if one of them is not there, or given twice.
    """
    if len(labels) != len(config.data):
        raise ValueError(f"{len(labels)} labels for {len(config.data)} --data; give one for each")
    pairs = tuple(
        Pair(open_shards(data), _open_labels(config, absolute(label)))
        for data, label in zip(config.data, labels, strict=True)
    )
    digests = [pair.shards.artifact.digest for pair in pairs]
    if len(set(digests)) < len(digests):
        raise ValueError("the same shards are given as --data twice; give them once")
    return pairs


def _open_labels(config: EvaluateConfig, uri: str) -> LabelIndex | LabelTree:
    """A labels artifact, finished or refused as unfinished; anything else is a tree of files."""
    store = open_store(uri)
    if store.exists(MANIFEST) or store.exists(CLAIM):
        return open_labels(uri)
    kind = label_codec(config.task).kind_of_others(config.labels_kind)
    return open_label_tree(uri, config.task, kind, config.labels_axes, config.labels_pattern)


def check_pair(pair: Pair, protocol: ScoringProtocol) -> None:
    """Labels must be of the protocol's task and of these images: equal keys are not enough."""
    shards, labels = pair.shards.artifact, pair.labels
    if labels.task != protocol.task:
        raise ArtifactError(
            f"{labels.uri} holds {labels.task} labels; {protocol.name} scores {protocol.task}"
        )
    if labels.kind not in protocol.kinds:
        raise ArtifactError(
            f"{labels.uri} holds {labels.kind}; {protocol.name} scores "
            f"{' or '.join(protocol.kinds)} (for files of other programs, see --labels-kind)"
        )
    for parent in labels.parents:
        if parent.role == "images" and parent.digest and parent.digest != shards.digest:
            raise ArtifactError(
                f"{labels.uri} was made from {parent.uri} ({parent.digest[:12]}), not from "
                f"{shards.uri} ({shards.digest[:12]}); give --labels in the order of --data, or "
                "label these shards first"
            )


def how_made(labels: LabelIndex | LabelTree) -> dict[str, Any]:
    """What labels are affine in, with which steps and at which size a model made them; nothing of
    other programs' files."""
    if not isinstance(labels, LabelIndex):
        return {}
    details = labels.artifact.details
    return {
        name: details[name]
        for name in ("depth_target", "sampling", "processing_size")
        if name in details
    }


def note_how_made(
    summary: dict[str, Any], pairs: Sequence[Pair], protocol: ScoringProtocol
) -> None:
    """Adds to a summary what is known of how its labels were made."""
    for entry, pair in zip(summary["labels"], pairs, strict=True):
        entry |= how_made(pair.labels)
        if said := seen_otherwise(pair, protocol):
            group = summary["domains"][source_of(pair.shards.artifact)]
            group["seen_otherwise"] = sorted({*group.get("seen_otherwise", ()), said})


def seen_otherwise(pair: Pair, protocol: ScoringProtocol) -> str:
    """At which size a model saw the images, if the protocol has them seen at another; else ""."""
    source, made = source_of(pair.shards.artifact), how_made(pair.labels)
    wanted = protocol.processing_px(source)
    if wanted is None or "processing_size" not in made:
        return ""
    seen, own = made["processing_size"] or NATIVE, max(dataset_of(source).frame_size or (NATIVE,))
    if (seen or own) == (wanted or own):
        return ""
    at, instead = (f"{px} px" if px else "their own size" for px in (seen, wanted))
    return f"seen at {at} instead of {instead}"
