"""Labels that another program wrote: a tree of .npy or .png files beside the images' own tree.

depth     .npy float [h w], [1 h w] or [h w 1]; .png 16-bit, 65535 x the value
normals   .npy float [h w 3] or [3 h w]; .png 8-bit, 127.5 (n + 1); of length 1, or 0 where they
          are unknown; in axes that the user names
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from e2eft.artifacts import Parent
from e2eft.corpora.mistaken import what_else
from e2eft.geometry.normals import Axes, convert_axes, lengths_of, why_not_normals
from e2eft.images.decoder import DATASET_PIXELS, load_picture
from e2eft.images.npy import decode_npy
from e2eft.labels.codecs import DEPTH_CODES
from e2eft.labels.index import OK, blank_row
from e2eft.storage import MissingError, Store, open_store
from e2eft.storage.base import Found

ENDINGS = (".npy", ".png")


@dataclass(frozen=True)
class LabelTree:
    """Labels by the keys of the images they belong to.

    kind: `affine_depth`, `affine_disparity` or `normals`: what the numbers are.
    pattern: path of a key's label, of `{key}`, its `{folder}` and its `{name}`; None: the names of
        `customary_paths`.
    """

    store: Store
    kind: str
    axes: Axes = "right-up-viewer"
    pattern: str | None = None

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def parents(self) -> tuple[Parent, ...]:
        """Nothing is known of what they were made from."""
        return ()

    @property
    def task(self) -> str:
        return "normals" if self.kind == "normals" else "depth"

    def _files(self) -> dict[str, Found]:
        """By relative path. Not kept: this object goes to every task that reads labels."""
        return {found.path.lstrip("/"): found for found in self.store.scan()}

    def as_parent(self, role: str) -> Parent:
        """A reference for lineage; the digest is of the files' paths, sizes and times."""
        lines = (
            f"{path} {info.size} {info.modified_ns}"
            for path, info in sorted(self._files().items())
            if path.endswith(ENDINGS)
        )
        return Parent(role, self.uri, hashlib.sha256("\n".join(lines).encode()).hexdigest())

    def label_rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """A row for every key that has a label, as the rows of a `LabelIndex`."""
        rows: dict[str, dict[str, Any]] = {}
        files = self._files()
        for index, key in enumerate(keys):
            path = next((path for path in self._paths(key) if path in files), None)
            if path is None:
                continue
            column = "npy_path" if path.endswith(".npy") else f"{self.task}_path"
            planned = {"index": index, "part": 0, "key": key, "uri": key}
            rows[key] = blank_row(planned) | {"status": OK, column: path}
        return rows

    def _paths(self, key: str) -> Iterator[str]:
        if self.pattern is None:
            yield from customary_paths(key)
            return
        folder, _, name = key.rpartition("/")
        yield self.pattern.format(key=key, folder=folder, name=name).lstrip("/")

    def read(self, row: dict[str, Any]) -> np.ndarray:
        """As `LabelIndex.read`; depth has whatever range the file has.

        Raises:
            ValueError: for a file of another type or shape, or normals that are none.
        """
        path = row["npy_path"] or row[f"{self.task}_path"]
        content = self.store.read(path)
        values = decode_npy(content) if path.endswith(".npy") else self._decode_png(content, path)
        if not np.issubdtype(values.dtype, np.floating):
            raise ValueError(f"{path} holds {values.dtype}, expected floating point")
        return self._normals(values, path) if self.task == "normals" else _depth(values, path)

    def _decode_png(self, content: bytes, path: str) -> np.ndarray:
        codes = np.asarray(load_picture(content, DATASET_PIXELS))
        if self.task == "depth":
            if codes.dtype not in (np.uint16, np.int32) or codes.ndim != 2:
                raise ValueError(f"{path} is {codes.dtype} {codes.shape}, expected 16-bit grey")
            return codes / DEPTH_CODES
        if codes.dtype != np.uint8 or codes.ndim != 3:
            raise ValueError(f"{path} is {codes.dtype} {codes.shape}, expected 8-bit RGB")
        values = codes[..., :3] / 127.5 - 1
        values[(codes[..., :3] == 0).all(axis=-1)] = np.nan
        return values

    def _normals(self, values: np.ndarray, path: str) -> np.ndarray:
        if values.ndim == 3 and values.shape[0] == 3 != values.shape[2]:
            values = np.moveaxis(values, 0, -1)
        if values.ndim != 3 or values.shape[2] != 3:
            raise ValueError(f"{path} has shape {values.shape}, expected [h w 3] or [3 h w]")
        values = values.astype(np.float64)
        if reason := why_not_normals(values):
            raise ValueError(f"{path}: {reason}")
        length = lengths_of(values)[..., None]
        known = np.isfinite(length) & (length > 0)
        unit = np.divide(values, length, out=np.full_like(values, np.nan), where=known)
        return convert_axes(unit.astype(np.float32), self.axes, "opencv")


def _depth(values: np.ndarray, path: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    squeezed = values.reshape([side for side in values.shape if side != 1] or [1])
    if values.ndim == 2:
        return values
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]) and squeezed.ndim == 2:
        return squeezed
    raise ValueError(f"{path} has shape {values.shape}, expected [h w], [1 h w] or [h w 1]")


def customary_paths(key: str) -> Iterator[str]:
    """Where a label of `folder/rgb_0046` is looked for: an array of the key itself, then Marigold's
    names: `pred_` before it, or in place of what precedes the first `_`, or `_pred` behind it, or
    for `_rgb` or `_img` at its end; last a picture of the key itself, which may be the image."""
    folder, slash, name = key.rpartition("/")
    bare = name.removesuffix("_rgb").removesuffix("_img")
    stems = [f"pred_{name}", f"pred_{name.partition('_')[2] or name}", f"{bare}_pred"]
    stems.append(f"{name}_pred")
    named = [f"{stem}{ending}" for stem in dict.fromkeys(stems) for ending in ENDINGS]
    for file in (f"{name}.npy", *named, f"{name}.png"):
        yield f"{folder}{slash}{file}"


def open_label_tree(uri: str, kind: str, axes: Axes, pattern: str | None) -> LabelTree:
    """The labels below `uri`.

    Raises:
        ValueError: for a pattern with unknown fields.
        MissingError: if there is no such folder, or nothing in it.
        StorageError: if it cannot be listed.
    """
    if pattern is not None:
        try:
            pattern.format(key="", folder="", name="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"--labels-pattern {pattern!r}: {error!r}; use {{key}}, {{folder}} and {{name}}"
            ) from None
    store = open_store(uri)
    if next(store.scan(), None) is None:
        said = what_else(uri, "labels") or f"{uri} is not there, or holds no file"
        raise MissingError(f"--labels {said}")
    return LabelTree(store, kind, axes, pattern)
