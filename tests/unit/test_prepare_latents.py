"""Latents beside the parts, made in this process: the files, the commit, and what is made again."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2eft import prepare
from e2eft.artifacts import Artifact, ArtifactError, Claim, FileEntry, Writer, verify
from e2eft.config import TrackingConfig
from e2eft.data.latents import DETAIL, latents_path
from e2eft.data.shards import open_shards, part_path
from e2eft.datasets import Dataset
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.model.codec import Codec
from e2eft.model.pretrained import load_codec
from e2eft.model.source import find_model
from e2eft.prepare import PrepareConfig, inputs, latents, parts, stage
from e2eft.prepare.parts import index_of, make_part
from e2eft.storage import LocalStore, Store
from tests.frames import analytic_frame
from tests.tiny_models import blank_source

FRAMES, PER_PART = 5, 2


class Frames:
    """Stands for the renderer."""

    dataset, size = Dataset(name="analytic"), (16, 24)

    def __init__(self, config: SyntheticSource, index: Store | None) -> None: ...
    def __len__(self) -> int:
        return FRAMES

    def check_present(self, *, thorough: bool = False) -> None: ...
    def write_index(self) -> None: ...
    def telling(self) -> list[str]:
        return []

    def decode(self, numbers: range) -> Any:
        return (analytic_frame(number, *self.size) for number in numbers)

    def provenance(self) -> dict[str, Any]:
        return {}


@pytest.fixture(autouse=True)
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Everything happens in this process; the list says which parts were encoded."""
    made: list[int] = []

    def make_parts(
        config: PrepareConfig, claim: Claim, missing: list[dict[str, int]], total: int
    ) -> None:
        for row in missing:
            make_part(**row, config=config, writer=claim.writer, index=index_of(claim))

    def run_actors(
        config: PrepareConfig, codec: Codec, writer: Writer, missing: list[dict[str, Any]]
    ) -> None:
        for row in reversed(missing):
            latents.make_latents(codec, writer, row["part"], row["path"])
            made.append(row["part"])

    for room in (inputs, parts, stage):
        monkeypatch.setattr(room, "open_source", Frames)
    monkeypatch.setattr(stage, "_require_room", lambda _: None)
    monkeypatch.setattr(stage, "_make_parts", make_parts)
    monkeypatch.setattr(latents, "run_actors", run_actors)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(blank_source(tmp_path_factory.mktemp("model")).root)


def config_of(out: Path, model: Path | None, **fields: Any) -> PrepareConfig:
    known: dict[str, Any] = {
        "out": str(out), "source": SyntheticSource(family="indoor"), "frames_per_part": PER_PART,
        "tracking": TrackingConfig(enabled=False), "latents_of": str(model) if model else None,
    }  # fmt: skip
    return PrepareConfig(**known | fields)


def test_every_part_has_latents_and_the_manifest_lists_them(tmp_path: Path, model: Path) -> None:
    artifact = prepare.run(config_of(tmp_path / "out", model))
    plain = prepare.run(config_of(tmp_path / "plain", None))
    files = {file.path for file in artifact.files}
    assert files - {file.path for file in plain.files} == {latents_path(part) for part in range(3)}
    assert {f for f in artifact.files if not f.path.startswith("latents/")} == set(plain.files)
    assert verify(artifact) == [] and DETAIL not in plain.details
    described = open_shards(artifact.uri).latents
    assert described is not None and described.model == str(model)
    assert described.vae_digest == load_codec(find_model(str(model))).digest()
    for part, rows in enumerate(open_shards(artifact.uri).rows_of_part):
        assert len(open_shards(artifact.uri).read_group_with_latents(part, 0)) == rows


def test_the_vae_and_not_its_place_names_the_artifact(
    tmp_path: Path, model: Path, encoded: list[int]
) -> None:
    artifact = prepare.run(config_of(tmp_path / "out", model))
    encoded.clear()
    elsewhere = Path(blank_source(tmp_path / "elsewhere").root)
    assert prepare.run(config_of(tmp_path / "out", elsewhere, latent_actors=3)) == artifact
    for other in (Path(blank_source(tmp_path / "other", seed=1).root), None):
        with pytest.raises(ArtifactError, match=r"vae_digest [0-9a-f]{64} -> "):
            prepare.run(config_of(tmp_path / "out", other))
    assert encoded == []


def part_of(artifact: Artifact, part: int) -> FileEntry:
    return next(file for file in artifact.files if file.called == part_path(part))


@pytest.mark.parametrize("lost", ["record", "manifest", "part"])
def test_only_missing_latents_are_made_again(
    lost: str, tmp_path: Path, model: Path, encoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path / "out", model)
    wanted = prepare.run(config)
    assert encoded == [2, 1, 0]
    encoded.clear()
    store = LocalStore(tmp_path / "out")
    store.delete("manifest.json")
    place = latents.record_path(wanted.made["claim"], 1, part_of(wanted, 1).sha256)
    content = store.read(place)
    if lost != "manifest":
        store.delete(place)
    if lost == "record":
        store.write(latents_path(1), b"half of a file")
    if lost == "part":  # as if it had been made again from a mended frame
        stale = json.loads(content) | {"part_sha256": "0" * 64}
        other = latents.record_path(wanted.made["claim"], 1, "0" * 64)
        store.write(other, json.dumps(stale).encode())
    artifact = prepare.run(config)
    assert encoded == ([] if lost == "manifest" else [1])
    beside = [file.called for file in artifact.files if file.name]
    assert beside == ([latents_path(1)] if lost == "record" else [])
    assert [(f.called, f.sha256) for f in artifact.files] == [
        (f.path, f.sha256) for f in wanted.files
    ]
    assert verify(artifact) == []
    there = 3 if lost == "manifest" else 2
    assert f"latents of {there} of 3 parts are there" in capsys.readouterr().out


def test_frames_that_cannot_be_encoded_are_refused_before_any_is(
    tmp_path: Path, model: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Frames, "size", (16, 20))
    with pytest.raises(ValueError, match=r"frames of 16 x 20 pixels .*multiples of 8"):
        prepare.run(config_of(tmp_path / "out", model))
    assert encoded == [] and prepare.run(config_of(tmp_path / "plain", None)).counts["frames"] == 5


def test_what_is_known_to_be_no_multiple_is_refused_at_once(model: Path) -> None:
    source = VirtualKittiSource(root="r", benchmark_crop=False)
    with pytest.raises(ValueError, match=r"--latents-of .*375 x 1242 .*--benchmark-crop"):
        config_of(Path("x"), model, source=source)
    config_of(Path("x"), None, source=source)
    config_of(Path("x"), model, source=VirtualKittiSource(root="r"))


def test_a_latent_that_is_no_number_names_its_frame(tmp_path: Path, model: Path) -> None:
    config = config_of(tmp_path / "out", None)
    made = prepare.run(config)
    writer = Writer(made.uri, made.made["claim"], 1)
    codec = load_codec(find_model(str(model)))
    codec.vae.quant_conv.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"frame analytic/frame-0002: .*not finite"):
        latents.make_latents(codec, writer, 1, part_path(1))
    assert not (tmp_path / "out/latents").exists()
    assert (tmp_path / "out" / part_path(1)).exists()


def test_a_model_that_is_not_there_claims_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not there"):
        prepare.run(config_of(tmp_path / "out", None, latents_of="./no-such-model"))
    assert not (tmp_path / "out").exists()
