"""The frozen plan, and what reading its images may run into."""

import errno
import io
import itertools
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2eft.artifacts import ArtifactError
from e2eft.corpora.corpus import (
    FULL_DECODING,
    PLAN,
    RANGED_DECODING,
    SCALED_DECODING,
    Changes,
    Corpus,
    CorpusError,
    changes_since,
    check_apart,
    encode_plan,
    planned_rows,
    read_plan,
    survey,
)
from e2eft.corpora.reading import ANY_SIZE, content_seed, largest_file, read_image
from e2eft.data.shards import decode_rgb
from e2eft.images.reasons import MAY_MEND, ImageError
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
    assert corpus.plan["part"].to_pylist() == [0, 0, 1, 1, 2]
    store = LocalStore(tmp_path)
    out = LocalStore(tmp_path / "out")
    assert kept(corpus, out, tmp_path) == corpus
    assert [row["key"] for row in planned_rows(out, 2, 4)] == ["002.png", "003.png"]
    (last,) = planned_rows(out, 4, 5)
    assert read_image(store, last, 10**6) == (tmp_path / "004.png").read_bytes()


def test_a_plan_is_read_by_rows_wherever_its_groups_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, out = survey(str(write_plain_corpus(tmp_path / "images", 7)), 2), LocalStore(tmp_path)
    monkeypatch.setattr("e2eft.corpora.corpus.PLAN_GROUP", 3)
    out.write(PLAN, encode_plan(corpus))
    for start, stop in itertools.combinations(range(8), 2):
        assert [row["index"] for row in planned_rows(out, start, stop)] == list(range(start, stop))
    with pytest.raises(DamagedError, match=r"is no plan \(it ends before image 8\)"):
        planned_rows(out, 6, 8)


def test_how_images_are_decoded_is_frozen_with_the_plan(tmp_path: Path) -> None:
    corpus = survey(str(write_plain_corpus(tmp_path / "images", 1)), 2)
    shards = write_shards(str(tmp_path / "shards"), [analytic_frame(0)])
    assert corpus.decoding == RANGED_DECODING
    assert survey(shards.uri, 2).decoding == FULL_DECODING
    out = LocalStore(tmp_path)
    facts = {"excluded": "{}", "images": corpus.uri}  # of a plan that says nothing of it
    for said, expected in ({}, FULL_DECODING), ({"decoding": "2"}, SCALED_DECODING):
        sink = io.BytesIO()
        pq.write_table(corpus.plan.replace_schema_metadata(facts | said), sink)
        out.write(PLAN, sink.getvalue())
        assert read_plan(out, corpus.uri).decoding == expected
    out.write(PLAN, encode_plan(replace(corpus, decoding=4)))
    with pytest.raises(CorpusError, match=r"asks for decoding 4, .* up to 3; upgrade"):
        read_plan(out, corpus.uri)


def test_files_of_formats_that_are_not_read_have_rows_and_say_what_to_convert(
    tmp_path: Path,
) -> None:
    images, out = write_plain_corpus(tmp_path / "images", 1), LocalStore(tmp_path / "out")
    (images / "shot.dng").write_bytes(b"II*\0")
    (images / "notes.txt").write_bytes(b"x")
    corpus = survey(str(images), 8)
    assert corpus.plan["key"].to_pylist() == ["000.png", "shot.dng"]
    assert corpus.excluded == {"not_an_image": 1}
    with pytest.raises(ImageError, match=r"decode_unsupported: a camera's raw file; convert it to"):
        read_image(LocalStore(images), corpus.plan.to_pylist()[1], 10**6)
    out.write(PLAN, encode_plan(corpus))
    assert not changes_since(out, str(images))
    (images / "later.psd").write_bytes(b"8BPS")
    assert changes_since(out, str(images)) == Changes(new=1, gone=0, changed=0)
    # Of a folder that was listed without them they are no news.
    out.write(PLAN, encode_plan(replace(corpus, plan=corpus.plan[:1], decoding=SCALED_DECODING)))
    assert not changes_since(out, str(images))


def test_a_folder_of_nothing_but_formats_that_are_not_read_says_which(tmp_path: Path) -> None:
    for name in ("a.nef", "b.CR2", "c.jxl", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    told = r"can be read; found there: 1 JPEG XL, 2 a camera's raw file; convert them to PNG"
    with pytest.raises(CorpusError, match=told):
        survey(str(tmp_path), 8)


def test_shards_are_a_corpus_too(tmp_path: Path) -> None:
    frames = [analytic_frame(number) for number in range(11)]
    shards = write_shards(str(tmp_path / "shards"), frames, frames_per_part=10)
    corpus = survey(str(tmp_path / "shards"), 4)
    assert corpus.plan["key"].to_pylist() == [frame.key for frame in frames]
    assert corpus.shards is not None and corpus.shards.digest == shards.digest
    assert kept(corpus, LocalStore(tmp_path / "out"), tmp_path / "shards") == corpus
    for row, frame in zip(corpus.plan.to_pylist(), frames, strict=True):
        content = read_image(LocalStore(tmp_path / "shards"), row, 10**6)
        assert (decode_rgb(content) == frame.rgb).all()
    assert corpus.plan["uri"][10].as_py().endswith("shards#data/part-000001.parquet:0")


def test_an_empty_folder_and_foreign_artifacts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"no images at .*1 not_an_image"):
        survey(str(tmp_path), 2)
    with pytest.raises(CorpusError, match=r"missing is not there$"):
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
            read_image(store, row, 10**6)
        return caught.value.reason

    assert [reason(row) for row in rows[:2]] == ["read_missing", "source_changed"]
    assert reason(rows[2] | {"reason": "duplicate_key"}) == "duplicate_key"
    for code, expected in ((errno.EACCES, "read_denied"), (errno.EIO, "read_failed")):
        failure = OSError(code, "no")
        monkeypatch.setattr(os, "open", lambda *_, failure=failure: (_ for _ in ()).throw(failure))
        assert reason(rows[2]) == expected


def test_no_more_is_read_of_a_file_than_its_plan_and_its_pixels_allow(tmp_path: Path) -> None:
    """Neither of one that has become a pipe or a device, nor of one that has grown."""
    write_plain_corpus(tmp_path, 4)
    rows = survey(str(tmp_path), 8).plan.to_pylist()
    sizes, store = [row["size_bytes"] for row in rows], LocalStore(tmp_path)
    for name in ("000.png", "001.png"):
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "000.png")
    (tmp_path / "001.png").symlink_to("/dev/zero")
    for name in ("002.png", "003.png"):
        os.truncate(tmp_path / name, 2**40)
    most = largest_file(10**6)

    def refused(row: dict[str, object]) -> tuple[str, str]:
        with pytest.raises(ImageError) as caught:
            read_image(store, row, 10**6)
        return caught.value.reason, caught.value.detail

    no_file = "is a pipe, a socket or a device; put the file there, or remove it"
    for row in rows[:2]:
        assert refused(row) == ("read_failed", f"{tmp_path / row['key']} {no_file}")
    changed = f"{2**40} bytes, {sizes[2]} when it was listed"
    assert refused(rows[2]) == ("source_changed", changed)
    allowed = f"{2**40} bytes, allowed {most} for --max-pixels 1000000"
    for size in (2**40, ANY_SIZE):
        assert refused(rows[3] | {"size_bytes": size}) == ("file_too_large", allowed)
    assert "file_too_large" not in MAY_MEND


def test_a_damaged_shard_rejects_its_images(tmp_path: Path) -> None:
    shards = write_shards(str(tmp_path / "shards"), [analytic_frame(n) for n in range(3)])
    store = LocalStore(tmp_path / "shards")
    row = survey(shards.uri, 8).plan.to_pylist()[1]
    content = store.read(row["shard"])
    for damaged, expected in ((content[:-200], "read_failed"), (b"", "read_failed")):
        (tmp_path / "shards" / row["shard"]).write_bytes(damaged)
        with pytest.raises(ImageError) as caught:
            read_image(store, row, 10**6)
        assert caught.value.reason == expected and row["shard"] in caught.value.detail
    (tmp_path / "shards" / row["shard"]).unlink()
    with pytest.raises(ImageError) as caught:
        read_image(store, row, 10**6)
    assert caught.value.reason == "read_missing"


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
        read_image(LocalStore(tmp_path), row, 10**6)
    assert getattr(caught.value, "reason", None) == reason


def test_a_seed_names_content_and_run() -> None:
    seeds = {content_seed(content, seed) for content in (b"a", b"b") for seed in (0, 1, -1)}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert content_seed(b"a", 1) == content_seed(b"a", 1)


def test_the_plan_is_typed(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path, 1)
    plan = survey(str(tmp_path), 2).plan
    assert plan.schema.field("index").type == pa.int64() and not plan.schema.field("key").nullable
