"""Labels that another program wrote: a tree of .npy or .png files beside the images' own tree.

What they may hold, each task says (`LabelCodec.from_others`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from e2eft.artifacts import Parent
from e2eft.corpora.mistaken import what_else
from e2eft.images.decoder import DATASET_PIXELS, load_picture
from e2eft.images.npy import decode_npy
from e2eft.labels.index import OK, blank_row
from e2eft.storage import MissingError, Store, open_store
from e2eft.storage.base import Found
from e2eft.targets import LINEAR, DepthTarget, Disparity, LogDepth, SqrtDisparity
from e2eft.tasks import label_codec
from e2eft.tasks.labels import LabelCodec

if TYPE_CHECKING:
    from e2eft.geometry.normals import Axes

ENDINGS = (".npy", ".png")


@dataclass(frozen=True)
class LabelTree:
    """Labels by the keys of the images they belong to.

    task: its name. kind: what the numbers are: `affine_depth`, `affine_disparity`, `normals`, ...
    axes: of directions.
    pattern: path of a key's label, of `{key}`, its `{folder}` and its `{name}`; None: the names of
        `customary_paths`.
    """

    store: Store
    task: str
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
    def codec(self) -> LabelCodec:
        """What the labels are."""
        return label_codec(self.task, self.depth_target)

    @property
    def depth_target(self) -> DepthTarget:
        """What labels of depth are affine in; nothing is added to other programs' depth before its
        logarithm is taken."""
        known = (LINEAR, LogDepth(eps_m=0.0), Disparity(), SqrtDisparity())
        return next((t for t in known if label_codec(self.task, t).kind == self.kind), LINEAR)

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
            column = "npy_path" if path.endswith(".npy") else self.codec.column
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
        """As `LabelIndex.read`, but of whatever range the file has.

        Raises:
            ValueError: for a file of another type or shape, or numbers that cannot be of the task.
        """
        path = row["npy_path"] or row[self.codec.column]
        content = self.store.read(path)
        if path.endswith(".npy"):
            values = decode_npy(content)
        else:
            codes = np.asarray(load_picture(content, DATASET_PIXELS))
            values = self.codec.from_others_png(codes, path)
        if not np.issubdtype(values.dtype, np.floating):
            raise ValueError(f"{path} holds {values.dtype}, expected floating point")
        return self.codec.from_others(values, path, self.axes)


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


def open_label_tree(uri: str, task: str, kind: str, axes: Axes, pattern: str | None) -> LabelTree:
    """The labels below `uri`; for the rest see `LabelTree`.

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
    return LabelTree(store, task, kind, axes, pattern)
