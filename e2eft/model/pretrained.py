"""Loading and exporting: Stable Diffusion, Marigold and E2E-FT folder layouts, the packaged small
models,
and folders that diffusers' own Marigold pipelines load unchanged."""

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from e2eft.artifacts import MANIFEST, load_artifact
from e2eft.config import VAE_FACTOR, ConvInHalving, ModelConfig
from e2eft.model.blank import write_blank_model
from e2eft.model.codec import Codec
from e2eft.model.estimator import CARD_NAME, Estimator, ModelCard
from e2eft.model.hub import ModelError, hub_id
from e2eft.model.layout import save_diffusers, save_transformers, write_model_index
from e2eft.model.prediction import NoiseSchedule
from e2eft.storage import Store, download_folder, on_this_disk, open_store

log = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()

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
        folder = Path(self.unet)
        if folder.is_dir():
            return (folder / name).read_text() if (folder / name).is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            revision = self.revision or None
            return Path(hf_hub_download(self.unet, name, revision=revision)).read_text()
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


def _load_component(kind: Any, source: ModelSource, component: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(**source.of(component), **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise ModelError(f"model {source.name!r}: cannot load its {component}: {why}") from error


def check_fit(vae: AutoencoderKL, unet: UNet2DConditionModel, name: str) -> None:
    """Raises ModelError if the VAE's factor or the UNet's channels are not what the estimator
    handles."""
    codec, config = Codec(vae), unet.config
    _check_factor(codec, name)
    allowed = (codec.channels, 2 * codec.channels)
    if config["in_channels"] not in allowed or config["out_channels"] != codec.channels:
        raise ModelError(
            f"model {name!r}: its UNet takes {config['in_channels']} and gives "
            f"{config['out_channels']} channels; with this VAE it must take {allowed[0]} or "
            f"{allowed[1]} and give {codec.channels}"
        )


def _check_factor(codec: Codec, name: str) -> None:
    if codec.factor != VAE_FACTOR:
        raise ModelError(
            f"model {name!r}: its VAE shrinks images {codec.factor} times; "
            f"a factor of {VAE_FACTOR} is supported"
        )


def embed_empty_prompt(source: ModelSource, tokens: int) -> torch.Tensor:
    """The text context `[1 tokens width]`: BOS, EOS alone (2), or padded to 77. The encoder is not
    kept."""
    tokenizer: Any = _load_component(CLIPTokenizer, source, "tokenizer")
    encoder: Any = _load_component(CLIPTextModel, source, "text_encoder", dtype=torch.float32)
    if len(tokenizer) < encoder.config.vocab_size:
        # Where its files are missing, transformers makes one without words and says nothing.
        raise ModelError(
            f"model {source.name!r}: cannot load its tokenizer: it has {len(tokenizer)} words, "
            f"its text encoder knows {encoder.config.vocab_size}"
        )
    padding = "max_length" if tokens == 77 else "do_not_pad"
    ids = tokenizer(
        "", padding=padding, max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    if ids.shape[1] != tokens:
        raise ModelError(
            f"model {source.name!r}: the empty prompt is {ids.shape[1]} tokens long, "
            f"expected {tokens}"
        )
    with torch.no_grad():
        return encoder(ids)[0].float()


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
    channels = {
        component: _load_component_config(kind, source, component)
        for component, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL))
    }
    return read_card(source, channels["unet"]["in_channels"], channels["vae"]["latent_channels"])


def _load_component_config(kind: Any, source: ModelSource, component: str) -> dict[str, Any]:
    return kind.load_config(**source.of(component))


def export_source(source: ModelSource, folder: Path) -> Path:
    """A single folder with all of a model: its own if it has one, else a copy in `folder`."""
    if source.unet == source.shared and Path(source.unet).is_dir():
        return Path(source.unet)
    estimator = load_estimator(source)
    return export_model(estimator, source, folder, estimator.card)


def widen_conv_in(unet: UNet2DConditionModel, halving: ConvInHalving) -> UNet2DConditionModel:
    """Doubles the UNet's input channels so that it sees the image's latent beside the target's.

    The weight is repeated along its input channels and halved, so equal halves give the old output.
    `weight-and-bias` (E2E-FT) halves the bias too; `weight` (Marigold) leaves it.
    """
    old: Any = unet.conv_in
    new = torch.nn.Conv2d(
        2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding
    )
    with torch.no_grad():
        new.weight.copy_(old.weight.repeat(1, 2, 1, 1) / 2)
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias / 2 if halving == "weight-and-bias" else old.bias)
    unet.conv_in = new.to(old.weight.dtype)
    unet.register_to_config(in_channels=new.in_channels)
    return unet


def load_codec(source: ModelSource) -> Codec:
    """The frozen VAE alone, in fp32 on the CPU.

    Raises:
        ModelError: if it is missing or has another factor than VAE_FACTOR.
    """
    vae = _load_component(AutoencoderKL, source, "vae", torch_dtype=torch.float32)
    vae.requires_grad_(False)
    codec = Codec(vae)
    _check_factor(codec, source.name)
    return codec


def load_estimator(
    source: ModelSource, settings: ModelConfig | None = None, *, conditional: bool = True
) -> Estimator:
    """A model in fp32 on the CPU.

    Args:
        source: from `find_model`.
        settings: how it shall be trained. None: run it as its card says.
        conditional: False for a model that denoises images themselves (Stable Diffusion's
        objective).

    Raises:
        ModelError: if a component is missing or does not fit.
    """
    options: dict[str, Any] = {"torch_dtype": torch.float32}
    vae = _load_component(AutoencoderKL, source, "vae", **options)
    unet = _load_component(UNet2DConditionModel, source, "unet", **options)
    check_fit(vae, unet, source.name)
    scheduler = _load_component(DDIMScheduler, source, "scheduler")
    channels = unet.config["in_channels"]
    card = read_card(source, channels, Codec(vae).channels)
    if settings is not None:
        _fit_input(unet, settings, conditional, source.name, Codec(vae).channels)
        tokens, initial = settings.prompt_tokens, settings.initial_latent
        card = ModelCard(task=card.task, initial_latent=initial, prompt_tokens=tokens)
        if settings.unet_checkpointing:
            unet.enable_gradient_checkpointing()
        if settings.decoder_checkpointing:
            vae.enable_gradient_checkpointing()
    context = embed_empty_prompt(source, card.prompt_tokens)
    if context.shape[-1] != unet.config["cross_attention_dim"]:
        raise ModelError(
            f"model {source.name!r}: its text encoder gives {context.shape[-1]} features, "
            f"its UNet takes {unet.config['cross_attention_dim']}"
        )
    vae.requires_grad_(False)
    return Estimator(Codec(vae), unet, NoiseSchedule.of(scheduler), context, card)


def _fit_input(unet: Any, settings: ModelConfig, conditional: bool, name: str, latent: int) -> None:
    wants = 2 * latent if conditional and settings.initial_latent != "none" else latent
    has = unet.config["in_channels"]
    if has == wants:
        return
    if has > wants:
        raise ModelError(
            f"model {name!r}: its UNet takes {has} channels, but this run gives it {wants}; "
            "use an initial latent other than 'none', or a 4-channel base"
        )
    widen_conv_in(unet, settings.conv_in_halving)


def export_model(
    estimator: Estimator, source: ModelSource, folder: Path, card: ModelCard, *, half: bool = False
) -> Path:
    """Writes a complete model folder with `trailing` spacing baked into its scheduler.

    Depth and normals models load with `MarigoldDepthPipeline` / `MarigoldNormalsPipeline`
    unchanged. Those pipelines start from Gaussian noise unless given `latents`: pass zeros to a
    model whose card says so.

    Args:
        half: store fp16 weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    save_diffusers(estimator.denoiser, folder / "unet", dtype)
    save_diffusers(estimator.codec.vae, folder / "vae", dtype)
    config = {**estimator.schedule.scheduler.config, "timestep_spacing": "trailing"}
    scheduler: Any = DDIMScheduler.from_config(config)
    scheduler.save_pretrained(folder / "scheduler")
    _load_component(CLIPTokenizer, source, "tokenizer").save_pretrained(folder / "tokenizer")
    encoder = _load_component(CLIPTextModel, source, "text_encoder")
    save_transformers(encoder, folder / "text_encoder", dtype)
    write_model_index(folder, PIPELINES.get(card.task, IMAGE_PIPELINE), **_pipeline_settings(card))
    (folder / CARD_NAME).write_text(json.dumps(card.as_json(), indent=1))
    return folder


def _pipeline_settings(card: ModelCard) -> dict[str, Any]:
    """What diffusers' Marigold pipelines read from the index."""
    if card.task not in PIPELINES:
        return {}
    defaults = {
        "default_denoising_steps": card.steps,
        "default_processing_resolution": card.processing_size,
    }
    if card.task == "depth":
        return defaults | {
            "prediction_type": "depth",
            "scale_invariant": True,
            "shift_invariant": True,
        }
    return defaults | {"prediction_type": "normals", "use_full_z_range": True}
