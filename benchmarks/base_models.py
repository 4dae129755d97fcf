"""Quality of the packaged small models on held-out scenes.

    python benchmarks/base_models.py SHARDS... [--limit N] [--base NAME_OR_FOLDER] [--steps 1 10 50]

VAE round trip of normalized depth (AbsRel, δ1, by domain), then the small Marigold with `leading`
and `trailing` spacing and several numbers of steps, beside the constant, as one table. Below it the
VAE's round trip of colour images (mean absolute difference on [-1, 1]) and of normal maps (mean
angle).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator

import torch

from e2eft.config import SamplingConfig
from e2eft.data.batch import Batch
from e2eft.data.batches import FrameReader, collate
from e2eft.data.shards import open_shards
from e2eft.model.estimator import Estimator
from e2eft.model.pretrained import find_model, load_estimator
from e2eft.tasks import get_task

TASK, NORMALS = get_task("depth"), get_task("normals")
BATCH = 8


def batches(uris: list[str], limit: int) -> Iterator[tuple[str, Batch]]:
    """(domain, batch) over the first `limit` frames of each dataset."""
    for uri in uris:
        index = open_shards(uri)
        reader = FrameReader([index])
        rows = range(min(limit, len(index)))
        for start in range(0, len(rows), BATCH):
            samples = [reader.read(0, row) for row in rows[start : start + BATCH]]
            yield samples[0].source, collate(samples, 80.0)


def round_trip(estimator: Estimator, batch: Batch) -> torch.Tensor:
    target, _ = TASK.encode_target(batch)
    return TASK.decode(estimator.codec.decode(estimator.codec.encode(target)))


def other_round_trips(estimator: Estimator, batch: Batch) -> torch.Tensor:
    """(colour difference, angle in degrees) of each image, `[2 n]`."""
    codec = estimator.codec
    colour = (codec.decode(codec.encode(batch.rgb)) - batch.rgb).abs().mean((1, 2, 3))
    target, _ = NORMALS.encode_target(batch)
    normals = NORMALS.decode(codec.decode(codec.encode(target)))
    return torch.stack([colour.double(), NORMALS.errors(normals, batch)["mean_deg"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--base", default="tiny-marigold-depth")
    parser.add_argument("--limit", type=int, default=96)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 10])
    arguments = parser.parse_args()
    estimator = load_estimator(find_model(arguments.base))
    methods = {
        "constant": lambda batch, seeds: TASK.constant_prediction(batch),
        "VAE round trip": lambda batch, seeds: round_trip(estimator, batch),
    }
    if estimator.card.task == "depth":
        for spacing in ("leading", "trailing"):
            for steps in arguments.steps:
                sampling = SamplingConfig(steps=steps, spacing=spacing)
                methods[f"{spacing}, {steps} steps"] = lambda batch, seeds, s=sampling: TASK.decode(
                    estimator.run(batch.rgb, s, seeds)
                )
    totals: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)
    others: dict[str, list[torch.Tensor]] = defaultdict(list)
    with torch.inference_mode():
        for domain, batch in batches(arguments.shards, arguments.limit):
            others[domain].append(other_round_trips(estimator, batch))
            for name, method in methods.items():
                errors = TASK.errors(method(batch, list(range(len(batch)))), batch)
                totals[name, domain].append(torch.stack([errors["abs_rel"], errors["delta1"]]))
    domains = sorted({domain for _, domain in totals})
    print(f"{'':24}" + "".join(f"{domain:>26}" for domain in domains))
    for name in methods:
        cells = [torch.cat(totals[name, domain], dim=1).nanmean(dim=1) for domain in domains]
        texts = [f"AbsRel {cell[0]:.3f}  δ1 {cell[1]:.1%}" for cell in cells]
        print(f"{name:24}" + "".join(f"{text:>26}" for text in texts))
    means = [torch.cat(others[domain], dim=1).nanmean(dim=1) for domain in domains]
    texts = [f"colour {colour:.3f}  {angle:.1f}°" for colour, angle in means]
    print(f"{'VAE round trip':24}" + "".join(f"{text:>26}" for text in texts))


if __name__ == "__main__":
    main()
