"""The gallery of a labels artifact: some of its labels on their images, and all that went wrong."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.compute import field

from e2eft.artifacts import sha256
from e2eft.corpora.corpus import Corpus
from e2eft.corpora.reading import ANY_SIZE, read_image
from e2eft.images.decoder import decode_image
from e2eft.images.reasons import DEGRADATIONS, ImageError
from e2eft.images.resize import fitted_size, resize_rgb
from e2eft.labels.index import OK, REJECTED, read_label
from e2eft.storage import Store, open_store
from e2eft.tasks.labels import LabelCodec
from e2eft.views.gallery import GalleryCard, GalleryLedger, GalleryRejection, write_gallery

SIDE_PX = 512
REJECTIONS_PER_REASON = 200


def render_gallery(
    corpus: Corpus,
    index: pa.Table,
    labels: Store,
    codec: LabelCodec,
    provenance: Mapping[str, str],
    *,
    images: int,
    max_pixels: int,
) -> str:
    """One HTML page: `images` labels spread over the corpus, and the rejections by reason.

    Args:
        index: of `index_schema`, every image once, by index.
        labels: the store in which the index's paths lie.
        codec: what they are.
        provenance: shown as a table.
    """
    kept = index.filter(field("status") != REJECTED)
    shown = min(images, len(kept))
    chosen = np.unique(np.linspace(0, max(len(kept) - 1, 0), shown).round().astype(int))
    rows = kept.take(pa.array(chosen)).to_pylist() if len(kept) else []
    cards = [_card(corpus, row, labels, codec, max_pixels) for row in rows]
    return write_gallery(
        f"Labels of {corpus.uri}",
        provenance,
        [card for card in cards if card is not None],
        _rejections(index),
        ledger=_ledger(index),
        max_side_px=SIDE_PX,
    )


def _card(
    corpus: Corpus, row: dict[str, Any], labels: Store, codec: LabelCodec, max_pixels: int
) -> GalleryCard | None:
    (planned,) = corpus.plan.slice(row["index"], 1).to_pylist()
    try:
        as_it_is = planned | {"size_bytes": ANY_SIZE}
        content = read_image(open_store(corpus.uri), as_it_is, max_pixels)
        image = decode_image(content, max_pixels, SIDE_PX)
    except ImageError:  # Labelled before it went away.
        return None
    if sha256(content) != row["source_sha256"]:  # or was changed
        return None
    height, width = image.size
    size = fitted_size(height, width, min(SIDE_PX, max(height, width)))
    label = read_label(labels, row, codec)
    note = "; ".join(DEGRADATIONS[name] for name in row["reason"].split("+") if name)
    facts = {"megapixels": row["width"] * row["height"] / 1e6, "seconds": row["seconds"]}
    return GalleryCard(
        key=row["key"],
        image=resize_rgb(image.rgb, size),
        figures=(codec.figure(codec.resize(label, size)),),
        scores=codec.facts(label) | facts,
        note=note,
    )


def _rejections(index: pa.Table) -> list[GalleryRejection]:
    shown: Counter[str] = Counter()
    found: list[GalleryRejection] = []
    refused = index.filter(field("status") == REJECTED)
    for row in refused.select(["key", "reason", "detail"]).to_pylist():
        shown[row["reason"]] += 1
        if shown[row["reason"]] <= REJECTIONS_PER_REASON:
            found.append(GalleryRejection(**row))
    return found


def _ledger(index: pa.Table) -> GalleryLedger:
    counts = count_outcomes(index)
    ok = sum(counts.pop(OK, {}).values())
    rejected = counts.pop(REJECTED, {})
    degraded = next(iter(counts.values()), {})
    return GalleryLedger(ok=ok, degraded=degraded, rejected=rejected)


def count_outcomes(index: pa.Table) -> dict[str, dict[str, int]]:
    """How many images ended in which status, by reason."""
    counts: dict[str, dict[str, int]] = {}
    for row in index.group_by(["status", "reason"]).aggregate([("key", "count")]).to_pylist():
        counts.setdefault(row["status"], {})[row["reason"]] = row["key_count"]
    return counts
