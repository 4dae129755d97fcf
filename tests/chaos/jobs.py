"""The commands under attack, and what their artifacts hold."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from e2eft.artifacts import load_artifact, verify
from e2eft.labels.index import open_labels
from tests.chaos.watch import Phase
from tests.corpora import write_plain_corpus
from tests.frames import write_analytic_shards
from tests.labelling import write_model
from tests.virtual_kitti_files import VirtualKittiRelease, make_street

Stage = Literal["prepare", "train", "label"]
Place = Literal["disk", "s3"]
FRAMES, IMAGES = 6, 10
STEPS = 4


@dataclass(frozen=True)
class Job:
    """One stage; zero_stage: of training."""

    stage: Stage
    zero_stage: int = 0

    @property
    def name(self) -> str:
        return f"train-zero-{self.zero_stage}" if self.stage == "train" else self.stage

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What it goes through, in order."""
        if self.stage == "train":
            return "claim", "upload", "register", "prune", "export", "commit", "after"
        return "claim", "part", "commit", "after"

    def argv(self, inputs: Path, out: str) -> list[str]:
        """Of `python`, in the repository's folder."""
        if self.stage == "prepare":
            said = (
                f"virtual-kitti-2-all --root {inputs / 'raw'} --scene Scene06 --variation rain "
                f"--frames-per-sequence {FRAMES} --no-benchmark-crop --frames-per-part 2"
            )
        elif self.stage == "train":
            said = (
                f"tiny-depth --base blank --data {inputs / 'shards'} --num-workers 2 --batch 4 "
                f"--micro-batch 2 --lr 1e-3 --max-steps {STEPS} --warmup-steps 1 "
                f"--checkpoint-every 1 --checkpoint.keep 1 --panel-frames 0 --limit 8 "
                f"--zero-stage {self.zero_stage}"
            )
        else:
            said = (
                f"depth --model {inputs / 'model'} --images {inputs / 'images'} "
                "--images-per-part 2 --batch-size 2"
            )
        return [f"pipelines/{self.stage}.py", *said.split(), "--out", out]


JOBS = (Job("prepare"), Job("train", 1), Job("train", 2), Job("train", 3), Job("label"))


def write_inputs(folder: Path) -> None:
    """What the jobs read, made once."""
    done = folder / "done"
    if done.exists():
        return
    release = VirtualKittiRelease()
    for number in range(FRAMES):
        release.add("Scene06", "rain", number, make_street(number, 96, 320))
    release.write(folder / "raw", "archives")
    write_analytic_shards(str(folder / "shards"), 8, height=32, width=40)
    write_plain_corpus(folder / "images", IMAGES)
    write_model(folder, "depth")
    done.touch()


@dataclass(frozen=True)
class Content:
    """What must not depend on attacks. files: SHA-256, or what else tells, by name. keys: of frames
    or images, each as often as it is there."""

    files: dict[str, str]
    keys: tuple[str, ...]

    def difference(self, expected: "Content") -> str:
        """What a person is told; "" if there is none."""
        said: list[str] = []
        for name in sorted(self.files.keys() | expected.files.keys()):
            if self.files.get(name) != expected.files.get(name):
                said.append(f"{name} differs")
        if self.keys != expected.keys:
            lost = set(expected.keys) - set(self.keys)
            doubled = len(self.keys) - len(set(self.keys))
            said.append(f"{len(lost)} keys lost, {doubled} doubled")
        return "; ".join(said)


def content_of(job: Job, uri: str) -> Content:
    """Of a finished artifact.

    Raises:
        ArtifactError: if it is not one.
        AssertionError: if a file is not what the manifest says.
    """
    artifact = load_artifact(uri)
    problems = verify(artifact)
    assert not problems, problems
    files = {entry.called: entry.sha256 for entry in artifact.files}
    keys: list[str] = []
    if job.stage == "label":
        # The index has the seconds that each image took, and the gallery shows them.
        files = {name: digest for name, digest in files.items() if name.startswith("plan/")}
        for row in open_labels(uri).rows():
            keys.append(row["key"])
            files[f"index of {row['key']}"] = json.dumps(row | {"seconds": 0}, sort_keys=True)
            for column in ("depth_path", "preview_path"):
                files[row[column]] = artifact.store.digest(row[column]).sha256
    elif job.stage == "prepare":
        for entry in artifact.files:
            if entry.path.endswith(".parquet"):
                table = pq.read_table(io.BytesIO(artifact.store.read(entry.path)), columns=["key"])
                keys += table["key"].to_pylist()
    return Content(files, tuple(sorted(keys)))


def remembered(path: Path) -> Content | None:
    """A content that was kept on disk."""
    if not path.exists():
        return None
    tree = json.loads(path.read_text())
    return Content(tree["files"], tuple(tree["keys"]))


def remember(content: Content, path: Path) -> None:
    path.write_text(json.dumps({"files": content.files, "keys": content.keys}, indent=1))
