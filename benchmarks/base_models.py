"""Quality of the packaged small models on held-out scenes.

    python benchmarks/base_models.py SHARDS... [--limit N] [--base NAME_OR_FOLDER] [--steps 1 10 50]

VAE round trip of normalized depth (AbsRel, δ1, by domain), then the small Marigold with `leading`
and `trailing` spacing and several numbers of steps, as one table, beside the constant and "by
position": the mean target of the dataset's other scenes, which no image is looked at for. Below it
the VAE's round trip of colour images (mean absolute difference on [-1, 1]) and of normal maps (mean
angle).
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch

from e2eft.config import SamplingConfig
from e2eft.data.batch import Batch
from e2eft.data.batches import FrameReader, collate
from e2eft.data.shards import open_shards
from e2eft.model.estimator import Estimator
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model
from e2eft.tasks import get_task

Sums = dict[str, tuple[torch.Tensor, int]]

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


def summed_targets(uris: list[str], limit: int) -> Sums:
    """Of each domain: the sum of all targets `[3 h w]` in [-1, 1], and their number."""
    sums: Sums = {}
    for domain, batch in batches(uris, limit):
        total, count = sums.get(domain, (torch.zeros(()), 0))
        sums[domain] = total + TASK.encode_target(batch)[0].sum(0), count + len(batch)
    return sums


def by_position(total: torch.Tensor, count: int, batch: Batch) -> torch.Tensor:
    """The mean target of the frames outside this batch.

    Those are of other scenes as long as the frames of a scene divide the batch: 1, 2, 4 or 8.
    """
    inside, _ = TASK.encode_target(batch)
    mean = (total - inside.sum(0)) / (count - len(batch))
    return TASK.decode(mean.expand(inside.shape))


def other_round_trips(estimator: Estimator, batch: Batch) -> torch.Tensor:
    """(colour difference, angle in degrees) of each image, `[2 n]`."""
    codec = estimator.codec
    colour = (codec.decode(codec.encode(batch.rgb)) - batch.rgb).abs().mean((1, 2, 3))
    target, _ = NORMALS.encode_target(batch)
    normals = NORMALS.decode(codec.decode(codec.encode(target)))
    return torch.stack([colour.double(), NORMALS.errors(normals, batch)["mean_deg"]])


Method = Callable[[str, Batch], torch.Tensor]


def methods_of(estimator: Estimator, steps: list[int], sums: Sums) -> dict[str, Method]:
    """What is compared, by name: (domain, batch) to a prediction of affine-invariant depth."""
    methods: dict[str, Method] = {
        "constant": lambda domain, batch: TASK.constant_prediction(batch),
        "by position": lambda domain, batch: by_position(*sums[domain], batch),
        "VAE round trip": lambda domain, batch: round_trip(estimator, batch),
    }
    if estimator.card.task != "depth":
        return methods
    for spacing in ("leading", "trailing"):
        for count in steps:
            sampling = SamplingConfig(steps=count, spacing=spacing)
            methods[f"{spacing}, {count} steps"] = lambda domain, batch, s=sampling: TASK.decode(
                estimator.run(batch.rgb, s, list(range(len(batch))))
            )
    return methods


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--base", default="tiny-marigold-depth")
    parser.add_argument("--limit", type=int, default=96)
    parser.add_argument("--steps", type=int, nargs="*", default=[1, 10])
    arguments = parser.parse_args()
    estimator = load_estimator(find_model(arguments.base))
    sums = summed_targets(arguments.shards, arguments.limit)
    methods = methods_of(estimator, arguments.steps, sums)
    totals: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)
    others: dict[str, list[torch.Tensor]] = defaultdict(list)
    with torch.inference_mode():
        for domain, batch in batches(arguments.shards, arguments.limit):
            others[domain].append(other_round_trips(estimator, batch))
            for name, method in methods.items():
                errors = TASK.errors(method(domain, batch), batch)
                totals[name, domain].append(torch.stack([errors["abs_rel"], errors["delta1"]]))
    print(f"{'':24}" + "".join(f"{domain:>26}" for domain in others))
    for name in methods:
        cells = [torch.cat(totals[name, domain], dim=1).nanmean(dim=1) for domain in others]
        texts = [f"AbsRel {cell[0]:.3f}  δ1 {cell[1]:.1%}" for cell in cells]
        print(f"{name:24}" + "".join(f"{text:>26}" for text in texts))
    means = [torch.cat(parts, dim=1).nanmean(dim=1) for parts in others.values()]
    texts = [f"colour {colour:.3f}  {angle:.1f}°" for colour, angle in means]
    print(f"{'VAE round trip':24}" + "".join(f"{text:>26}" for text in texts))


if __name__ == "__main__":
    main()
