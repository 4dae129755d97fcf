"""A dataset that is replaced by another one while, or after, it is prepared."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2eft import prepare
from e2eft.artifacts import CLAIM, ArtifactError, Claim
from e2eft.config import TrackingConfig
from e2eft.datasets import SourceConfig, open_source
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.sintel import SintelSource
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.prepare import PrepareConfig, inputs, stage
from e2eft.prepare.parts import index_of, make_part
from tests.benchmark_files import measured_frame, nyuv2, nyuv2_matlab, sintel
from tests.hypersim_files import STANDARD, HypersimRelease, make_frame
from tests.virtual_kitti_files import VirtualKittiRelease, make_street

FRAMES, PER_PART = 6, 2


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Parts are made in this process, two before it is killed; the list says which."""
    parts: list[int] = []

    def make(
        config: PrepareConfig, claim: Claim, missing: list[dict[str, int]], total: int
    ) -> None:
        for row in missing:
            if len(parts) == 2:
                parts.append(-1)
                raise KeyboardInterrupt
            make_part(**row, config=config, writer=claim.writer, index=index_of(claim))
            parts.append(row["part"])

    monkeypatch.setattr(stage, "_require_room", lambda _: None)
    monkeypatch.setattr(stage, "_make_parts", make)
    return parts


def release(root: Path, first: int, layout: str = "folder") -> Path:
    """Sintel's files; another `first` is another dataset of the same names."""
    frames = {("alley_1", n): measured_frame(first + n, 48, 64) for n in range(FRAMES)}
    files = sintel(frames)
    if layout == "tar":
        root.mkdir(parents=True, exist_ok=True)
        return Path(files.write_tar(root / "training.tar"))
    return Path(files.write_folder(root))


def config_of(out: Path, root: Path, **fields: Any) -> PrepareConfig:
    known: dict[str, Any] = {"frames_per_part": PER_PART, "tracking": TrackingConfig(enabled=False)}
    return PrepareConfig(out=str(out), source=SintelSource(root=str(root)), **known | fields)


@pytest.mark.parametrize("layout", ["folder", "tar"])
@pytest.mark.parametrize("elsewhere", [True, False], ids=["elsewhere", "in place"])
def test_another_dataset_of_the_same_names_does_not_finish_the_rest(
    layout: str, elsewhere: bool, made: list[int], tmp_path: Path
) -> None:
    out, root = tmp_path / "out", release(tmp_path / "raw", 0, layout)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(config_of(out, root))
    other = release(tmp_path / ("other" if elsewhere else "raw"), 100, layout)
    with pytest.raises(ArtifactError, match=r"raw file .* holds something else than .*--overwrite"):
        prepare.run(config_of(out, other))
    assert made == [0, 1, -1]
    whole = prepare.run(config_of(out, other, overwrite=True))
    assert whole.counts["frames"] == FRAMES and made == [0, 1, -1, 0, 1, 2]
    # And now it is that one's.
    with pytest.raises(ArtifactError, match="raw file"):
        prepare.run(config_of(out, release(tmp_path / "first", 0, layout)))
    assert prepare.run(config_of(out, other)).digest == whole.digest


def test_a_dataset_may_move_be_mended_and_be_deleted_afterwards(
    made: list[int], tmp_path: Path
) -> None:
    out, root = tmp_path / "out", release(tmp_path / "raw", 0)
    broken = root / "final/alley_1/frame_0000.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    with pytest.raises(KeyboardInterrupt):
        prepare.run(config_of(out, root, max_reject_fraction=0.5))
    broken.write_bytes(whole)
    moved = Path(shutil.move(root, tmp_path / "moved"))
    # One that comes later is not the last one that was looked at.
    (moved / "final/alley_1/frame_0099.png").write_bytes(whole)
    artifact = prepare.run(config_of(out, moved))
    assert artifact.counts["rejected"] == 0, "the broken frame was not tried again"
    shutil.rmtree(moved)
    assert prepare.run(config_of(out, moved)).digest == artifact.digest


def test_what_was_prepared_before_files_were_looked_at_is_still_found(
    made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, root = tmp_path / "out", release(tmp_path / "raw", 0)
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "_raw_files", lambda *_: ())
        with pytest.raises(KeyboardInterrupt):
            prepare.run(config_of(out, root))
    assert prepare.run(config_of(out, root)).counts["frames"] == FRAMES


Write = Callable[[Path, int], SourceConfig]


def hypersim(form: str) -> Write:
    def write(folder: Path, first: int) -> HypersimSource:
        made = HypersimRelease(cameras={"ai_001_001": STANDARD})
        for number in range(3):
            made.add("ai_001_001", "cam_00", number, make_frame(first + number, STANDARD))
        split, cameras = map(str, made.write_tables(folder))
        root = made.write_zips(folder / "z") if form == "zips" else made.write_folders(folder / "f")
        return HypersimSource(root=str(root), split_csv=split, camera_csv=cameras)

    return write


def virtual_kitti(form: str) -> Write:
    def write(folder: Path, first: int) -> VirtualKittiSource:
        made = VirtualKittiRelease()
        for number in range(3):
            made.add("Scene06", "rain", number, make_street(first + number, 96, 320))
        return VirtualKittiSource(
            root=str(made.write(folder, form)), scenes=("Scene06",), variations=("rain",),
            frames_per_sequence=3,
        )  # fmt: skip

    return write


def nyu_list(folder: Path, first: int) -> Nyuv2Source:
    files = nyuv2({f"test/kitchen/rgb_{n:04d}": measured_frame(first + n) for n in range(3)})
    root = files.write_folder(folder / "root")
    return Nyuv2Source(root=root, frame_list=files.write_list(folder / "list.txt"))


def nyu_matlab(folder: Path, first: int) -> Nyuv2Source:
    frames = [measured_frame(first + number) for number in range(3)]
    files = nyuv2_matlab(frames, ["kitchen"] * 3, [1, 3])
    return Nyuv2Source(root=files.write_folder(folder))


@pytest.mark.parametrize(
    "write",
    [hypersim("zips"), hypersim("folders"), virtual_kitti("tars"), virtual_kitti("archives"),
     virtual_kitti("merged"), nyu_list, nyu_matlab],
)  # fmt: skip
def test_every_layout_tells_its_files_from_anothers(write: Write, tmp_path: Path) -> None:
    source, same, other = (
        open_source(write(tmp_path / name, first))
        for name, first in (("one", 0), ("same", 0), ("other", 50))
    )
    names = source.telling()
    assert names and names == same.telling() == other.telling()
    digests, equal, differing = ([s.raw_digest(n) for n in names] for s in (source, same, other))
    assert all(digests) and digests == equal
    changed = sum(a != b for a, b in zip(digests, differing, strict=True))
    assert 4 * changed > len(names)
    assert source.raw_digest(f"{names[0]}.lost") == ""


def test_shards_whose_normals_are_made_in_another_way_are_finished_in_theirs(
    made: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = virtual_kitti("merged")(tmp_path / "raw", 0)
    fields = {"frames_per_part": PER_PART, "tracking": TrackingConfig(enabled=False)}
    older, other, now = (
        PrepareConfig(
            out=str(tmp_path / "out"),
            source=source.model_copy(update={"benchmark_crop": False, "normal_planes": planes}),
            **fields,
        )
        for planes in ("neighbours", "own", None)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare.run(older)
    claim = tmp_path / "out" / CLAIM
    record = json.loads(claim.read_bytes())
    assert record["config"]["source"].pop("normal_planes") == "neighbours"
    claim.write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="accepted: --normal-planes neighbours"):
        prepare.run(other)
    artifact = prepare.run(now)
    assert (
        "its frames are those of --normal-planes neighbours, as it was begun"
        in capsys.readouterr().out
    )
    with pytest.raises(ArtifactError, match="accepted: --normal-planes neighbours"):
        prepare.run(other)
    assert prepare.run(older).digest == prepare.run(now).digest == artifact.digest
    assert made == [0, 1, -1, 2] and artifact.counts["frames"] == 6
    assert artifact.details["provenance"]["normals"] == "surface_normals of depth, 5 x 5 pixels"
