"""Damages files, judges what becomes of them, and writes the table. Goes on where it ended.

python -m tests.mutations --files 10000 --whole 1000 --page benchmarks/results/mutations.md
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from tests.mutations.originals import LAYOUTS
from tests.mutations.pool import Result, results

EVERY = 500


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="damaged files")
    parser.add_argument(
        "--whole", type=int, default=1_000, help="whole ones, and as many with damaged texts"
    )
    parser.add_argument("--folder", type=Path, default=Path("mutations"), help="of the ledger")
    parser.add_argument("--page", type=Path, help="the table, as Markdown")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    wanted = {("damaged", seed) for seed in range(given.files)}
    wanted |= {(kind, seed) for kind in ("undamaged", "metadata") for seed in range(given.whole)}
    given.folder.mkdir(parents=True, exist_ok=True)
    ledger = given.folder / "ledger.jsonl"
    done = _read(ledger)
    left = sorted(wanted - done.keys())
    with ledger.open("a") as file:
        for number, result in enumerate(results(left, given.processes), 1):
            file.write(json.dumps(asdict(result)) + "\n")
            done[result.kind, result.seed] = result
            if result.fault:
                print(f"{result.kind} {result.seed} {result.layout}: {result.fault}")
            if number % EVERY == 0:
                file.flush()
                print(f"{number}/{len(left)} files", flush=True)
    judged = [done[key] for key in sorted(wanted)]
    page = table(judged)
    print(page)
    if given.page:
        given.page.write_text(page)
    return int(any(result.fault for result in judged))


def _read(ledger: Path) -> dict[tuple[str, int], Result]:
    if not ledger.exists():
        return {}
    # The last line may have been cut off.
    lines = [line for line in ledger.read_text().split("\n")[:-1] if line.endswith("}")]
    found = [Result(**json.loads(line)) for line in lines]
    return {(result.kind, result.seed): result for result in found}


def table(judged: list[Result]) -> str:
    """What became of the files, by format and by damage, as Markdown."""
    counts = Counter(result.kind for result in judged)
    faults = [result for result in judged if result.fault]
    damaged = [result for result in judged if result.kind == "damaged"]
    decoders = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in ("pillow", "simplejpeg", "opencv-python-headless")
    )
    lines = [
        "# Damaged pictures",
        "",
        f"`python -m tests.mutations` ({decoders}): {counts['damaged']} files damaged at random, "
        f"{counts['undamaged']} whole ones, {counts['metadata']} of which only texts are damaged. "
        "Each is made from its seed, decoded in a process that may die, and judged by a strict "
        "decoder (JPEG), checksums (PNG) or a second one (AVIF), and by OpenCV's decoders.",
        "",
        f"**{len(faults)} faults**: crashes, hangs of more than 20 s, whole pictures that are not "
        "`ok`, `ok` where a strict decoder or a checksum objects or where OpenCV's pixels differ.",
        "",
        *(f"- {r.kind} {r.seed} ({r.layout}, {r.damage}): {r.fault}" for r in faults),
        "",
        "`undetected`: `ok`, and not the picture it was. Their formats have no checksum, and the "
        "decoder says nothing. `OpenCV refuses`: of those that are `ok`, what OpenCV does not "
        "read. AVIF files that its decoder of AV1 (aom) refuses and Pillow's (dav1d) reads are "
        "degraded.",
        "",
        *_rows("format", damaged, {r.seed: LAYOUTS[r.layout][0] for r in damaged}),
        "",
        *_rows("damage", damaged, {r.seed: r.damage for r in damaged}),
        "",
        "| outcome of the damaged | files |",
        "|---|---|",
        *(f"| {o} | {n} |" for o, n in Counter(r.outcome for r in damaged).most_common()),
    ]
    return "\n".join(lines) + "\n"


def _rows(title: str, damaged: list[Result], group_of: dict[int, str]) -> list[str]:
    lines = [
        f"| {title} | files | rejected | degraded | ok | undetected | OpenCV refuses |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in sorted({*group_of.values()}):
        those = [result for result in damaged if group_of[result.seed] == group]
        ok = [result for result in those if result.outcome == "ok"]
        degraded = sum(result.outcome.startswith("degraded") for result in those)
        rejected = len(those) - len(ok) - degraded
        undetected = sum(result.undetected for result in ok)
        refused = sum(not result.compared for result in ok)
        lines.append(
            f"| {group} | {len(those)} | {rejected} | {degraded} | {len(ok)} | {undetected} | "
            f"{refused} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
