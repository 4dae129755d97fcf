"""Finds planted secrets in whatever a job leaves, however they are written and packed."""

import base64
import bz2
import gzip
import io
import lzma
import re
import sqlite3
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

DEPTH = 5
"""Archives within archives that are opened."""


@dataclass(frozen=True, order=True)
class Find:
    """A secret that was left. `place` names the file and, after !, each member it is packed in."""

    place: str
    secret: str
    form: str


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may be written: plain, URL-encoded, JSON-escaped, in base64 at any offset."""
    raw = secret.encode()
    known = {
        "raw": secret,
        "url": quote(secret, safe=""),
        "url, lower case": re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
        "url with slashes": quote(secret),
        "url of a form": quote_plus(secret),
        "json": secret.replace("/", "\\/"),
        "hex": raw.hex(),
    }
    for offset in range(3):
        # Only those characters that do not depend on what stands before and after.
        first, last = -(-8 * offset // 6), 8 * (offset + len(raw)) // 6
        for name, code in (("", base64.b64encode), (", URL-safe", base64.urlsafe_b64encode)):
            text = code(bytes(offset) + raw + bytes(2)).decode()
            known[f"base64{name}, offset {offset}"] = text[first:last]
    unique: dict[bytes, str] = {}
    for name, text in known.items():
        unique.setdefault(text.encode(), name)
    return {name: text for text, name in unique.items()}


@dataclass
class Search:
    """A search for `secrets`, by name, in everything that is shown to it."""

    secrets: Mapping[str, str]
    finds: set[Find] = field(default_factory=set)
    looked_at: int = 0

    def __post_init__(self) -> None:
        assert all(len(secret) >= 12 for secret in self.secrets.values()), "found by accident"
        self._needles = [
            (text, name, form)
            for name, secret in self.secrets.items()
            for form, text in forms(secret).items()
        ]

    def text(self, place: str, text: Any) -> Self:
        """Anything that can be printed."""
        return self.content(place, str(text).encode(errors="surrogateescape"))

    def content(self, place: str, content: bytes, depth: int = DEPTH) -> Self:
        """Bytes, and what they are an archive of."""
        self.looked_at += 1
        self.finds |= {
            Find(place, name, form) for text, name, form in self._needles if text in content
        }
        if depth:
            for name, member in unpacked(content):
                self.content(f"{place}!{name}", member, depth - 1)
        return self

    def folder(self, folder: Path, leave_out: Iterable[Path] = ()) -> Self:
        """Every file below a folder, and its name; `leave_out` are where secrets belong."""
        known = set(leave_out)
        for path in sorted(folder.rglob("*")):
            self.text("the name of a file", path)
            if path in known or not path.is_file() or path.is_symlink():
                continue
            with suppress(FileNotFoundError):
                self.content(str(path), path.read_bytes())
        return self

    def bucket(self, client: Any, bucket: str) -> Self:
        """Every object of an S3 bucket, with its key and metadata."""
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", []):
                answer = client.get_object(Bucket=bucket, Key=entry["Key"])
                place = f"s3://{bucket}/{entry['Key']}"
                self.text(place, (entry["Key"], answer["Metadata"]))
                self.content(place, answer["Body"].read())
        return self

    @contextmanager
    def processes(self, every_s: float = 0.2) -> Iterator[None]:
        """Meanwhile, the command line of every process of this machine that runs."""
        seen: set[bytes] = set()
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(every_s):
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    with suppress(OSError):
                        seen.add(path.read_bytes())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for command in seen:
                self.content(f"command line {command[:80]!r}", command, depth=0)


def unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    """What is packed in a file: members of archives, rows of tables, texts of pictures."""
    for magic, reader in _READERS.items():
        if content.startswith(magic):
            # What only looks like an archive, or is half of one, has been searched as it is.
            with suppress(*_DAMAGED):
                yield from reader(content)
    if content[257:262] == b"ustar":
        with suppress(*_DAMAGED):
            yield from _tar(content)


def _zip(content: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        yield "comment", archive.comment
        for entry in archive.infolist():
            yield entry.filename, entry.filename.encode() + b"\n" + entry.comment + entry.extra
            yield entry.filename, archive.read(entry)


def _tar(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for entry in archive:
            yield entry.name, f"{entry.name} {entry.linkname} {entry.pax_headers}".encode()
            if (file := archive.extractfile(entry)) is not None:
                yield entry.name, file.read()


def _zstd(content: bytes) -> Iterator[tuple[str, bytes]]:
    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        yield "zst", stream.read()


def _parquet(content: bytes) -> Iterator[tuple[str, bytes]]:
    table = pq.read_table(io.BytesIO(content))
    yield "metadata", str(table.schema.metadata).encode()
    for name in table.column_names:
        for chunk in table[name].chunks:
            if isinstance(chunk, pa.DictionaryArray):
                chunk = chunk.dictionary_decode()
            for buffer in filter(None, chunk.buffers()):
                yield name, buffer.to_pybytes()


def _sqlite(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Values in whole: a long one lies in the file in pieces."""
    connection = sqlite3.connect(":memory:")
    connection.text_factory = bytes
    try:
        # Not as one with a write-ahead log, which cannot be opened in memory.
        connection.deserialize(content[:18] + b"\1\1" + content[20:])
        tables = connection.execute("select name from sqlite_master where type = 'table'")
        for (name,) in tables.fetchall():
            quoted = name.decode().replace('"', '""')
            for row in connection.execute(f'select * from "{quoted}"'):
                values = [value for value in row if isinstance(value, bytes)]
                yield name.decode(), b"\n".join(values)
                for value in values:
                    if value[:4].startswith(tuple(_READERS)):
                        yield name.decode(), value
    finally:
        connection.close()


def _png(content: bytes) -> Iterator[tuple[str, bytes]]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert isinstance(image, PngImagePlugin.PngImageFile)
        for name, text in image.text.items():
            yield name, text.encode()


_DAMAGED = (
    OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError, pa.ArrowException,
    zipfile.BadZipFile, sqlite3.Error, RuntimeError, SyntaxError,
)  # fmt: skip
_READERS = {
    b"PK\x03\x04": _zip,
    b"\x1f\x8b": lambda content: iter([("gz", gzip.decompress(content))]),
    b"BZh": lambda content: iter([("bz2", bz2.decompress(content))]),
    b"\xfd7zXZ": lambda content: iter([("xz", lzma.decompress(content))]),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"PAR1": _parquet,
    b"SQLite format 3\0": _sqlite,
    b"\x89PNG": _png,
}
