"""A deliberate leak is found, however the secret is written and packed."""

import base64
import bz2
import gzip
import io
import json
import lzma
import re
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.secret_search import Search

SECRET = "wJalr/XUt+nFEMI K7MDENG=bPxRfiCY"
SECRETS = {"key": SECRET, "other": "never-written-anywhere"}
ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda secret: f"key = {secret}\n",
    "url": lambda secret: f"http://user:{quote(secret, safe='')}@host/",
    "url-lower-case": lambda secret: re.sub(
        "%[0-9A-F]+", lambda code: code[0].lower(), quote(secret, safe="")
    ),
    "url-with-slashes": lambda secret: f"x?key={quote(secret)}",
    "form": lambda secret: f"key={quote_plus(secret)}&x=1",
    "json": lambda secret: json.dumps({"key": secret}),
    "hex": lambda secret: secret.encode().hex(),
    **{
        f"base64-after-{length}": lambda secret, length=length: base64.b64encode(
            b"u" * length + secret.encode() + b" and more"
        ).decode()
        for length in range(3)
    },
    "base64-url-safe": lambda secret: base64.urlsafe_b64encode(f"?:{secret}".encode()).decode(),
}


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", content)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("member")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def in_a_table(content: bytes, compression: str) -> bytes:
    sink = io.BytesIO()
    rows = [{"name": "other", "nested": {"value": [b"x", content]}}, {"name": "x", "nested": None}]
    pq.write_table(pa.Table.from_pylist(rows), sink, compression=compression)
    return sink.getvalue()


def in_a_database(content: bytes, tmp_path: Path) -> bytes:
    path = tmp_path / "a.db"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table things (id integer, body text)")
    # So long that it lies on several pages.
    body = "x" * 5000 + content.decode() + "y" * 5000
    connection.execute("insert into things values (1, ?)", (body,))
    connection.commit()
    connection.close()
    return path.read_bytes()


def in_a_picture(content: bytes) -> bytes:
    buffer, text = io.BytesIO(), PngInfo()
    text.add_text("key", content.decode(), zip=True)
    Image.new("L", (2, 2)).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


PACKINGS: dict[str, Callable[[bytes, Path], bytes]] = {
    "plain": lambda content, _: b"\0\xff" + content,
    "zip": lambda content, _: zipped(content),
    "tar.gz": lambda content, _: tarred(content),
    "gz": lambda content, _: gzip.compress(content),
    "bz2": lambda content, _: bz2.compress(content),
    "xz": lambda content, _: lzma.compress(content),
    "zst": lambda content, _: zstandard(content),
    "parquet": lambda content, _: in_a_table(content, "zstd"),
    "sqlite": in_a_database,
    "png": lambda content, _: in_a_picture(content),
    "tar.gz in zip in xz": lambda content, _: lzma.compress(zipped(tarred(content))),
    "parquet in zip": lambda content, _: zipped(in_a_table(content, "snappy")),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_leak_is_found_in_every_form_and_packing(packing: str, tmp_path: Path) -> None:
    for name, encode in ENCODINGS.items():
        content = PACKINGS[packing](encode(SECRET).encode(), tmp_path)
        search = Search(SECRETS).content("file", content)
        assert {find.secret for find in search.finds} == {"key"}, name
        assert all(find.place.startswith("file") for find in search.finds)
        clean = PACKINGS[packing](encode("nothing" * 4).encode(), tmp_path)
        assert not Search(SECRETS).content("file", clean).finds, name


def test_folders_are_searched_to_their_names_but_for_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "config").write_text(f"secret: {SECRET}")
    assert [find.place for find in Search(SECRETS).folder(tmp_path).finds] == [
        str(tmp_path / "deep/er/config")
    ]
    assert not Search(SECRETS).folder(tmp_path, [tmp_path / "deep/er/config"]).finds
    (tmp_path / quote(SECRET, safe="")).touch()
    (find,) = Search(SECRETS).folder(tmp_path, [tmp_path / "deep/er/config"]).finds
    assert (find.place, find.form) == ("the name of a file", "url")


def test_half_an_archive_is_searched_as_it_is() -> None:
    content = gzip.compress(b"x" * 1000)[:15] + SECRET.encode()
    assert Search(SECRETS).content("half.gz", content).finds


def test_a_command_line_is_seen_while_its_process_runs() -> None:
    search = Search(SECRETS)
    with search.processes(every_s=0.02):
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", SECRET], check=True)
    assert {find.secret for find in search.finds} == {"key"}
    with (quiet := Search(SECRETS)).processes():
        pass
    assert not quiet.finds
