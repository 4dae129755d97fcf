"""Loading and exporting: Stable Diffusion, Marigold and E2E-FT folder layouts, the packaged small
models, and folders that diffusers' own Marigold pipelines load unchanged."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from e2eft.config import ConvInHalving, ModelConfig
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.codec import Codec
from e2eft.model.components import check_factor
from e2eft.model.estimator import Estimator
from e2eft.model.hub import ModelError, one_line
from e2eft.model.layout import save_diffusers, save_transformers, write_model_index
from e2eft.model.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    DDIMScheduler,
    UNet2DConditionModel,
)
from e2eft.model.pinned import brought_here, model_files
from e2eft.model.prediction import NoiseSchedule
from e2eft.model.recognition import IMAGE_PIPELINE, require_input
from e2eft.model.sound import require_sound
from e2eft.model.source import ModelSource, recognized
from e2eft.model.weights import (
    PICKLED,
    STEMS,
    Shape,
    pickle_of,
    require_float,
    require_weights,
    tensors_of,
)
from e2eft.tasks import label_codec

_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
"""How VAEs of Stable Diffusion 1 and 2 call what diffusers has renamed since."""
_NAMED: dict[str, Callable[[str], str]] = {
    "vae": lambda name: _ATTENTION.sub(lambda old: _RENAMED[old[1]], name),
    "text_encoder": lambda name: name.removeprefix("text_model."),
}
"""Tensors as this version calls them, by what others have called them."""

for library in (diffusers_logging, transformers_logging):
    library.set_verbosity_error()  # What they would warn of ends in a ModelError here.
    library.disable_progress_bar()


def _load_component(kind: Any, source: ModelSource, component: str, **options: Any) -> Any:
    """A part of a model; one with weights from the variant that is there, all of them.

    Raises:
        ModelError: if it is missing or broken; names the file, and a tensor that is not there, of
            another shape, not of floating-point numbers, not finite, or zero.
    """
    if component not in STEMS:
        return _from_pretrained(kind, source, component, options)
    folder = source.folder(component)
    assert folder is not None, "it is on the hub"
    variant = require_weights(source.name, component, folder)
    options |= {"use_safetensors": variant != PICKLED, "output_loading_info": True}
    if variant and variant != PICKLED:
        options["variant"] = variant
    if variant == PICKLED:
        _require_floats(source, component, pickle_of(component, folder))
    try:
        made, info = _from_pretrained(kind, source, component, options)
    except ModelError:
        _require_tensors(source, component, kind)  # Says so if the weights are of another model.
        raise
    _require_equal(source, component, info.get("missing_keys"), info.get("unexpected_keys"))
    require_sound(source.name, component, made)
    return made


def _require_floats(source: ModelSource, component: str, file: Path) -> None:
    def read() -> dict[str, Any]:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))

    for tensor, weight in _loaded(source, component, read).items():
        if isinstance(weight, torch.Tensor) and not weight.dtype.is_floating_point:
            kind = str(weight.dtype).removeprefix("torch.")
            require_float(source.name, component, file.name, tensor, kind)


def _require_equal(source: ModelSource, component: str, missing: Any, unexpected: Any) -> None:
    for found, what in ((missing, "lack"), (unexpected, "also hold")):
        if found:
            raise ModelError(
                f"model {source.name!r}: cannot load its {component}: the weights in {component}/ "
                f"{what} {min(found)}, other than {component}/config.json says; copy both again"
            )


def require_tensors(source: ModelSource) -> None:
    """Raises ModelError if a model on this machine has not the tensors that its configurations say;
    reads no more than their names and shapes."""
    for component, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        _require_tensors(source, component, kind)


def _require_tensors(source: ModelSource, component: str, kind: Any) -> None:
    folder = source.folder(component)
    assert folder is not None, "it is on the hub"
    found = tensors_of(source.name, component, folder)
    if found is None:
        return
    wanted = _loaded(source, component, lambda: _promised(kind, folder))
    named = _NAMED.get(component, str)
    found, wanted = ({named(n): shape for n, shape in all.items()} for all in (found, wanted))
    found.pop("embeddings.position_ids", None)
    _require_equal(source, component, wanted.keys() - found.keys(), found.keys() - wanted.keys())
    if other := [tensor for tensor in sorted(wanted) if wanted[tensor] != found[tensor]]:
        raise ModelError(
            f"model {source.name!r}: cannot load its {component}: the weights in {component}/ hold "
            f"{other[0]} of shape {list(found[other[0]])}, but {component}/config.json says "
            f"{list(wanted[other[0]])}; copy both again"
        )


def _promised(kind: Any, folder: Path) -> dict[str, Shape]:
    """The tensors that a component's configuration says that it has."""
    with torch.device("meta"):
        if kind is CLIPTextModel:
            made: Any = kind(CLIPTextConfig.from_pretrained(folder))
        else:
            made = kind.from_config(kind.load_config(folder))
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def _from_pretrained(
    kind: Any, source: ModelSource, component: str, options: dict[str, Any]
) -> Any:
    return _loaded(
        source, component, lambda: kind.from_pretrained(**source.of(component), **options)
    )


def _loaded(source: ModelSource, component: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # Of half a dozen libraries, for whatever a file may hold.
        raise ModelError(
            f"model {source.name!r}: cannot load its {component}: {component}/ is broken "
            f"({type(error).__name__}: {one_line(error)}); copy it again"
        ) from error


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


def export_source(source: ModelSource, folder: Path, card: ModelCard) -> Path:
    """A single folder with all of a model, which says of itself what this card says: its own if it
    does, else a copy in `folder`."""
    if source.unet != source.shared:
        return export_model(load_estimator(source), source, folder, card)
    if recognized(replace(source, card="")).card == card:
        return Path(source.unet)
    for name, path in model_files(source).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    (folder / CARD_NAME).write_text(json.dumps(card.as_json(), indent=1))
    return folder


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
    source = brought_here(source, ("vae",))
    vae = _load_component(AutoencoderKL, source, "vae", torch_dtype=torch.float32)
    vae.requires_grad_(False)
    codec = Codec(vae)
    check_factor(source.name, codec.factor)
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
        ModelError: if a component is missing or does not fit, or its weights are not finite.
    """
    source = brought_here(source)
    found = recognized(source)
    card = found.card
    options: dict[str, Any] = {"torch_dtype": torch.float32}
    vae = _load_component(AutoencoderKL, source, "vae", **options)
    unet = _load_component(UNet2DConditionModel, source, "unet", **options)
    scheduler = _load_component(DDIMScheduler, source, "scheduler")
    try:
        schedule = NoiseSchedule.of(scheduler)
    except ValueError as error:
        raise ModelError(f"model {source.name!r}: its scheduler: {error}") from error
    if settings is not None:
        wants = require_input(source.name, found, settings, conditional=conditional)
        if wants > found.in_channels:
            widen_conv_in(unet, settings.conv_in_halving)
        tokens, initial = settings.prompt_tokens, settings.initial_latent
        card = ModelCard(task=card.task, initial_latent=initial, prompt_tokens=tokens)
        if settings.unet_checkpointing:
            unet.enable_gradient_checkpointing()
        if settings.decoder_checkpointing:
            vae.enable_gradient_checkpointing()
    context = embed_empty_prompt(source, card.prompt_tokens)
    vae.requires_grad_(False)
    return Estimator(Codec(vae), unet, schedule, context, card)


def export_model(
    estimator: Estimator, source: ModelSource, folder: Path, card: ModelCard, *, half: bool = False
) -> Path:
    """Writes a complete model folder with `trailing` spacing baked into its scheduler.

    Models load unchanged with their task's pipeline of diffusers (`LabelCodec.pipeline`), if it has
    one. Those pipelines start from Gaussian noise unless given `latents`: pass zeros to a
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
    pipeline, pipeline_settings = _pipeline_of(card)
    write_model_index(folder, pipeline, **pipeline_settings)
    (folder / CARD_NAME).write_text(json.dumps(card.as_json(), indent=1))
    return folder


def _pipeline_of(card: ModelCard) -> tuple[str, dict[str, Any]]:
    """The pipeline of diffusers that reads a model as its card does, and what that reads from the
    index."""
    codec = None if card.task == "image" else label_codec(card.task)
    if codec is None or codec.pipeline is None or card.axes != "right-up-viewer":
        return IMAGE_PIPELINE, {}
    settings: dict[str, Any] = {
        "default_denoising_steps": card.steps,
        "default_processing_resolution": card.processing_size,
        "prediction_type": card.task,
        **codec.pipeline.fields,
    }
    if codec.has_directions:
        settings |= {"use_full_z_range": card.full_z_range}
    return codec.pipeline.name, settings
