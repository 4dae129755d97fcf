"""The frozen plan, and what reading its images may run into."""

import errno
from pathlib import Path

import pyarrow as pa
import pytest

from e2eft.artifacts import ArtifactError
from e2eft.data.corpus import (
    PLAN,
    Corpus,
    CorpusError,
    check_apart,
    content_seed,
    encode_plan,
    read_image,
    read_plan,
    survey,
)
from e2eft.data.shards import decode_rgb
from e2eft.data.sources.images import ImageError
from e2eft.storage import (
    DamagedError,
    DeniedError,
    LocalStore,
    MissingError,
    StorageError,
    UnreachableError,
)
from tests.corpora import write_plain_corpus
from tests.frames import analytic_frame, write_shards


def kept(corpus: Corpus, store: LocalStore, images: Path) -> Corpus:
    """The plan as the next run reads it."""
    store.write(PLAN, encode_plan(corpus))
    return read_plan(store, str(images))


def test_a_folder_is_cut_into_parts_and_survives_encoding(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path, 5)
    (tmp_path / "notes.txt").write_text("x")
    corpus = survey(str(tmp_path), 2)
    assert (len(corpus), corpus.parts, corpus.excluded) == (5, 3, {"not_an_image": 1})
    assert [row["key"] for row in corpus.part(1, 2)] == ["002.png", "003.png"]
    assert corpus.plan["part"].to_pylist() == [0, 0, 1, 1, 2]
    store = LocalStore(tmp_path)
    assert kept(corpus, LocalStore(tmp_path / "out"), tmp_path) == corpus
    assert read_image(store, corpus.part(2, 2)[0]) == (tmp_path / "004.png").read_bytes()


def test_shards_are_a_corpus_too(tmp_path: Path) -> None:
    frames = [analytic_frame(number) for number in range(11)]
    shards = write_shards(str(tmp_path / "shards"), frames, frames_per_part=10)
    corpus = survey(str(tmp_path / "shards"), 4)
    assert corpus.plan["key"].to_pylist() == [frame.key for frame in frames]
    assert corpus.shards is not None and corpus.shards.digest == shards.digest
    assert kept(corpus, LocalStore(tmp_path / "out"), tmp_path / "shards") == corpus
    for row, frame in zip(corpus.plan.to_pylist(), frames, strict=True):
        content = read_image(LocalStore(tmp_path / "shards"), row)
        assert (decode_rgb(content) == frame.rgb).all()
    assert corpus.plan["uri"][10].as_py().endswith("shards#data/part-000001.parquet:0")


def test_an_empty_folder_and_foreign_artifacts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"no images at .*1 not_an_image"):
        survey(str(tmp_path), 2)
    with pytest.raises(CorpusError, match="nothing"):
        survey(str(tmp_path / "missing"), 2)
    (tmp_path / "manifest.json").write_text('{"format": "e2eft-artifact", "schema_version": 1, '
                                            '"kind": "labels"}')  # fmt: skip
    with pytest.raises(ArtifactError, match="shards"):
        survey(str(tmp_path), 2)


def test_someone_elses_manifest_does_not_matter(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path, 1)
    for content in ("not json", "[1]", '{"format": "other"}'):
        (tmp_path / "manifest.json").write_text(content)
        assert len(survey(str(tmp_path), 2)) == 1


@pytest.mark.parametrize(
    ("images", "out"),
    [("/d/images", "/d/images"), ("/d/images", "/d/images/out"), ("/d/images/sub", "/d/images"),
     ("file:///d/images", "/d/images/out"), ("s3://b/images", "s3://b/images/out"),
     ("s3://b", "s3://b/out")],
)  # fmt: skip
def test_output_and_images_must_lie_apart(images: str, out: str) -> None:
    with pytest.raises(CorpusError, match="one in the other"):
        check_apart(images, out)


def test_neighbours_lie_apart() -> None:
    check_apart("/d/images", "/d/images-out")
    check_apart("s3://b/images", "s3://b/imagesout")
    check_apart("s3://b/images", "/b/images/out")


def test_what_reading_runs_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain_corpus(tmp_path, 3)
    rows = survey(str(tmp_path), 8).plan.to_pylist()
    store = LocalStore(tmp_path)
    (tmp_path / "000.png").unlink()
    (tmp_path / "001.png").write_bytes(b"shorter")

    def reason(row: dict[str, object]) -> str:
        with pytest.raises(ImageError) as caught:
            read_image(store, row)
        return caught.value.reason

    assert [reason(row) for row in rows[:2]] == ["read_missing", "source_changed"]
    assert reason(rows[2] | {"reason": "duplicate_key"}) == "duplicate_key"
    for code, expected in ((errno.EACCES, "read_denied"), (errno.EIO, "read_failed")):
        failure = OSError(code, "no")
        monkeypatch.setattr(
            Path, "read_bytes", lambda *_, failure=failure: (_ for _ in ()).throw(failure)
        )
        assert reason(rows[2]) == expected


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(MissingError, "read_missing"), (DeniedError, "read_denied"), (UnreachableError, None),
     (DamagedError, "read_failed")],
)  # fmt: skip
def test_only_what_is_an_images_own_fault_rejects_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[StorageError], reason: str | None
) -> None:
    write_plain_corpus(tmp_path, 1)
    (row,) = survey(str(tmp_path), 8).plan.to_pylist()

    def fail(*_: object) -> bytes:
        raise kind("said by the store")

    monkeypatch.setattr(LocalStore, "read", fail)
    with pytest.raises(ImageError if reason else StorageError) as caught:
        read_image(LocalStore(tmp_path), row)
    assert getattr(caught.value, "reason", None) == reason


def test_a_seed_names_content_and_run() -> None:
    seeds = {content_seed(content, seed) for content in (b"a", b"b") for seed in (0, 1, -1)}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert content_seed(b"a", 1) == content_seed(b"a", 1)


def test_the_plan_is_typed(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path, 1)
    plan = survey(str(tmp_path), 2).plan
    assert plan.schema.field("index").type == pa.int64() and not plan.schema.field("key").nullable
