"""What is scored against what: datasets with the truth, labels, and how models are to see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e2eft.artifacts import CLAIM, MANIFEST, Artifact, ArtifactError, load_artifact
from e2eft.config import EvaluateConfig
from e2eft.data.label_trees import LabelTree, open_label_tree
from e2eft.data.labels import CONVENTIONS, LabelIndex, open_labels
from e2eft.data.shards import KIND as SHARDS
from e2eft.data.shards import open_shards
from e2eft.evaluate.chunks import Pair
from e2eft.evaluate.protocols import NATIVE, ScoringProtocol, protocol_of
from e2eft.storage import absolute, open_store


def source_of(shards: Artifact) -> str:
    """The dataset that shards were made of, as `Sample.source` calls it; "" if they do not say."""
    return shards.details.get("source", "")


def processing_of(config: EvaluateConfig) -> list[dict[str, Any]]:
    """How a model is to see the images of each --data: fields of a `LabelConfig`.

    Raises:
        ValueError: if the protocol does not score what models predict.
    """
    sources = [source_of(load_artifact(absolute(data), SHARDS)) for data in config.data]
    protocol = protocol_of(config, sources)
    if (predicted := CONVENTIONS[config.task]["kind"]) not in protocol.kinds:
        raise ValueError(
            f"{protocol.name} scores {' or '.join(protocol.kinds)}, but --model predicts "
            f"{predicted}; use another protocol, or give --labels that are "
            f"{' or '.join(protocol.kinds)}"
        )
    sizes = [protocol.processing_px(source) for source in sources]
    return [
        {"native_size": True} if size == NATIVE else {"processing_size": size} for size in sizes
    ]


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
    kind = "normals" if config.task == "normals" else f"affine_{config.labels_kind}"
    return open_label_tree(uri, kind.replace("-", "_"), config.labels_axes, config.labels_pattern)


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
