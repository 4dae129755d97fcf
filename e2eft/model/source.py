"""Where a model's files lie, and what it is; neither torch nor diffusers, so drivers start fast."""

import json
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from e2eft.artifacts import MANIFEST, load_artifact
from e2eft.errors import MissingError
from e2eft.model.backbones import name_read
from e2eft.model.backbones.base import Recognized
from e2eft.model.components import INDEX, Reader
from e2eft.model.hub import ModelError, commit_of, content_of, hub_id, names_of, pinned
from e2eft.model.others import HEAD_BYTES, TAKEN, files_of_something_else, lone_file
from e2eft.model.recognition import recognize
from e2eft.storage import Store, absolute, download_folder, on_this_disk, open_store

BASES = Path(__file__).parent.parent / "bases"
PACKAGED = ("tiny-sd", "tiny-marigold-depth")
"""Small models shipped with the package; they share everything but their denoisers."""
BLANK = "blank"
"""The same architecture with random weights, for building the packaged models anew."""
_NEARLY_REGISTERED = re.compile(r"(models?|runs|dbfs|mlflow[\w-]*):", re.IGNORECASE)
"""How names begin that mean something in MLflow, and are none of a registered model here."""
MODEL_KIND = "model"
MODEL_FOLDER = "model"
"""Where a training run's artifact keeps the model."""


@dataclass(frozen=True)
class ModelSource:
    """Where each component of a model lies: a folder or hub id, and the subfolder in it.

    root: of the model itself, its index and its card; shared: of the components that the root has
    not, which several models may have in common. revision: of a hub id; "": the newest one. card:
    the text of a card that counts instead of the model's own; "": none.
    """

    name: str
    root: str
    shared: str
    revision: str = ""
    card: str = ""

    def of(self, component: str) -> dict[str, str]:
        """Arguments of `from_pretrained` for one component."""
        place = {"pretrained_model_name_or_path": self._root(component), "subfolder": component}
        return place | ({"revision": self.revision} if self.revision else {})

    def folder(self, component: str) -> Path | None:
        """Where a component lies on this machine, unless it has to be fetched."""
        root = Path(self._root(component))
        return root / component if root.is_dir() else None

    def text(self, path: str) -> str | None:
        """A text file by its path in the model, or None if there is none.

        Raises:
            ModelError: if it is no text, or of the hub, which does not answer.
        """
        component, _, _ = path.rpartition("/")
        root = self._root(component) if component else self.root
        if Path(root).is_dir():
            file = Path(root, path)
            content = file.read_bytes() if file.is_file() else None
        else:
            content = content_of(self.repository, path)
        return None if content is None else decoded(self.name, path, content)

    @property
    def backbone(self) -> str:
        """What its index says that its denoiser is; the default where that is not known."""
        return name_read(self.text(INDEX))

    @property
    def repository(self) -> str:
        """As a model of the hub is called."""
        return pinned(self.root, self.revision) if self.revision else self.root

    def _root(self, component: str) -> str:
        is_own = self.root == self.shared or Path(self.root, component).is_dir()
        return self.root if is_own else self.shared


def decoded(name: str, path: str, content: bytes) -> str:
    """Raises ModelError for a file that is no text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ModelError(f"model {name!r}: its {path} is no text; copy it again") from None


def find_model(name: str, scratch: Path | None = None) -> ModelSource:
    """Resolves a packaged name, folder, run artifact, or hub id; remote artifacts are copied to
    `scratch`.

    Raises:
        ModelError: for a folder that is there but holds no model, or a registered model's URI.
        ArtifactError, StorageError: for a URI that is no finished training run.
    """
    if name in PACKAGED:
        return ModelSource(name, root=str(BASES / name), shared=str(BASES / "shared"))
    if name.startswith("models:/"):
        raise ModelError(f"{name} is a registered model; give its run's folder or URI here")
    if name == BLANK:
        from e2eft.model.blank import write_blank_model

        folder = str(write_blank_model(_scratch(scratch) / BLANK))
        return ModelSource(name, folder, folder)
    here = on_this_disk(name)
    if here is not None and here.is_file():
        store = open_store(str(here.parent))
        what = lone_file(here.name, lambda file: store.read_range(file, 0, HEAD_BYTES)) or "a file"
        raise ModelError(f"model {name!r} is {what}; {TAKEN}")
    if "://" in name or here is not None:
        folder = str(_local_copy(name, scratch))
        return ModelSource(name, folder, folder)
    found = hub_id(name)
    if found is None:
        known = ", ".join(PACKAGED)
        nearly = _NEARLY_REGISTERED.match(name)
        what = "is no registered model's name" if nearly else "is not there"
        raise ModelError(
            f"model {name!r} {what}; give a folder, a run's URI, a hub id "
            f"(owner/name), models:/name@alias, or one of: {known}"
        )
    repository, revision = found
    return ModelSource(name, repository, repository, revision)


def _scratch(folder: Path | None) -> Path:
    return folder or Path(tempfile.mkdtemp(prefix="e2eft-model-"))


def locate_model(uri: str) -> tuple[Store, str]:
    """The store at a URI, and the folder in it that is the model. Nothing is fetched.

    Raises:
        ModelError: if there is neither a finished training run nor a model.
        ArtifactError: for an artifact of another kind.
    """
    store = open_store(uri)
    subfolder = ""
    if store.exists(MANIFEST):
        index = load_artifact(uri, MODEL_KIND).path(f"{MODEL_FOLDER}/{INDEX}")
        subfolder = index.rpartition("/")[0]
    if not store.exists(_inside(subfolder, INDEX)):
        raise ModelError(_no_model(store, subfolder))
    return store, subfolder


def _inside(folder: str, path: str) -> str:
    return "/".join(filter(None, [folder, path]))


def _no_model(store: Store, folder: str) -> str:
    names = list(store.names(folder))
    if snapshot := _snapshot_below(store, folder, names):
        return f"{store.uri} is a folder of the hub's cache; give the model in it, {snapshot}"
    text = store.read(_inside(folder, "config.json")) if "config.json" in names else b"{}"

    def begins(name: str) -> bytes:
        return store.read_range(_inside(folder, name), 0, HEAD_BYTES)

    return _not_a_model(store.uri, names, text, begins)


def _snapshot_below(store: Store, folder: str, names: list[str]) -> str:
    """A model of the hub's cache in a folder of that; "" if it has none."""
    inside = "snapshots" if "snapshots" in names else ""
    below = _inside(folder, inside)
    for name in sorted(store.names(below)) if inside or store.uri.endswith("/snapshots") else ():
        if store.exists(_inside(below, f"{name}/{INDEX}")):
            return f"{store.uri}/{_inside(below, name)}"
    return ""


def _not_a_model(
    where: str,
    names: list[str],
    config: bytes | str,
    begins: Callable[[str], bytes] | None = None,
) -> str:
    content: dict[str, Any] = {}
    with suppress(ValueError):
        content = dict(json.loads(config))
    if what := files_of_something_else(names, content, begins):
        return f"{where} holds {what}; {TAKEN}"
    return (
        f"{where} holds neither a finished training run ({MANIFEST}) nor a model in diffusers "
        f"layout ({INDEX})"
    )


def _local_copy(uri: str, scratch: Path | None) -> Path:
    store, subfolder = locate_model(uri)
    if "://" not in uri or uri.startswith("file://"):
        return Path(store.uri, subfolder)
    return download_folder(store, subfolder, _scratch(scratch) / "downloaded")


def fixed(source: ModelSource) -> ModelSource:
    """The same; of the hub, the commit that it means now.

    Raises:
        ModelError: if that is not known.
    """
    if Path(source.root).is_dir():
        return source
    return replace(source, revision=commit_of(source.repository))


def recognized(source: ModelSource) -> Recognized:
    """What a model is.

    Raises:
        ModelError: as `recognize`.
    """
    if not Path(source.root).is_dir() and source.text(INDEX) is None:
        names = names_of(source.repository)
        raise ModelError(_not_a_model(source.name, names, source.text("config.json") or "{}"))
    return recognize(source.name, source.text, source.card)


def recognized_at(name: str) -> Recognized:
    """What the model of this name is; as `find_model` finds it, but nothing is fetched of it that
    is not looked at.

    Raises:
        ModelError: as `recognize`, and if there is none.
        ArtifactError: for an artifact of another kind.
    """
    if "://" not in name:
        return recognized(fixed(find_model(name)))
    store, folder = locate_model(absolute(name))
    return recognize(name, reader(name, store, folder))


def reader(name: str, store: Store, folder: str) -> Reader:
    """The text files of a model that lies in a folder of a store."""

    def read(path: str) -> str | None:
        try:
            return decoded(name, path, store.read(_inside(folder, path)))
        except MissingError:
            return None

    return read
