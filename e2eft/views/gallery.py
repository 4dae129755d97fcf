"""The gallery: labels, what they were made with and what failed, in one HTML page.

The page needs no network, no server and no file beside it. Its own policy (CSP) forbids everything
but data URIs and the one script it was built with, so a file name can't smuggle in another.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
from PIL import Image

from e2eft.views.colour import SPECTRAL, Floats, Pixels, normals_ball

# The code of a value in [0, 1] is 1 + value * 65533, rounded; gallery.html decodes it.
_CODE_INVALID = 0
_CODE_SKY = 65535
_CODE_SPAN = 65533

_LISTED_PER_REASON = 200
_OPEN_FAILURES = 24


@dataclass(frozen=True, kw_only=True)
class GalleryFigure:
    """What a card shows of a label.

    `label` is its name: one word, as people read it. `picture` uint8 `[h w 3]` lies on the card's
    image, pixel on pixel. `legend` is HTML below it; gallery.html has styles for a `histogram`, a
    `bar` of `SPECTRAL` with a `mark`, and its `ends`; for `axes`, and the `ball` of
    `colour_normals`. `values` `[h w]` in [0, 1], NaN unknown, +inf sky, are what the pointer reads,
    if there is anything to read.
    """

    label: str
    picture: Pixels
    legend: str = ""
    values: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class GalleryCard:
    """One labelled image.

    `image` uint8 `[h w 3]`; `figures`: what is shown of its labels. `scores` can be sorted and
    filtered by; one that isn't finite counts as missing. `note` says why the label is a degraded
    one, "" if it isn't.
    """

    key: str
    image: Pixels
    figures: Sequence[GalleryFigure] = ()
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GalleryRejection:
    """An image that has no label: its key, a reason from a short list, and the details."""

    key: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class GalleryLedger:
    """Counts of the whole run, of which the page may show a sample only, the last two by reason."""

    ok: int
    degraded: Mapping[str, int]
    rejected: Mapping[str, int]


def write_gallery(
    title: str,
    provenance: Mapping[str, str],
    cards: Sequence[GalleryCard],
    rejections: Sequence[GalleryRejection],
    *,
    ledger: GalleryLedger | None = None,
    max_side_px: int = 512,
    probe_side_px: int = 256,
) -> str:
    """The page, as one string of HTML that is complete in itself.

    `provenance` (model, digest, counts, ...) is shown as a table, in its order. Without `ledger`
    the counts are those of `cards` and `rejections`. Pictures are shrunk to `max_side_px`. The
    values that the pointer reads are picked, not averaged, at most `probe_side_px` a side, and kept
    in steps of 1/65533. `ValueError`, naming the card, if an array has another shape or range than
    `GalleryCard` and `GalleryFigure` say.
    """
    if max_side_px < 1 or probe_side_px < 1:
        raise ValueError(
            f"max_side_px = {max_side_px} and probe_side_px = {probe_side_px} must be at least 1"
        )
    for card in cards:
        _require_card(card)
    ledger = _counted(cards, rejections) if ledger is None else ledger
    template = resources.files("e2eft.views").joinpath("gallery.html").read_text("utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    parts = {
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": _escaped(title),
        "spectral": ", ".join(f"rgb({r} {g} {b})" for r, g, b in SPECTRAL),
        "ball": _data_uri(Image.fromarray(normals_ball(96)), "PNG"),
        "ledger": _ledger_html(ledger, shown=len(cards)),
        "provenance": "".join(
            f"<tr><th scope=row>{_escaped(name)}</th><td>{_escaped(value)}</td></tr>"
            for name, value in provenance.items()
        ),
        "score_options": "".join(
            f'<option value="{_escaped(name)}">{_escaped(name)}</option>'
            for name in _score_names(cards)
        ),
        "views": str(max((len(card.figures) for card in cards), default=1)),
        "cards": "\n".join(_card_html(card, max_side_px, probe_side_px) for card in cards),
        "failures": _failures_html(rejections, ledger.rejected),
    }
    # In one pass: what a user wrote is never searched for markers.
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], template)


def pack_values(values: Floats) -> Pixels:
    """Values `[h w]` in [0, 1] as 16-bit codes in the pixels `[h w 3]` of a lossless picture.

    code = 256 * red + green: 0 for NaN, 65535 for +inf (sky), else 1 + 65533 * value, rounded. Two
    channels since browsers read pictures at 8 bits; no alpha since a canvas premultiplies by it.
    Blue is always 0: a reader that finds another value has a browser that alters what it reads.
    """
    code = np.full(values.shape, _CODE_INVALID, np.uint16)
    known = np.isfinite(values)
    code[known] = 1 + np.rint(np.clip(values[known].astype(np.float64), 0, 1) * _CODE_SPAN)
    code[np.isposinf(values)] = _CODE_SKY
    return np.stack([code >> 8, code & 255, np.zeros_like(code)], axis=-1).astype(np.uint8)


def _require_card(card: GalleryCard) -> None:
    shape = card.image.shape
    if len(shape) != 3 or shape[2] != 3 or card.image.dtype != np.uint8:
        raise ValueError(
            f"{card.key!r}: image is {card.image.dtype} {shape}, expected uint8 [h w 3]"
        )
    for figure in card.figures:
        if figure.picture.shape != shape or figure.picture.dtype != np.uint8:
            raise ValueError(
                f"{card.key!r}: the picture of {figure.label} is {figure.picture.dtype} "
                f"{figure.picture.shape}, the image {shape}"
            )
        if figure.values is not None:
            _require_relative(card, figure.label, figure.values)


def _require_relative(card: GalleryCard, label: str, values: Floats) -> None:
    if values.shape != card.image.shape[:2]:
        raise ValueError(
            f"{card.key!r}: {label} is {values.shape}, the image {card.image.shape[:2]}"
        )
    finite = values[np.isfinite(values)]
    if finite.size and not (finite.min() >= -1e-6 and finite.max() <= 1 + 1e-6):
        raise ValueError(
            f"{card.key!r}: {label} spans {finite.min():g} to {finite.max():g}, "
            f"expected relative {label}, 0 to 1"
        )


def _counted(cards: Iterable[GalleryCard], rejections: Iterable[GalleryRejection]) -> GalleryLedger:
    notes = Counter(card.note for card in cards)
    ok = notes.pop("", 0)
    return GalleryLedger(ok=ok, degraded=notes, rejected=Counter(r.reason for r in rejections))


def _score_names(cards: Iterable[GalleryCard]) -> list[str]:
    return list(dict.fromkeys(name for card in cards for name in card.scores))


def _escaped(text: str) -> str:
    # A file name may hold bytes that aren't text: lone surrogates, which UTF-8 can't write.
    return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"), quote=True)


def _data_uri(picture: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shrunk_size(height: int, width: int, side_px: int) -> tuple[int, int]:
    ratio = min(1.0, side_px / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _thumbnail(pixels: Pixels, max_side_px: int) -> str:
    height, width = _shrunk_size(pixels.shape[0], pixels.shape[1], max_side_px)
    picture = Image.fromarray(pixels)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return _data_uri(picture, "WEBP", quality=84, method=4)


def _probe(values: Floats, probe_side_px: int) -> str:
    # Picked, not averaged: a mean of two sides of an edge is a value that is nowhere.
    height, width = _shrunk_size(values.shape[0], values.shape[1], probe_side_px)
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(np.intp)
    codes = pack_values(values[np.ix_(rows, columns)])
    return _data_uri(Image.fromarray(codes), "PNG", compress_level=9)


def _card_html(card: GalleryCard, max_side_px: int, probe_side_px: int) -> str:
    image = f'<img class=before alt="" src="{_thumbnail(card.image, max_side_px)}">'
    figures: list[str] = []
    for figure in card.figures:
        after, probe = _thumbnail(figure.picture, max_side_px), ""
        if figure.values is not None:
            probe = f'data-probe="{_probe(figure.values, probe_side_px)}"'
        figures.append(_figure_html(card, figure.label, image, after, probe, figure.legend))
        image = ""  # The script shows it again in the next figure; once is enough to carry.
    if not figures:
        figures.append(f'<figure><div class=stage style="{_ratio(card)}">{image}</div></figure>')
    finite = {name: value for name, value in card.scores.items() if math.isfinite(value)}
    scores = "".join(
        f"<div><dt>{_escaped(name)}</dt>"
        f"<dd>{f'{value:.4g}' if name in finite else 'none'}</dd></div>"
        for name, value in card.scores.items()
    )
    note = f"<p class=note><b>degraded</b> {_escaped(card.note)}</p>" if card.note else ""
    return (
        f'<article class=card data-key="{_escaped(card.key)}"'
        f' data-degraded={int(bool(card.note))} data-scores="{_escaped(json.dumps(finite))}">'
        f"<h3><bdi>{_escaped(card.key)}</bdi></h3>{note}"
        f"<div class=views>{''.join(figures)}</div><dl class=scores>{scores}</dl></article>"
    )


def _figure_html(
    card: GalleryCard, label: str, image: str, after: str, probe: str, legend: str
) -> str:
    height, width = card.image.shape[:2]
    name = _escaped(card.key)
    return (
        f'<figure><div class=stage style="{_ratio(card)}" {probe} data-label="{label}"'
        f" data-width={width} data-height={height}>{image}"
        f'<img class=after alt="{label} of {name}" src="{after}">'
        "<span class=divider></span>"
        "<input type=range min=0 max=100 value=50 autocomplete=off"
        f' aria-label="image against {label}, {name}">'
        f"<output class=readout hidden></output></div><figcaption>{legend}</figcaption></figure>"
    )


def _ratio(card: GalleryCard) -> str:
    return f"aspect-ratio:{card.image.shape[1]}/{card.image.shape[0]}"


def _ledger_html(ledger: GalleryLedger, shown: int) -> str:
    counts = {
        "ok": ledger.ok,
        "degraded": sum(ledger.degraded.values()),
        "rejected": sum(ledger.rejected.values()),
    }
    total = sum(counts.values())
    tiles = "".join(
        f"<div class={name}><b>{count:,}</b><span>{name}</span></div>"
        for name, count in counts.items()
    )
    shares = "".join(
        f'<i class={name} style="flex-grow:{count}"></i>' for name, count in counts.items() if count
    )
    reasons = "".join(
        f"<tr class={kind}><th scope=row>{_escaped(reason)}</th><td>{kind}</td>"
        f"<td>{count:,}</td></tr>"
        for kind, by_reason in (("degraded", ledger.degraded), ("rejected", ledger.rejected))
        for reason, count in _by_count(by_reason)
    )
    return (
        f"<div class=counts>{tiles}</div><div class=shares>{shares}</div>"
        f"<p class=total>{total:,} images, {shown:,} shown below</p>"
        f"<table class=reasons>{reasons}</table>"
    )


def _failures_html(rejections: Sequence[GalleryRejection], counts: Mapping[str, int]) -> str:
    if not rejections and not counts:
        return "<p>None: every image has its label.</p>"
    by_reason: dict[str, list[GalleryRejection]] = {reason: [] for reason, _ in _by_count(counts)}
    for rejection in rejections:
        by_reason.setdefault(rejection.reason, []).append(rejection)
    is_open = " open" if len(rejections) <= _OPEN_FAILURES else ""
    groups: list[str] = []
    for reason, members in by_reason.items():
        listed = members[:_LISTED_PER_REASON]
        count = max(counts.get(reason, 0), len(members))
        rows = "".join(
            f"<li><bdi>{_escaped(r.key)}</bdi> <span>{_escaped(r.detail)}</span></li>"
            for r in listed
        )
        if count > len(listed):
            rows += f"<li class=more>and {count - len(listed):,} more</li>"
        groups.append(
            f"<details{is_open}><summary>{_escaped(reason)} <b>{count:,}</b></summary>"
            f"<ul>{rows}</ul></details>"
        )
    return "".join(groups)


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
