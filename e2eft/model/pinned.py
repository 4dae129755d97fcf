"""A model fixed to its bytes: what a long job must not see change under it."""

import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from e2eft.artifacts import MANIFEST, Parent, entries, load_artifact
from e2eft.model.backbones import DEFAULT, layout, name_read
from e2eft.model.backbones.base import Layout
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.components import INDEX
from e2eft.model.hub import ModelError, commit_of, fetched, pinned
from e2eft.model.source import (
    BLANK,
    MODEL_FOLDER,
    MODEL_KIND,
    ModelSource,
    find_model,
    fixed,
    locate_model,
    reader,
    recognized,
)
from e2eft.model.weights import STEMS, is_read, no_weights, require_weights, variant_of
from e2eft.storage import Store, absolute, on_this_disk, open_store
from e2eft.walk import digest_files, digest_lines, walk_files

log = logging.getLogger(__name__)

ROOT_FILES = (INDEX, CARD_NAME)


@dataclass(frozen=True)
class PinnedModel:
    """A model whose files are on this machine.

    name: as it was asked for; uri: what that was resolved to, e.g. a registered version, or a
    commit of the hub; digest: SHA-256 over its files' names and digests; card: what counts, which
    may be another than its own; sees_image: whether its denoiser has room for an image's latent
    beside the target's; timesteps: the most steps it can be run in.
    """

    name: str
    uri: str
    digest: str
    source: ModelSource
    card: ModelCard
    sees_image: bool
    timesteps: int


def model_files(source: ModelSource) -> dict[str, Path]:
    """Every file that loading a local model may read, by its path in a folder of its own; none if
    it is not on this machine.

    Raises:
        StorageError: for links that lead nowhere or in circles, and folders that may not be read.
    """
    files: dict[str, Path] = {}
    if not Path(source.root).is_dir():
        return files
    taken = layout(source.backbone)
    for component in taken.components:
        root = Path(source.of(component)["pretrained_model_name_or_path"])
        if (root / component).is_dir():
            files |= {
                f"{component}/{file.name}": file.path for file in walk_files(root / component)
            }
    for name in (*ROOT_FILES, *taken.files):
        if (path := Path(source.root, name)).is_file():
            files[name] = path
    return files


def as_input(name: str, role: str) -> Parent:
    """A model as what something is made from: a training run by its manifest's digest, other files
    by theirs, which are read through wherever they lie, a model of the hub by its commit. That is
    "" where the hub does not answer and nothing is cached.

    Raises:
        ModelError: if there is none of that name, as far as that can be seen from here.
        ArtifactError: for an artifact of another kind.
    """
    if name == BLANK:
        return Parent(role, name, "")
    here = on_this_disk(name)
    is_folder = here is not None and here.is_dir()
    if "://" in name or is_folder:
        uri = absolute(name)
        store, folder = locate_model(uri)
        if store.exists(MANIFEST):
            return load_artifact(uri, MODEL_KIND).as_parent(role)
        if "://" in name:
            return Parent(role, name, _stored_digest(store, folder))
    source = find_model(name)
    if not Path(source.root).is_dir():
        with suppress(ModelError):
            return Parent(role, name, commit_of(name))
        return Parent(role, name, "")
    return Parent(role, absolute(name) if is_folder else name, digest_files(model_files(source)))


def files_digest(uri: str) -> str:
    """What `PinnedModel.digest` of the model that lies at `uri` would be now; nothing is fetched.

    Raises:
        ModelError: if there is none.
        ArtifactError: for an artifact of another kind.
    """
    if "://" not in uri:
        return digest_files(model_files(find_model(uri)))
    store, folder = locate_model(uri)
    if not store.exists(MANIFEST):
        return _stored_digest(store, folder)
    taken = _layout_at(store, folder)
    files = load_artifact(uri, MODEL_KIND).files
    named = {file.called.removeprefix(f"{MODEL_FOLDER}/"): file.sha256 for file in files}
    return digest_lines({name: digest for name, digest in named.items() if _is_read(taken, name)})


def _layout_at(store: Store, folder: str) -> Layout:
    """Of the model in a folder of a store."""
    try:
        return layout(name_read(reader(store.uri, store, folder)(INDEX)))
    except ModelError:
        return layout(DEFAULT)


def _is_read(taken: Layout, name: str) -> bool:
    """Whether loading a model of this layout may read this file of it."""
    return name.split("/")[0] in taken.components or name in (*ROOT_FILES, *taken.files)


def content_digest(model: Parent) -> str:
    """The digest of `as_input` if it is of a model's files in a store that may change under a job;
    "" if it is of something else."""
    if "://" not in model.uri or open_store(model.uri).exists(MANIFEST):
        return ""
    return model.digest


def _stored_digest(store: Store, folder: str) -> str:
    """What `digest_files` gives of a model's `model_files` once they are on this machine."""
    taken = _layout_at(store, folder)
    base = f"{folder}/" if folder else ""
    names = sorted(path[len(base) :] for path, _ in store.list(base) if not path.endswith("/"))
    wanted = [name for name in names if _is_read(taken, name)]
    read = entries(store, [f"{base}{name}" for name in wanted])
    return digest_lines({name: entry.sha256 for name, entry in zip(wanted, read, strict=True)})


def pin_model(name: str, uri: str, location: str, scratch: Path, card: str = "") -> PinnedModel:
    """Brings a model to this machine if it is not there, and fixes it.

    Args:
        name, uri: see `PinnedModel`.
        location: where `find_model` finds it.
        scratch: a local folder for what must be copied.
        card: the text of one that counts instead of the model's own.

    Raises:
        ModelError: if there is none, or none that is taken, or if a file of it is missing or
            broken.
    """
    source = replace(fixed(find_model(location, scratch)), name=name, card=card)
    found = recognized(source)
    if not Path(source.root).is_dir():
        source = brought_here(source)
        uri = pinned(location, Path(source.root).name)  # The folder is called by the commit.
    files = model_files(source)
    require_all_weights(source)
    if found.note:
        log.info("%s", found.note)
    digest = digest_files(files)
    return PinnedModel(name, uri, digest, source, found.card, found.sees_image, found.timesteps)


def require_all_weights(source: ModelSource) -> None:
    """Raises ModelError if the weights of a model on this machine are not all there and whole, or
    if a file is missing that its backbone needs beside them."""
    taken = layout(source.backbone)
    for component in _weighted(taken):
        folder = source.folder(component)
        assert folder is not None, "it is on the hub"
        require_weights(source.name, component, folder)
    for name, what in taken.files.items():
        if not Path(source.root, name).is_file():
            raise ModelError(f"model {source.name!r}: its {name} is missing, {what}")


def _weighted(taken: Layout) -> tuple[str, ...]:
    """The components that have weights."""
    return tuple(component for component in taken.components if component in STEMS)


def brought_here(source: ModelSource, parts: Collection[str] | None = None) -> ModelSource:
    """The same model, in this machine's cache if it was on the hub.

    Args:
        parts: components whose weights are needed; None: all.

    Raises:
        ModelError: if neither the hub nor the cache has it, or if it has no weights that are read.
    """
    if Path(source.root).is_dir():
        return source
    taken = layout(source.backbone)
    needed = _weighted(taken) if parts is None else parts
    folder = str(
        fetched(source.repository, lambda files: _wanted(source.name, taken, files, needed))
    )
    return replace(source, root=folder, shared=folder, revision="")


def _wanted(name: str, taken: Layout, files: list[str], parts: Collection[str]) -> list[str]:
    """Which files of a model of the hub are fetched."""
    variants: dict[str, str] = {}
    for component in parts:
        names = list(_names_in(component, files))
        variant = variant_of(component, names)
        if variant is None:
            raise no_weights(name, component, names)
        variants[component] = variant
    at_root = (*ROOT_FILES, *taken.files)
    return [file for file in files if file in at_root or _is_wanted(taken, file, variants)]


def _is_wanted(taken: Layout, file: str, variants: dict[str, str]) -> bool:
    component, _, name = file.rpartition("/")
    if component not in taken.components:
        return False
    if component in STEMS and name != "config.json":
        return component in variants and is_read(component, name, variants[component])
    return name.endswith((".json", ".txt"))


def _names_in(component: str, files: list[str]) -> Iterator[str]:
    for file in files:
        folder, _, name = file.rpartition("/")
        if folder == component:
            yield name


def require_task(model: PinnedModel, task: str) -> None:
    """Raises ModelError if the model's card says that it estimates something else, or nothing."""
    if model.card.task not in (task, "image"):
        raise ModelError(
            f"model {model.name!r} estimates {model.card.task}, not {task}; "
            f"use the recipe for {model.card.task}"
        )
    if model.card.task == "image" and not model.sees_image:
        taken = layout(model.source.backbone)
        trained = "fine-tune it first: e2eft train" if taken.training else "nor is it a base model"
        raise ModelError(
            f"model {model.name!r} is a plain image model (its {taken.denoiser_noun} does not see "
            f"an image); {trained}"
        )
