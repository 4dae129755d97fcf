"""Names from outside that would lead out of the folder they are meant for."""

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from e2eft.artifacts import MANIFEST, FileEntry, Writer, load_artifact
from e2eft.datasets.reading.archives import CorruptArchiveError
from e2eft.datasets.reading.virtual_kitti import ARCHIVES, VirtualKittiFrames
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.errors import E2eftError
from e2eft.label.chunks import Item, Work, write_chunk
from e2eft.label.labeller import ShippedModel, _on_this_machine
from e2eft.labels.index import read_label
from e2eft.model.source import ModelSource
from e2eft.storage import LocalStore, StorageError, Stored, download_folder
from e2eft.tasks import label_codec, label_codecs
from e2eft.train.checkpoints import Checkpoint, download
from tests.artifacts import config_of, contents, work

OUTSIDE = ["../stolen", "/tmp/stolen", "data/../../stolen", "data/\0stolen", "//tmp/stolen"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "out")
    work(config_of(store))
    (tmp_path / "stolen").write_bytes(b"another's")
    return store


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("field", ["path", "name"])
def test_a_manifest_that_lists_what_lies_outside_is_refused(
    field: str, path: str, store: LocalStore
) -> None:
    manifest = json.loads(store.read(MANIFEST))
    manifest["files"][0][field] = path
    store.write(MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(StorageError, match="leaves its folder"):
        load_artifact(store.uri)


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_is_written_or_read_outside(path: str, store: LocalStore, tmp_path: Path) -> None:
    before = contents(tmp_path)
    writer = Writer(store.uri, "12ab", 1)
    (tmp_path / "mine").write_bytes(b"mine")
    for write in (
        lambda: writer.put(path, b"mine"),
        lambda: writer.create(path, b"mine"),
        lambda: writer.put_file(path, tmp_path / "mine"),
    ):
        with pytest.raises(StorageError, match="leaves its folder"):
            write()
    for codec in label_codecs():
        for column in ("npy_path", codec.column):
            row = {"npy_path": "", codec.column: ""} | {column: path}
            with pytest.raises(StorageError, match="leaves its folder"):
                read_label(store, row, codec)
    (tmp_path / "mine").unlink()
    assert contents(tmp_path) == before


CONTENT = b"mine"
FOREIGN = [
    *("../stolen", "../../stolen", "{top}/stolen", "a/../../stolen", "/{top}/stolen"),
    *("link/stolen", "..", ".", "", "a//b", "./a", "a/./b", "a/", "a/\0b"),
]
"""Names that are either outside, or another name of what is inside; `link` leads outside."""
ORDINARY = ["..\\stolen", "\\stolen", "a\\..\\..\\stolen", "c:\\stolen", "..a/b..", "~/x"]
"""Names without a special meaning here."""


class Bucket(LocalStore):
    """A store whose listing says what it pleases, as an object store's may."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(folder)
        self.listed = names

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        return ((f"{prefix}{name}", len(CONTENT)) for name in self.listed)

    def download(self, path: str, file: Path) -> Stored:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CONTENT)
        return Stored(len(CONTENT), "")


def copy_a_folder(name: str, room: Path) -> None:
    download_folder(Bucket(room, name), "model", room)


def restore_a_registered_checkpoint(name: str, room: Path) -> None:
    entry = FileEntry(name, len(CONTENT), "")
    download(Bucket(room), Checkpoint(1, 1, "checkpoints/1", (entry,)), room)


def restore_a_listed_checkpoint(name: str, room: Path) -> None:
    download(Bucket(room, name), Checkpoint(1, 1, "checkpoints/1"), room)


COPYING = [copy_a_folder, restore_a_registered_checkpoint, restore_a_listed_checkpoint]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A folder to write into, with a link out of it and something beside it."""
    room = tmp_path / "room"
    (tmp_path / "outside").mkdir()
    (tmp_path / "stolen").write_bytes(b"another's")
    room.mkdir()
    (room / "link").symlink_to(tmp_path / "outside")
    return room


def beside(room: Path) -> dict[str, bytes | None]:
    everything = contents(room.parent).items()
    return {path: content for path, content in everything if not path.startswith("room/")}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("copy", COPYING)
def test_nothing_is_copied_out_of_its_folder(
    copy: Callable[[str, Path], None], name: str, room: Path
) -> None:
    before, inside = beside(room), contents(room)
    with pytest.raises(StorageError):
        copy(name.format(top=room.parent), room)
    assert beside(room) == before and contents(room) == inside


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("copy", COPYING[:1])
def test_names_of_other_systems_are_names(
    copy: Callable[[str, Path], None], name: str, room: Path
) -> None:
    before = beside(room)
    copy(name, room)
    assert beside(room) == before and (room / name).read_bytes() == CONTENT


def test_a_link_in_the_place_of_a_file_is_not_written_through(room: Path) -> None:
    (room / "model.json").symlink_to(room.parent / "stolen")
    before = beside(room)
    with pytest.raises(StorageError, match="by a link"):
        copy_a_folder("model.json", room)
    assert beside(room) == before


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "link/stolen"])
def test_a_shipped_model_leaves_nothing_outside(
    name: str, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    monkeypatch.setattr(ray, "get", lambda content: content)
    before, inside = beside(room), contents(room)
    files = {"good/file": np.zeros(3, np.uint8), name.format(top=room.parent): np.ones(3, np.uint8)}
    model = ShippedModel(ModelSource("m", "gone", "gone"), "digest", files)  # type: ignore[arg-type]
    with pytest.raises(StorageError):
        _on_this_machine(model)
    assert beside(room) == before and contents(room) == inside


def tables(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in members:
            member.size = len(CONTENT) if member.isfile() else 0
            archive.addfile(member, io.BytesIO(CONTENT) if member.isfile() else None)
    return buffer.getvalue()


def unpack(root: Path, index: Path) -> None:
    source = VirtualKittiFrames(VirtualKittiSource(root=str(root)), LocalStore(index))
    for kind in ("rgb", "depth"):
        (root / kind).mkdir(exist_ok=True)
    source.write_index()


@pytest.mark.parametrize(
    "folder", ["..", "../..", "{top}", "a/../../..", "a//b", "a/./b", "a/../b", "/"]
)
def test_an_archive_is_not_unpacked_elsewhere(folder: str, room: Path) -> None:
    name = f"{folder.format(top=room.parent)}/intrinsic.txt"
    (room / ARCHIVES["textgt"]).write_bytes(tables(tarfile.TarInfo(name)))
    before = beside(room)
    with pytest.raises(CorruptArchiveError, match=r"textgt\.tar\.gz: path .*intrinsic\.txt"):
        unpack(room, room / "index")
    assert beside(room) == before and not (room / "index").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("target", ["{top}/stolen", "../../../stolen", "Scene02/intrinsic.txt"])
def test_links_in_an_archive_are_not_unpacked(kind: bytes, target: str, room: Path) -> None:
    link = tarfile.TarInfo("Scene01/intrinsic.txt")
    link.type, link.linkname = kind, target.format(top=room.parent)
    real = [tarfile.TarInfo(f"Scene0{number}/intrinsic.txt") for number in (2, 1)]
    (room / ARCHIVES["textgt"]).write_bytes(tables(real[0], link, real[1]))
    before = beside(room)
    unpack(room, room / "index")
    assert beside(room) == before
    for member in real:
        path = room / "index" / "textgt" / member.name
        assert path.read_bytes() == CONTENT and not path.is_symlink()


@pytest.mark.parametrize("name", [*FOREIGN, *ORDINARY])
def test_a_plans_rows_label_nothing_outside(name: str, room: Path) -> None:
    (room / "link").unlink()  # An artifact's folder may lie on several disks.
    work = Work(
        images_uri=str(room / "images"), writer=Writer(str(room), "12ab", 1), task="depth",
        target="t", model="m", longest_px=32, max_pixels=100, batch_size=1, seed=0, save_npy=True,
        save_previews=True,
    )  # fmt: skip
    row = dict.fromkeys(("key", "exif_orientation", "source_sha256"), "")
    size = {"width": 8, "height": 8, "processing_width": 8, "processing_height": 8, "seconds": 0.0}
    name = name.format(top=room.parent)
    item = Item(row | size, name, array=np.zeros((8, 8), np.float32))
    before = beside(room)
    try:
        (written,) = write_chunk([item], work)
    except E2eftError:
        assert not [content for content in contents(room).values() if content is not None]
    else:
        assert read_label(LocalStore(room), written, label_codec("depth")).shape == (8, 8)
    assert beside(room) == before
