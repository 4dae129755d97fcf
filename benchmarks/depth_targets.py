"""Depth targets and losses at equal cost, from an image model, on rendered scenes.

    python benchmarks/depth_targets.py --out FOLDER [--steps N] [--seeds 0 1 2]

Each variant fine-tunes tiny-sd, which was not trained on depth of any kind, on the same frames in
the same order, once a seed. Held-out scenes are labelled, and every label is fitted twice by least
squares: in the space that it is affine in, and as if it were linear depth. Of every variant the
mean AbsRel over seeds, and its paired difference from linear depth with the paper's loss: the mean
over seeds of each image's difference, with its 95 % interval over images. Nothing is tuned for any
of them. Run again, it goes on where it ended.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from e2eft import cli
from e2eft.data.batches import FrameReader
from e2eft.data.shards import open_shards
from e2eft.labels import open_labels
from e2eft.metrics.bootstrap import mean_interval
from e2eft.metrics.depth import least_squares_depth_errors
from e2eft.targets import LINEAR, DepthTarget

FAMILIES = ("indoor", "street")
SCENES = {"train": (0, 40), "held-out": (1000, 24)}
"""First seed and number of scenes, each of 2 frames."""
SIZE = "--height 72 --width 96 --samples-per-pixel 4 --frames-per-scene 2"
BASELINE = "linear"
VARIANTS = {
    BASELINE: "",
    "log": "--target log",
    "log, eps 1 m": "--target log:eps_m=1",
    "sqrt-disparity": "--target sqrt-disparity",
    "linear, with gradient matching": "--loss affine-invariant --loss gradient-matching",
    "linear, log-space loss": "--loss log-space",
}
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 80.0
RESAMPLES = 2000


def run(stage: str, command: str) -> None:
    """One stage, in this process, which keeps its Ray cluster."""
    print(f"$ {stage} {command}", flush=True)
    if code := cli.run_stage(stage, command.split()):
        raise SystemExit(f"{stage} ended with {code}")


def abs_rel(shards: str, labels: str, target: DepthTarget) -> dict[str, float]:
    """Of every labelled image, by its key, fitted in a target's space."""
    index, found = open_shards(shards), open_labels(labels)
    rows, reader = found.by_key(), FrameReader([index])
    scores: dict[str, float] = {}
    for number in range(len(index)):
        sample = reader.read(0, number)
        depth_m = torch.from_numpy(sample.depth_m)[None]
        valid = depth_m.isfinite() & (depth_m > MIN_DEPTH_M) & (depth_m < MAX_DEPTH_M)
        prediction = torch.from_numpy(found.read(rows[sample.key]))[None]
        errors = least_squares_depth_errors(
            prediction, depth_m.where(valid, 1), valid, MIN_DEPTH_M, MAX_DEPTH_M, target
        )
        scores[sample.key] = float(errors["abs_rel"])
    return scores


def scored(out: Path, variant: str, seed: int, steps: int) -> dict[tuple[str, str], np.ndarray]:
    """AbsRel of every held-out image by (family, space), in the order of keys."""
    name = variant.replace(", ", "-").replace(" ", "-")
    model = out / "runs" / f"{name}-{seed}-{steps}"
    data = " ".join(f"--data {out}/shards/{family}-train" for family in FAMILIES)
    run(
        "train",
        f"tiny-depth --base tiny-sd {data} --out {model} --max-steps {steps} --seed {seed} "
        "--lr 1e-3 --batch 8 --micro-batch 4 --num-workers 2 --panel-frames 0 "
        f"--checkpoint-every {steps} --no-tracking {VARIANTS[variant]}",
    )
    found: dict[tuple[str, str], np.ndarray] = {}
    for family in FAMILIES:
        shards, labels = f"{out}/shards/{family}-held-out", f"{model}-labels-{family}"
        run(
            "label",
            f"depth --model {model} --images {shards} --out {labels} --save-npy "
            "--no-save-previews --gallery-images 0 --no-tracking",
        )
        for space, target in (("own", open_labels(labels).depth_target), ("depth", LINEAR)):
            scores = abs_rel(shards, labels, target)
            found[family, space] = np.array([scores[key] for key in sorted(scores)])
    return found


def line(variant: str, runs: list[dict[tuple[str, str], np.ndarray]], baseline: list) -> str:
    cells = [variant]
    for key in ((family, space) for family in FAMILIES for space in ("own", "depth")):
        means = [float(of_seed[key].mean()) for of_seed in runs]
        differences = np.mean(
            [a[key] - b[key] for a, b in zip(runs, baseline, strict=True)], axis=0
        )
        mean, low, high = (float(v[0]) for v in mean_interval(differences[:, None], RESAMPLES))
        cell = f"{np.mean(means):.3f} ({min(means):.3f} to {max(means):.3f})"
        if variant != BASELINE:
            cell += f"; {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        cells.append(cell)
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    for split, (seed, scenes) in SCENES.items():
        for family in FAMILIES:
            shards = arguments.out / "shards" / f"{family}-{split}"
            run(
                "prepare",
                f"synthetic-{family} --out {shards} --num-scenes {scenes} --seed {seed} {SIZE} "
                "--no-tracking",
            )
    found = {
        variant: [scored(arguments.out, variant, seed, arguments.steps) for seed in arguments.seeds]
        for variant in VARIANTS
    }
    titles = [f"{family}, {space}" for family in FAMILIES for space in ("own space", "as depth")]
    print(f"\n{arguments.steps} steps of 8, seeds {arguments.seeds}; AbsRel, mean (least to most)")
    print("| " + " | ".join(["variant", *titles]) + " |\n|" + "---|" * (len(titles) + 1))
    for variant, runs in found.items():
        print(line(variant, runs, found[BASELINE]))


if __name__ == "__main__":
    main()
