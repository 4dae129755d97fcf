"""What a model is, from the JSON files of its folder: one that is taken and how it is run, or what
else it is. Needs neither torch nor diffusers, and no weights.

A folder whose class, channels and scheduler are not all known is refused: whatever it is, its
images would be taken for something that they are not.
"""

from dataclasses import dataclass
from typing import Any

from e2eft.config import MAX_PROCESSING_PX, VAE_FACTOR, ModelConfig, TaskName
from e2eft.model.card import CARD_NAME, ModelCard, parse_card
from e2eft.model.components import (
    INDEX,
    Folder,
    Reader,
    Scheduling,
    check_channels,
    check_index,
    check_scheduler,
    check_text_encoder,
    check_tokenizer,
    check_unet,
    check_vae,
    check_whole,
)
from e2eft.model.hub import ModelError
from e2eft.model.others import kind_of
from e2eft.tasks import label_codecs

IMAGE_PIPELINE = "StableDiffusionPipeline"
_IMAGE_PIPELINES = (IMAGE_PIPELINE, "StableDiffusionImg2ImgPipeline")
"""With the same parts."""


@dataclass(frozen=True)
class Recognized:
    """A model that is taken.

    what: the layout, for a person. card: its own, one that was given, or what the layout implies.
    timesteps: of its noise schedule. note: what a person must know of a card that was implied; ""
    if there is one.
    """

    what: str
    card: ModelCard
    in_channels: int
    latent_channels: int
    timesteps: int
    note: str = ""

    @property
    def sees_image(self) -> bool:
        """Whether its UNet has channels for an image's latent beside the target's."""
        return self.in_channels > self.latent_channels


def _marigold_tasks() -> dict[str, TaskName]:
    """Of Marigold's pipelines, by all of their names."""
    return {
        name: codec.name
        for codec in label_codecs()
        if codec.pipeline
        for name in (codec.pipeline.name, *codec.pipeline.formerly)
    }


def recognize(name: str, read: Reader, given: str = "") -> Recognized:
    """What a model is and how it is run.

    Args:
        name: for messages.
        given: the text of a card that counts instead of its own or what its layout implies.

    Raises:
        ModelError: for a model that is not taken, with what it is; for a file that is missing or
            broken, with its name.
    """
    folder = Folder(name, read)
    index = folder.json(INDEX)
    if other := kind_of(index):
        raise folder.is_other(other)
    pipeline = str(index.get("_class_name", ""))
    own = folder.text(CARD_NAME)
    has_card = bool(given) or own is not None
    if pipeline not in (*_IMAGE_PIPELINES, *_marigold_tasks()) and not has_card:
        raise folder.is_other(f"of a kind that is not known ({INDEX} says {pipeline or 'nothing'})")
    check_index(folder, index)
    unet, vae, text = (
        check_whole(folder, part, folder.json(f"{part}/config.json"))
        for part in ("unet", "vae", "text_encoder")
    )
    check_unet(folder, unet)
    check_vae(folder, vae)
    takes, latent = check_channels(name, unet, vae)
    check_text_encoder(folder, text, unet)
    scheduling = check_scheduler(folder, index)
    check_tokenizer(folder)
    _check_target(folder, pipeline, index)
    if has_card:
        where = "--model-card" if given else f"model {name!r}: {CARD_NAME}"
        card = parse_card(given or own or "", where)
        what, note = f"a model with a card, of {card.task}", ""
    else:
        what, card, note = _implied(folder, pipeline, index, takes > latent, scheduling)
        note = note and f"model {name} {note}"
    return Recognized(what, card, takes, latent, scheduling.timesteps, note)


def require_input(name: str, found: Recognized, settings: ModelConfig, *, conditional: bool) -> int:
    """Channels that a run gives its UNet.

    Raises:
        ModelError: if the model's UNet takes more.
    """
    latent = found.latent_channels
    wants = 2 * latent if conditional and settings.initial_latent != "none" else latent
    if found.in_channels > wants:
        raise ModelError(
            f"model {name!r}: its UNet takes {found.in_channels} channels, but this run gives it "
            f"{wants}; use an initial latent other than 'none', or a {latent}-channel base"
        )
    return wants


def _check_target(folder: Folder, pipeline: str, index: dict[str, Any]) -> None:
    task = _marigold_tasks().get(pipeline)
    predicts = index.get("prediction_type") or task
    if task is not None and predicts != task:
        raise folder.is_other(f"a Marigold model of {predicts}, not of {task}")


def _implied(
    folder: Folder, pipeline: str, index: dict[str, Any], sees_image: bool, scheduling: Scheduling
) -> tuple[str, ModelCard, str]:
    """The layout of a known pipeline, the card that it implies, and what must be said of that."""
    if task := _marigold_tasks().get(pipeline):
        return _marigold(folder, pipeline, task, index, sees_image, scheduling.timesteps)
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
    folder: Folder,
    pipeline: str,
    task: TaskName,
    index: dict[str, Any],
    sees_image: bool,
    timesteps: int,
) -> tuple[str, ModelCard, str]:
    if not sees_image:
        raise folder.is_other(f"a {pipeline} whose UNet does not see an image")
    steps, size = index.get("default_denoising_steps"), index.get("default_processing_resolution")
    if steps is not None:
        folder.check_number(INDEX, index, "default_denoising_steps", 1, timesteps)
    if size is not None and (type(size), size) != (int, 0):
        bounds = VAE_FACTOR, MAX_PROCESSING_PX
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
