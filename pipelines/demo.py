"""The whole job on one machine: render, shard, fine-tune end to end, register, label, score.

    python pipelines/demo.py [--out demo]

Every step is a command a user could type; it is printed before it runs. What is committed is used
again.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Python puts this folder first on the path, where our own file names would shadow packages.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from e2eft.stdout import for_a_reader  # noqa: E402

HEIGHT, WIDTH = 128, 160
DEPTH_MODEL = "e2eft-depth"
FAMILIES = ("indoor", "street")
LEADING, TRAILING, MANY = "one step, leading", "one step, trailing", "many steps, trailing"
END_TO_END = "end-to-end fine-tuned"
MIX = "--weight 3 --weight 1"
"""Indoor to street. The depth loss is in metres: at equal shares, streets would decide it."""


@dataclass(frozen=True)
class Size:
    """How much is rendered and trained: scenes by split and family, and optimizer steps by
    precision and task, fewer for CPUs without bf16, which are older."""

    scenes: dict[str, dict[str, int]]
    frames_per_scene: int
    steps: dict[str, dict[str, int]]
    many_steps: int


FULL = Size(
    scenes={"train": {"indoor": 60, "street": 30}, "held-out": {"indoor": 16, "street": 16}},
    frames_per_scene=4,
    steps={"fp32": {"depth": 60, "normals": 200}, "bf16": {"depth": 75, "normals": 400}},
    many_steps=50,
)
QUICK = Size(
    scenes={"train": {"indoor": 2, "street": 2}, "held-out": {"indoor": 2, "street": 2}},
    frames_per_scene=2,
    steps={"fp32": {"depth": 4, "normals": 4}, "bf16": {"depth": 4, "normals": 4}},
    many_steps=3,
)


@dataclass
class Demo:
    """Where things are, how large they are, and how long each stage took."""

    out: Path
    size: Size
    precision: str
    seconds: dict[str, float] = field(default_factory=dict)

    def at(self, *parts: str) -> str:
        return str(self.out.joinpath(*parts))

    def flag(self, *parts: str) -> str:
        """The same, quoted for a command line."""
        return shlex.quote(self.at(*parts))

    def run(self, stage: str, *arguments: str) -> None:
        """Prints and runs one command of the command line; stops the demo if it fails."""
        from e2eft.cli import run_stage

        tracking = ["--tracking-uri", self.tracking, "--experiment", "e2eft-demo"]
        argv = shlex.split(" ".join(arguments)) + tracking
        print(f"\n$ python pipelines/{stage}.py {' '.join(arguments)}", flush=True)
        if code := run_stage(stage, argv):
            sys.exit(code)

    @property
    def tracking(self) -> str:
        return f"sqlite:///{self.out}/mlflow.db"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - started


def prepare(demo: Demo) -> None:
    """Training scenes of seed 0 and held-out scenes of seed 1000, indoor and street."""
    for split, seed in (("train", 0), ("held-out", 1000)):
        for family in FAMILIES:
            demo.run(
                "prepare",
                f"synthetic-{family} --out {demo.flag('shards', f'{family}-{split}')}",
                f"--num-scenes {demo.size.scenes[split][family]} --seed {seed}",
                f"--frames-per-scene {demo.size.frames_per_scene}",
                f"--height {HEIGHT} --width {WIDTH} --samples-per-pixel 4 --frames-per-part 16",
            )


def shards(demo: Demo, split: str) -> str:
    return " ".join(f"--data {demo.flag('shards', f'{family}-{split}')}" for family in FAMILIES)


def train(demo: Demo) -> None:
    """Both of the paper's paths: from a depth diffusion model, and straight from an image model."""
    panel = " ".join(
        f"--panel-data {demo.flag('shards', f'{family}-held-out')}" for family in FAMILIES
    )
    for task, steps in demo.size.steps[demo.precision].items():
        demo.run(
            "train",
            f"tiny-{task} {shards(demo, 'train')} {MIX} --out {demo.flag('runs', task)}",
            f"--max-steps {steps} --num-workers 2 --zero-stage 2 --precision {demo.precision}",
            f"--panel-every 100 {panel}",
        )


def best_precision() -> str:
    """bf16 where the CPU multiplies matrices in it (AMX): a third more samples a second."""
    cpu = Path("/proc/cpuinfo")
    return "bf16" if cpu.exists() and "amx_bf16" in cpu.read_text() else "fp32"


def evaluate(demo: Demo) -> None:
    """The paper's flaw and its fix on held-out scenes, then the fine-tuned models."""
    data = shards(demo, "held-out")
    samplings = {
        LEADING: "--spacing leading --steps 1",
        TRAILING: "--spacing trailing --steps 1",
        MANY: f"--spacing trailing --steps {demo.size.many_steps} --num-workers 2",
    }
    for name, sampling in samplings.items():
        demo.run(
            "evaluate",
            f"synthetic-depth --model tiny-marigold-depth {sampling} {data}",
            f"--out {demo.flag('scores', slug(name))}",
        )
    demo.run(
        "evaluate",
        f"synthetic-depth --model {demo.flag('runs', 'depth')} {data}",
        f"--out {demo.flag('scores', slug(END_TO_END))} --register {DEPTH_MODEL}",
    )
    demo.run(
        "evaluate",
        f"synthetic-normals --model {demo.flag('runs', 'normals')} {data}",
        f"--out {demo.flag('scores', 'normals')}",
    )


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def write_images(demo: Demo) -> None:
    """A folder of images as a user has one: held-out renders and two photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from e2eft.data.batches import FrameReader
    from e2eft.data.shards import open_shards

    folder = demo.out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    photographs = load_sample_images()
    for name, pixels in zip(photographs.filenames, photographs.images, strict=True):
        Image.fromarray(pixels).save(folder / f"photo-{Path(name).stem}.jpg", quality=95)
    for family in FAMILIES:
        index = open_shards(demo.at("shards", f"{family}-held-out"))
        for row in range(0, len(index), 8):
            sample = FrameReader([index]).read(0, row)
            Image.fromarray(sample.rgb).save(folder / f"{family}-{row:03d}.png")


def label(demo: Demo) -> None:
    """The registry's champion labels images it has never seen."""
    if not (demo.out / "labels" / "manifest.json").exists():
        write_images(demo)
    demo.run(
        "label",
        f"depth --model models:/{DEPTH_MODEL}@champion --images {demo.flag('images')}",
        f"--out {demo.flag('labels')}",
    )


def compare(demo: Demo) -> list[str]:
    """Lines of the summary: scores with intervals, indoor and street apart."""
    from e2eft.evaluate import paired_difference

    names = [LEADING, TRAILING, MANY, END_TO_END]
    scores = {name: read_scores(demo, slug(name)) for name in names}
    lines = [f"{'held-out scenes, AbsRel (δ1)':32}" + "".join(f"{f:>22}" for f in FAMILIES)]
    first = scores[names[0]]["domains"]

    def cell(metrics: dict, key: str) -> str:
        return f"{metrics['abs_rel'][key]:.3f} ({metrics['delta1'][key]:.1%})"

    rows = {
        "best constant": [cell(first[f"synthetic-{f}"]["metrics"], "constant") for f in FAMILIES]
    }
    for name in names:
        domains = scores[name]["domains"]
        rows[name] = [cell(domains[f"synthetic-{f}"]["metrics"], "mean") for f in FAMILIES]
    lines += [f"  {name:30}" + "".join(f"{text:>22}" for text in row) for name, row in rows.items()]
    lines.append("paired differences in AbsRel, all images, with 95 % bootstrap intervals")
    pairs = [(END_TO_END, TRAILING), (END_TO_END, MANY), (TRAILING, MANY), (LEADING, TRAILING)]
    for a, b in pairs:
        mean, low, high = paired_difference(
            demo.at("scores", slug(a)), demo.at("scores", slug(b)), "abs_rel"
        )
        lines.append(f"  {a} - {b}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    normals = read_scores(demo, "normals")["domains"]
    lines.append("normals, mean angular error (best constant normal)")
    for family in FAMILIES:
        mean = normals[f"synthetic-{family}"]["metrics"]["mean_deg"]
        lines.append(f"  {family:30}{mean['mean']:.1f}° ({mean['constant']:.1f}°)")
    return lines


def read_scores(demo: Demo, name: str) -> dict:
    return json.loads((demo.out / "scores" / name / "scores.json").read_text())


@for_a_reader()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="demo", help="folder for everything the demo makes")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a handful of frames and steps: shows that everything runs, not that it learns",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default=best_precision(),
        help="what training computes in (default here: %(default)s)",
    )
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    demo = Demo(Path(arguments.out).resolve(), size, arguments.precision)
    demo.out.mkdir(parents=True, exist_ok=True)
    for name, stage in (
        ("prepare", prepare),
        ("train", train),
        ("evaluate", evaluate),
        ("label", label),
    ):
        with demo.timed(name):
            stage(demo)
    print("\n" + "=" * 78)
    print("\n".join(compare(demo)))
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in demo.seconds.items())
    print(f"time         {took}; {sum(demo.seconds.values()):.0f} s in all")
    for what, place in (
        ("shards", "shards"),
        ("models", "runs"),
        ("scores", "scores"),
        ("labels", "labels"),
        ("gallery", "labels/gallery.html"),
    ):
        print(f"{what:12} {demo.at(place)}")
    print(f"MLflow       .venv/bin/mlflow server --backend-store-uri {demo.tracking} --port 5000")


if __name__ == "__main__":
    main()
