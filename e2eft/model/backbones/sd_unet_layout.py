"""Folders of Stable Diffusion 1 and 2, Marigold and E2E-FT: what they are, by their text files.

A folder whose classes, channels and scheduler are not all known is refused: whatever it is, its
images would be taken for something that they are not.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from e2eft.config import MAX_PROCESSING_PX, ModelConfig, TaskName
from e2eft.model.backbones.base import Layout, Recognized, Training
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.components import INDEX, Folder, check_whole, require_factor, whole_number
from e2eft.model.hub import ModelError
from e2eft.tasks import label_codecs

NAME = "sd_unet"
FACTOR = 8
"""Image pixels a latent's side, of every VAE of Stable Diffusion."""
IMAGE_PIPELINE = "StableDiffusionPipeline"
_IMAGE_PIPELINES = (IMAGE_PIPELINE, "StableDiffusionImg2ImgPipeline")
"""With the same parts."""
SCHEDULERS = {
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "LMSDiscrete", "EulerDiscrete",
        "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep",
        "KDPM2Discrete", "KDPM2AncestralDiscrete", "DEISMultistep", "UniPCMultistep",
    )
}  # fmt: skip
"""Samplers of one kind of model, whose configuration says how its training noise was scheduled."""
PARAMETRIZATIONS = ("v_prediction", "epsilon", "sample")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_CLASSES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unet": ("UNet", "diffusers", ("UNet2DConditionModel",)),
    "vae": ("VAE", "diffusers", ("AutoencoderKL",)),
    "text_encoder": ("text encoder", "transformers", ("CLIPTextModel",)),
    "tokenizer": ("tokenizer", "transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
}
_UNUSED = ("safety_checker", "feature_extractor")
"""Parts of pipelines that change no image."""
TIMESTEPS = 1000
"""Of a scheduler that does not say how many."""
_SCALES = (1e-4, 1e4)
"""Between which a latent's scale lies; that of released VAEs is from 0.1 to 1."""
_MOST_TIMESTEPS = 100_000


@dataclass(frozen=True)
class Scheduling:
    """What a model's scheduler says of its training. kind: the scheduler's class."""

    kind: str
    predicts: str
    spacing: str
    timesteps: int


def _marigold_tasks() -> dict[str, TaskName]:
    """Of Marigold's pipelines, by all of their names."""
    return {
        name: codec.name
        for codec in label_codecs()
        if codec.pipeline
        for name in (codec.pipeline.name, *codec.pipeline.formerly)
    }


class StableDiffusionLayout(Layout):
    name = NAME
    denoiser, denoiser_noun = "unet", "UNet"
    components = ("unet", "vae", "scheduler", "tokenizer", "text_encoder")
    files: Mapping[str, str] = {}
    training = Training(
        parameters=("unet", "vae"),
        checkpointed=("unet", "vae"),
        partitioned=("unet", "vae"),
        compiled=("BasicTransformerBlock", "ResnetBlock2D"),
    )

    @property
    def pipelines(self) -> Collection[str]:
        return (*_IMAGE_PIPELINES, *_marigold_tasks())

    def recognize(
        self, folder: Folder, index: dict[str, Any], card: ModelCard | None
    ) -> Recognized:
        pipeline = str(index.get("_class_name", ""))
        check_index(folder, index)
        unet, vae, text = (
            check_whole(folder, part, folder.json(f"{part}/config.json"))
            for part in ("unet", "vae", "text_encoder")
        )
        check_unet(folder, unet)
        check_vae(folder, vae)
        takes, latent = check_channels(folder.name, unet, vae)
        check_text_encoder(folder, text, unet)
        scheduling = check_scheduler(folder, index)
        check_tokenizer(folder)
        _check_target(folder, pipeline, index)
        note = ""
        if card is not None:
            _check_card(folder, card)
            what = f"a model with a card, of {card.task}"
        else:
            what, card, note = _implied(folder, pipeline, index, takes > latent, scheduling)
        return Recognized(
            what=what,
            card=card,
            in_channels=takes,
            latent_channels=latent,
            sees_image=takes > latent,
            timesteps=scheduling.timesteps,
            backbone=NAME,
            note=note and f"model {folder.name} {note}",
        )

    def require_trainable(
        self, name: str, found: Recognized, settings: ModelConfig, *, conditional: bool
    ) -> int:
        latent = found.latent_channels
        wants = 2 * latent if conditional and settings.initial_latent != "none" else latent
        if found.in_channels > wants:
            raise ModelError(
                f"model {name!r}: its UNet takes {found.in_channels} channels, but this run gives "
                f"it {wants}; use an initial latent other than 'none', or a {latent}-channel base"
            )
        return wants


LAYOUT: Layout = StableDiffusionLayout()


def check_index(folder: Folder, index: dict[str, Any]) -> None:
    """Raises ModelError if diffusers would build other parts than those that are read, or more."""
    for part, entry in index.items():
        named = isinstance(entry, list) and len(entry) == 2
        if part in _CLASSES:
            what, library, kinds = _CLASSES[part]
            if not named or entry[0] != library or entry[1] not in kinds:
                raise folder.is_other(
                    f"a model whose {what} is not {library}' {kinds[0]}, but {json.dumps(entry)} "
                    f"({INDEX})"
                )
        elif named and entry[1] and part not in (*_UNUSED, "scheduler"):
            raise folder.is_other(
                f"a model with a {part} ({entry[1]}) beside the parts of Stable Diffusion"
            )


def check_channels(name: str, unet: dict[str, Any], vae: dict[str, Any]) -> tuple[int, int]:
    """Channels that a UNet takes, and of a latent, from their configurations.

    Raises:
        ModelError: if they do not fit each other and the estimator.
    """
    latent, takes = (
        whole_number(name, f"{part}/config.json", content, key)
        for part, content, key in (("vae", vae, "latent_channels"), ("unet", unet, "in_channels"))
    )
    gives = whole_number(name, "unet/config.json", unet, "out_channels")
    if takes not in (latent, 2 * latent) or gives != latent:
        alike = {9: ", as inpainting models do", 7: ", as upscalers do", 5: ", as models do that "
                 "are guided by depth"}.get(takes, "")  # fmt: skip
        raise ModelError(
            f"model {name!r}: its UNet takes {takes} and gives {gives} channels{alike}; with this "
            f"VAE it must take {latent} or {2 * latent} and give {latent}"
        )
    return takes, latent


def check_unet(folder: Folder, unet: dict[str, Any]) -> None:
    kind = unet.get("_class_name", "UNet2DConditionModel")
    if kind != "UNet2DConditionModel":
        raise folder.is_other(f"a model whose UNet is a {kind}")
    for setting, what in (
        ("class_embed_type", "with class embeddings, as Lotus's and GeoWizard's"),
        ("num_class_embeds", "with class embeddings, as upscalers'"),
        ("addition_embed_type", "with additional embeddings, as Stable Diffusion XL's"),
        ("encoder_hid_dim_type", "that is given projected embeddings"),
        ("encoder_hid_dim", "that is given projected embeddings"),
        ("time_cond_proj_dim", "that was distilled with guidance (LCM)"),
    ):
        if (value := unet.get(setting)) is not None:
            raise folder.is_other(f"a model whose UNet is one {what} ({setting} {value})")


def check_vae(folder: Folder, vae: dict[str, Any]) -> None:
    kind = vae.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise folder.is_other(f"a model whose VAE is an {kind}")
    for setting in ("latents_mean", "latents_std"):
        if vae.get(setting) is not None:
            raise folder.is_other(f"a model whose VAE normalizes latents otherwise ({setting})")
    folder.check_number("vae/config.json", vae, "scaling_factor", *_SCALES)
    if vae.get("shift_factor") is not None:
        folder.check_number("vae/config.json", vae, "shift_factor", -_SCALES[1], _SCALES[1])
    widths = vae.get("block_out_channels")
    require_factor(folder.name, 2 ** (len(widths) - 1) if isinstance(widths, list) else 0, FACTOR)


def check_text_encoder(folder: Folder, text: dict[str, Any], unet: dict[str, Any]) -> None:
    kind = text.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise folder.is_other(f"a model whose text encoder is a {kind}")
    gives, takes = text.get("hidden_size", 512), unet.get("cross_attention_dim")
    if gives != takes:
        raise ModelError(
            f"model {folder.name!r}: its text encoder gives {gives} features, its UNet takes "
            f"{takes}"
        )


def check_scheduler(folder: Folder, index: dict[str, Any]) -> Scheduling:
    """What a model's scheduler says.

    Raises:
        ModelError: if that is not known, or if nothing can be computed with it.
    """
    path = "scheduler/scheduler_config.json"
    scheduler = folder.json(path)
    built = index.get("scheduler")
    named = str(built[1]) if isinstance(built, list) and len(built) == 2 else ""
    kind = str(scheduler.get("_class_name") or named)
    if not kind:
        raise folder.broken(path, f"{path} does not say its _class_name; copy it again")
    predicts = str(scheduler.get("prediction_type", "epsilon"))
    for each in (kind, named or kind):
        _check_sampler(folder, each, scheduler, predicts)
    if predicts not in PARAMETRIZATIONS:
        raise folder.is_other(
            f"a model that predicts {predicts}, not {' or '.join(PARAMETRIZATIONS)}"
        )
    if predicts == "epsilon" and scheduler.get("rescale_betas_zero_snr"):
        raise ModelError(
            f"model {folder.name!r}: epsilon prediction is undefined at t = T-1 on its zero-SNR "
            "schedule"
        )
    timesteps = _check_noise(folder, path, scheduler)
    return Scheduling(kind, predicts, str(scheduler.get("timestep_spacing", "")), timesteps)


def _check_sampler(folder: Folder, kind: str, scheduler: dict[str, Any], predicts: str) -> None:
    if "Flow" in kind or scheduler.get("use_flow_sigmas") or predicts.startswith("flow"):
        raise folder.is_other(f"a model of flow matching (its scheduler is a {kind})")
    if kind in ("LCMScheduler", "TCDScheduler"):
        raise folder.is_other(f"a consistency model, distilled to few steps ({kind})")
    if kind not in SCHEDULERS:
        raise folder.is_other(f"a model with a scheduler that is not known ({kind})")


def _check_noise(folder: Folder, path: str, scheduler: dict[str, Any]) -> int:
    """The number of timesteps."""
    timesteps = scheduler.get("num_train_timesteps", TIMESTEPS)
    folder.check_number(path, scheduler, "num_train_timesteps", 1, _MOST_TIMESTEPS)
    folder.check_number(path, scheduler, "steps_offset", 0, timesteps - 1)
    for key in ("beta_start", "beta_end"):
        folder.check_number(path, scheduler, key, 0.0, 1.0)
    schedule = scheduler.get("beta_schedule", BETA_SCHEDULES[0])
    if schedule not in BETA_SCHEDULES:
        raise folder.is_other(
            f"a model with a schedule of noise that is not known (beta_schedule {schedule})"
        )
    betas = scheduler.get("trained_betas")
    if betas is not None and not _are_betas(betas, timesteps):
        why = f"{path} has trained_betas that are not {timesteps} numbers from 0 to 1"
        raise folder.broken(path, f"{why}; copy it again")
    return timesteps


def _are_betas(betas: Any, timesteps: int) -> bool:
    return (
        isinstance(betas, list)
        and len(betas) == timesteps
        and all(type(beta) in (int, float) and 0 <= beta <= 1 for beta in betas)
    )


def check_tokenizer(folder: Folder) -> None:
    folder.json("tokenizer/tokenizer_config.json")
    for name in ("tokenizer.json", "special_tokens_map.json", "added_tokens.json"):
        if folder.read(f"tokenizer/{name}") is not None:
            folder.json(f"tokenizer/{name}")
    if folder.read("tokenizer/tokenizer.json") is not None:
        return
    folder.json("tokenizer/vocab.json")
    path = "tokenizer/merges.txt"
    if folder.text(path) is None:
        raise folder.broken(path, f"{path} is missing; copy the whole folder again")


def _check_card(folder: Folder, card: ModelCard) -> None:
    if card.predicts:
        raise ModelError(
            f"model {folder.name!r}: its card says predicts {card.predicts!r}, but of Stable "
            "Diffusion's models the scheduler says what they predict; leave it out"
        )


def _check_target(folder: Folder, pipeline: str, index: dict[str, Any]) -> None:
    task = _marigold_tasks().get(pipeline)
    predicts = index.get("prediction_type") or task
    if task is not None and predicts != task:
        raise folder.is_other(f"a Marigold model of {predicts}, not of {task}")


def _implied(
    folder: Folder, pipeline: str, index: dict[str, Any], sees_image: bool, scheduling: Scheduling
) -> tuple[str, ModelCard, str]:
    """The layout of a known pipeline, the card that it implies, and what must be said of that."""
    if pipeline in _marigold_tasks():
        return _marigold(folder, pipeline, index, sees_image, scheduling.timesteps)
    if not sees_image:
        return "Stable Diffusion", ModelCard(task="image", initial_latent="none"), ""
    _check_e2e_ft(folder, pipeline, scheduling)
    card = ModelCard(task="image", initial_latent="zeros", axes="left-up-viewer")
    note = (
        f"has 8 channels and no {CARD_NAME}: read as a released E2E-FT model, which starts from "
        "zeros, takes one step, and has normals left-up-viewer; --model-card FILE says otherwise"
    )
    return "an E2E-FT model", card, note


def _check_e2e_ft(folder: Folder, pipeline: str, scheduling: Scheduling) -> None:
    """What E2E-FT's training writes: a plain pipeline, and how it ran the scheduler."""
    kind, predicts, spacing = scheduling.kind, scheduling.predicts, scheduling.spacing
    if (
        pipeline != IMAGE_PIPELINE
        or kind not in ("DDPMScheduler", "DDIMScheduler")
        or (predicts, spacing) != ("v_prediction", "trailing")
    ):
        raise folder.is_other(
            f"a {pipeline} that sees an image and predicts {predicts} ({kind}, "
            f"{spacing or 'no'} spacing), unlike E2E-FT's (v_prediction, DDPMScheduler, trailing "
            "spacing); say with --model-card FILE how it is run"
        )


def _marigold(
    folder: Folder, pipeline: str, index: dict[str, Any], sees_image: bool, timesteps: int
) -> tuple[str, ModelCard, str]:
    task = _marigold_tasks()[pipeline]
    if not sees_image:
        raise folder.is_other(f"a {pipeline} whose UNet does not see an image")
    steps, size = index.get("default_denoising_steps"), index.get("default_processing_resolution")
    if steps is not None:
        folder.check_number(INDEX, index, "default_denoising_steps", 1, timesteps)
    if size is not None and (type(size), size) != (int, 0):
        bounds = FACTOR, MAX_PROCESSING_PX
        folder.check_number(INDEX, index, "default_processing_resolution", *bounds)
    full = index.get("use_full_z_range")
    card = ModelCard(
        task, steps=steps or 1, processing_size=size or 0, full_z_range=full is not False
    )
    at = f"longest side {size} px" if size else "images at their own size"
    note = (
        f"has no {CARD_NAME}: read as Marigold {task}, which starts from Gaussian noise; "
        f"{card.steps} step(s), {at}"
    )
    return f"Marigold {task}", card, note
