"""Where a model's files lie, and what it is; neither torch nor diffusers, so drivers start fast."""

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2eft.artifacts import MANIFEST, load_artifact
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.hub import ModelError, hub_id
from e2eft.storage import Store, download_folder, on_this_disk, open_store

log = logging.getLogger(__name__)

BASES = Path(__file__).parent.parent / "bases"
PACKAGED = ("tiny-sd", "tiny-marigold-depth")
"""Small models shipped with the package; they share everything but their UNets."""
BLANK = "blank"
"""The same architecture with random weights, for building the packaged models anew."""
MODEL_KIND = "model"
MODEL_FOLDER = "model"
"""Where a training run's artifact keeps the model."""
IMAGE_PIPELINE = "StableDiffusionPipeline"
PIPELINES = {"depth": "MarigoldDepthPipeline", "normals": "MarigoldNormalsPipeline"}


@dataclass(frozen=True)
class ModelSource:
    """Where each component of a model lies: a folder or hub id, and the subfolder in it.

    revision: of a hub id; "": the newest one.
    """

    name: str
    unet: str
    shared: str
    revision: str = ""

    def of(self, component: str) -> dict[str, str]:
        """Arguments of `from_pretrained` for one component."""
        root = self.unet if component == "unet" else self.shared
        place = {"pretrained_model_name_or_path": root, "subfolder": component}
        return place | ({"revision": self.revision} if self.revision else {})

    def text(self, name: str) -> str | None:
        """A file of the model's root, or None if there is none."""
        return self._read(self.unet, name)

    def setting(self, component: str, name: str) -> Any:
        """One of a component's configuration.

        Raises:
            ModelError: if it is not there.
        """
        root = self.of(component)["pretrained_model_name_or_path"]
        text = self._read(root, f"{component}/config.json")
        if text is None:
            raise ModelError(f"model {self.name!r}: its {component}/config.json is missing")
        try:
            return json.loads(text)[name]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"model {self.name!r}: its {component}/config.json does not say {name}"
            ) from error

    def _read(self, root: str, name: str) -> str | None:
        if Path(root).is_dir():
            path = Path(root, name)
            return path.read_text() if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(hf_hub_download(root, name, revision=self.revision or None)).read_text()
        except EntryNotFoundError:
            return None


def find_model(name: str, scratch: Path | None = None) -> ModelSource:
    """Resolves a packaged name, folder, run artifact, or hub id; remote artifacts are copied to
    `scratch`.

    Raises:
        ModelError: for a folder that is there but holds no model, or a registered model's URI.
        ArtifactError, StorageError: for a URI that is no finished training run.
    """
    if name in PACKAGED:
        return ModelSource(name, unet=str(BASES / name), shared=str(BASES / "shared"))
    if name.startswith("models:/"):
        raise ModelError(f"{name} is a registered model; give its run's folder or URI here")
    if name == BLANK:
        from e2eft.model.blank import write_blank_model

        folder = str(write_blank_model(_scratch(scratch) / BLANK))
        return ModelSource(name, folder, folder)
    if "://" in name or on_this_disk(name):
        folder = str(_local_copy(name, scratch))
        return ModelSource(name, folder, folder)
    found = hub_id(name)
    if found is None:
        known = ", ".join(PACKAGED)
        raise ModelError(
            f"model {name!r} is not there; give a folder, a run's URI, a hub id "
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
        index = load_artifact(uri, MODEL_KIND).path(f"{MODEL_FOLDER}/model_index.json")
        subfolder = index.rpartition("/")[0]
    if not store.exists("/".join(filter(None, [subfolder, "model_index.json"]))):
        raise ModelError(
            f"{uri} holds neither a finished training run ({MANIFEST}) nor a model in diffusers "
            "layout (model_index.json)"
        )
    return store, subfolder


def _local_copy(uri: str, scratch: Path | None) -> Path:
    store, subfolder = locate_model(uri)
    if "://" not in uri or uri.startswith("file://"):
        return Path(store.uri, subfolder)
    return download_folder(store, subfolder, _scratch(scratch) / "downloaded")


def read_card(source: ModelSource, in_channels: int, latent_channels: int) -> ModelCard:
    """The model's card, or what its layout implies where it has none.

    A released Marigold (`MarigoldDepthPipeline`) was trained on Gaussian noise; a released E2E-FT
    model is an 8-channel `StableDiffusionPipeline` and starts from zeros; a 4-channel UNet is a
    plain image model.
    """
    if content := source.text(CARD_NAME):
        return ModelCard.of(json.loads(content))
    index = json.loads(source.text("model_index.json") or "{}")
    pipeline = index.get("_class_name", "")
    task = {pipe: task for task, pipe in PIPELINES.items()}.get(pipeline, "image")
    if in_channels == latent_channels:
        return ModelCard(task="image", initial_latent="none")
    released_e2e = pipeline == IMAGE_PIPELINE
    initial = "zeros" if released_e2e else "gaussian"
    log.info("model %s has no %s; assuming initial latent %s", source.name, CARD_NAME, initial)
    return ModelCard(task=task, initial_latent=initial)


def read_source_card(source: ModelSource) -> ModelCard:
    """The card of a model without loading its weights."""
    return read_card(source, *channels_of(source))


def channels_of(source: ModelSource) -> tuple[int, int]:
    """Channels that its UNet takes, and channels of a latent.

    Raises:
        ModelError: if the components' configurations do not say so.
    """
    return source.setting("unet", "in_channels"), source.setting("vae", "latent_channels")
