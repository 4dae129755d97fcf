"""One case a seed: a file, damaged or not, and whether what became of it is right."""

import random
from dataclasses import dataclass

from tests.mutations.damage import DAMAGES, damaged_metadata, metadata_ranges
from tests.mutations.judge import TOLERANCE, Verdict, judged
from tests.mutations.originals import LAYOUTS, picture

KINDS = ("damaged", "undamaged", "metadata")
"""Anything in the file; nothing; only texts on which no pixel depends."""
UNSEEN = 2.0
"""Mean difference from the undamaged picture, of 255, beyond a format's tolerance, from which on a
file that is `ok` is counted as damage that nothing detects."""


@dataclass(frozen=True)
class Case:
    """A file and where it comes from. layout, damage: names of `LAYOUTS` and `DAMAGES`."""

    layout: str
    damage: str
    content: bytes
    original: bytes

    @property
    def image_format(self) -> str:
        return LAYOUTS[self.layout][0]


def case(kind: str, seed: int) -> Case:
    """The same for a seed on every machine with the same encoders."""
    rng = random.Random(f"{kind} {seed}")
    layouts = [
        name
        for name, (image_format, _) in LAYOUTS.items()
        if kind != "metadata" or image_format in ("PNG", "JPEG", "WEBP")
    ]
    layout = rng.choice(layouts)
    image_format, make = LAYOUTS[layout]
    original = make(picture(rng))
    if kind == "undamaged":
        return Case(layout, "none", original, original)
    if kind == "metadata":
        ranges = metadata_ranges(original, image_format)
        return Case(layout, "metadata", damaged_metadata(original, ranges, rng), original)
    damage = rng.choice([*DAMAGES])
    return Case(layout, damage, DAMAGES[damage](original, rng), original)


def verdict_on(one: Case) -> Verdict:
    """See `judged`."""
    return judged(one.content, one.image_format, one.original)


def fault(kind: str, one: Case, verdict: Verdict) -> str:
    """What is wrong with a verdict; "" if nothing is."""
    if verdict.outcome != "ok":
        is_whole = kind != "damaged" or one.content == one.original
        return f"a whole picture is {verdict.outcome}" if is_whole else ""
    if verdict.objection:
        return f"ok, but: {verdict.objection}"
    if verdict.apart is not None and verdict.apart > TOLERANCE[one.image_format]:
        return f"ok, but another decoder is {verdict.apart:.2f} apart"
    if kind != "damaged" and verdict.changed:
        return f"its pixels are {verdict.changed:.2f} off"
    return ""


def is_undetected(one: Case, verdict: Verdict) -> bool:
    """Whether a damaged picture is `ok` and is not the picture that it was."""
    return verdict.outcome == "ok" and verdict.changed > TOLERANCE[one.image_format] + UNSEEN
