"""What is in a dataset: counts that add up over parts, and a page that shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from e2eft.data.modalities import Modalities
from e2eft.data.sample import Sample, count_away, is_constant

DEPTH_EDGES_M = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 656)
STRIDE = 4
"""Of pixels, every fourth of every fourth row is looked at."""
BAR = 40
_REMARKS = ("normals_away", "one_colour")
_NAMED = 5


@dataclass
class Survey:
    """Frames by scene and by size (`HEIGHT x WIDTH`), and pixels by depth.

    depth_counts: pixels in each interval of DEPTH_EDGES_M.
    pixels, unknown, sky, normals_unknown, normals_away: all that were looked at; without depth; at
        infinity; without a normal; with one that faces away from the camera.
    one_colour: keys of frames whose image is black throughout, or of one other colour.
    """

    scenes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    depth_counts: list[int] = field(default_factory=lambda: [0] * (len(DEPTH_EDGES_M) - 1))
    pixels: int = 0
    unknown: int = 0
    sky: int = 0
    normals_unknown: int = 0
    normals_away: int = 0
    one_colour: list[str] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Counts one checked frame."""
        height, width = sample.size
        depth_m = sample.depth_m[::STRIDE, ::STRIDE]
        known, normals_cam = np.isfinite(depth_m), sample.normals_cam[::STRIDE, ::STRIDE]
        counts, _ = np.histogram(depth_m[known], DEPTH_EDGES_M)
        self.merge(
            Survey(
                scenes={sample.scene: 1},
                sizes={f"{height} x {width}": 1},
                depth_counts=counts.tolist(),
                pixels=depth_m.size,
                unknown=int(np.isnan(depth_m).sum()),
                sky=int(np.isposinf(depth_m).sum()),
                normals_unknown=int(np.isnan(normals_cam).any(axis=-1).sum()),
                normals_away=0 if is_constant(normals_cam) else count_away(sample, STRIDE),
                one_colour=[sample.key] if _is_one_colour(sample.rgb) else [],
            )
        )

    def merge(self, other: Survey) -> None:
        """Adds what another part counted."""
        self.scenes = dict(Counter(self.scenes) + Counter(other.scenes))
        self.sizes = dict(Counter(self.sizes) + Counter(other.sizes))
        pairs = zip(self.depth_counts, other.depth_counts, strict=True)
        self.depth_counts = [mine + theirs for mine, theirs in pairs]
        self.pixels += other.pixels
        self.unknown += other.unknown
        self.sky += other.sky
        self.normals_unknown += other.normals_unknown
        self.normals_away += other.normals_away
        self.one_colour = [*self.one_colour, *other.one_colour]

    def away_share(self) -> float:
        """Part of the known normals that faces away from the camera."""
        return self.normals_away / max(1, self.pixels - self.normals_unknown)

    def modalities(self, known: Modalities) -> list[str]:
        """What there is to learn from, `depth`, `normals` or both: what the dataset is known to
        have, since pixels that are looked at may miss what is sparse, and what was seen besides."""
        there = {
            "depth": known.depth or sum(self.depth_counts) > 0,
            "normals": known.normals or self.normals_unknown < self.pixels,
        }
        return [name for name, is_there in there.items() if is_there]

    def as_json(self) -> dict[str, Any]:
        """Remarks are left out where there are none: a dataset without any keeps its digest."""
        facts = asdict(self)
        return {name: value for name, value in facts.items() if value or name not in _REMARKS}

    def remarks(self) -> list[str]:
        """What should not go unnoticed, in sentences."""
        found: list[str] = []
        if self.normals_away:
            found.append(f"{self.away_share():.1%} of the normals face away from the camera.")
        if self.one_colour:
            named = ", ".join(self.one_colour[:_NAMED])
            more = len(self.one_colour) - _NAMED
            found.append(
                f"{len(self.one_colour)} images are black or of one other colour: {named}"
                + (f" and {more} more." if more > 0 else ".")
            )
        return found


def _is_one_colour(rgb: np.ndarray) -> bool:
    few = rgb[::STRIDE, ::STRIDE]
    return bool((few == rgb[0, 0]).all() and (rgb == rgb[0, 0]).all())


def merged(parts: Iterable[dict[str, Any]]) -> Survey:
    """The survey of all parts, from what `as_json` says of each."""
    whole = Survey()
    for part in parts:
        whole.merge(Survey(**part))
    return whole


def planned_line(planned: int, provenance: dict[str, Any]) -> str:
    """How many frames were to be prepared, of which split or of how many that a list names."""
    listed = provenance.get("listed")
    if listed is None:
        split = f" of the split {provenance['split']}" if "split" in provenance else ""
        return f"Planned: {planned} frames{split}."
    without = provenance["without_truth"]
    left_out = f"; {without} have no ground truth" if without else ""
    return f"Planned: {planned} frames of {listed} listed{left_out}."


def report_page(
    survey: Survey, source: str, planned: str, reasons: dict[str, int], sheet: str
) -> str:
    """Markdown: the dataset's counts, its depth histogram and its contact sheet.

    Args:
        planned: what `planned_line` says.
        reasons: frames left out, by reason.
        sheet: relative path of a picture of some frames.
    """
    frames, rejected = sum(survey.scenes.values()), sum(reasons.values())
    share = {
        name: f"{getattr(survey, name) / max(1, survey.pixels):.1%}"
        for name in ("unknown", "sky", "normals_unknown")
    }
    sizes = ", ".join(f"{count} of {size}" for size, count in sorted(survey.sizes.items()))
    lines = [
        f"# {source}",
        "",
        f"{frames} frames ({sizes}) of {len(survey.scenes)} scenes; {rejected} rejected.",
        "",
        planned,
        "",
        f"Pixels without depth {share['unknown']}, sky {share['sky']}, without normal "
        f"{share['normals_unknown']}.",
        *survey.remarks(),
        "",
        f"![some frames]({sheet})",
    ]
    if any(survey.depth_counts):
        lines += ["", "## Depth", "", "| metres | share of pixels with depth | |", "|---|---|---|"]
        lines += _histogram(survey)
    if reasons:
        lines += ["", "## Rejected", "", "| reason | frames |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in sorted(reasons.items())]
    lines += ["", "## Scenes", "", "| scene | frames |", "|---|---|"]
    lines += [f"| {scene} | {count} |" for scene, count in sorted(survey.scenes.items())]
    return "\n".join(lines) + "\n"


def _histogram(survey: Survey) -> list[str]:
    counts, total = survey.depth_counts, max(1, sum(survey.depth_counts))
    seen = [number for number, count in enumerate(counts) if count]
    rows: list[str] = []
    for number in range(seen[0], seen[-1] + 1) if seen else ():
        near, far = DEPTH_EDGES_M[number : number + 2]
        bar = "█" * round(BAR * counts[number] / max(counts))
        rows.append(f"| {near:g} to {far:g} | {counts[number] / total:.1%} | {bar} |")
    return rows
