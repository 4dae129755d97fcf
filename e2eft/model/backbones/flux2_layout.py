"""Folders of FLUX.2 klein, as diffusers 0.42 has it, that estimate something in one step.

The card says how: with `initial_latent` "none" the image's latent is where the noise would be, else
it follows the target's as reference tokens. The embedded empty prompt lies in a file beside the
components, so that its text encoder, of four billion parameters and more, is never loaded.
"""

import json
from collections.abc import Collection
from types import MappingProxyType
from typing import Any, NoReturn

from e2eft.config import ModelConfig
from e2eft.model.backbones.base import Layout, Recognized
from e2eft.model.card import ModelCard
from e2eft.model.components import INDEX, Folder, check_whole, require_factor, whole_number
from e2eft.model.hub import ModelError

NAME = "flux2"
PIPELINE = "Flux2KleinPipeline"
FACTOR, PATCH = 8, 2
"""Image pixels a latent's side, and latents a token's."""
TIMESTEPS = 1000
"""What diffusers' scheduler counts, and its pipeline divides by."""
CONTEXT = "text_context.safetensors"
PARTS = {
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}
_UNUSED = ("text_encoder", "tokenizer")


class Flux2Layout(Layout):
    name = NAME
    denoiser, denoiser_noun = "transformer", "transformer"
    components = ("transformer", "vae", "scheduler")
    files = MappingProxyType(
        {
            CONTEXT: "the embedded empty prompt; where there is the text encoder, "
            f"e2eft.model.backbones.{NAME}.write_text_context(FOLDER) makes it"
        }
    )
    training = None

    @property
    def pipelines(self) -> Collection[str]:
        return (PIPELINE,)

    def recognize(
        self, folder: Folder, index: dict[str, Any], card: ModelCard | None
    ) -> Recognized:
        _check_index(folder, index)
        transformer, vae = (
            check_whole(folder, part, folder.json(f"{part}/config.json"))
            for part in ("transformer", "vae")
        )
        _check_classes(folder, transformer, vae)
        latent = _check_channels(folder, transformer, vae)
        if card is None:
            what, card = "FLUX.2 klein", ModelCard(task="image", initial_latent="none")
        else:
            what = f"FLUX.2 klein with a card, of {card.task}"
        if card.steps != 1:
            raise ModelError(
                f"model {folder.name!r}: its card says steps {card.steps}; FLUX.2 is run in 1"
            )
        return Recognized(
            what=what,
            card=card,
            in_channels=latent,
            latent_channels=latent,
            sees_image=card.initial_latent != "none",
            timesteps=1,
            backbone=NAME,
        )

    def require_trainable(
        self, name: str, found: Recognized, settings: ModelConfig, *, conditional: bool
    ) -> NoReturn:
        raise ModelError(
            f"model {name!r} is {found.what}, which `e2eft train` does not take: it trains Stable "
            "Diffusion's UNet; give a base of that kind, such as tiny-sd"
        )


LAYOUT: Layout = Flux2Layout()


def _check_index(folder: Folder, index: dict[str, Any]) -> None:
    for part, entry in PARTS.items():
        if index.get(part) != entry:
            raise folder.is_other(
                f"a model whose {part} is not {entry[0]}' {entry[1]}, but "
                f"{json.dumps(index.get(part))} ({INDEX})"
            )
    for part, entry in index.items():
        named = isinstance(entry, list) and len(entry) == 2 and entry[1]
        if named and part not in (*PARTS, *_UNUSED):
            raise folder.is_other(
                f"a model with a {part} ({entry[1]}) beside the parts of FLUX.2 klein"
            )


def _check_classes(folder: Folder, transformer: dict[str, Any], vae: dict[str, Any]) -> None:
    scheduler = folder.json("scheduler/scheduler_config.json")
    for part, content in (("transformer", transformer), ("vae", vae), ("scheduler", scheduler)):
        kind = content.get("_class_name", PARTS[part][1])
        if kind != PARTS[part][1]:
            raise folder.is_other(f"a model whose {part} is a {kind}")
    counted = scheduler.get("num_train_timesteps", TIMESTEPS)
    if counted != TIMESTEPS:
        raise folder.is_other(f"a model of {counted} timesteps, not of {TIMESTEPS}")
    # Where it is not said, diffusers builds one.
    if transformer.get("guidance_embeds", True):
        raise folder.is_other("FLUX.2 with a scale of guidance (guidance_embeds), as dev is")
    if transformer.get("patch_size", 1) != 1:
        raise folder.is_other("FLUX.2 with a transformer that packs latents itself (patch_size)")


def _check_channels(folder: Folder, transformer: dict[str, Any], vae: dict[str, Any]) -> int:
    """Channels of a latent."""
    name = folder.name
    latent = whole_number(name, "vae/config.json", vae, "latent_channels")
    takes = whole_number(name, "transformer/config.json", transformer, "in_channels")
    gives = transformer.get("out_channels") or takes
    if vae.get("patch_size", [PATCH, PATCH]) != [PATCH, PATCH]:
        raise folder.is_other(f"a model whose VAE packs other than {PATCH} x {PATCH} latents")
    packed = PATCH * PATCH * latent
    if takes != packed or gives != packed:
        raise ModelError(
            f"model {name!r}: its transformer takes {takes} and gives {gives} channels; with this "
            f"VAE it must take and give {packed}"
        )
    folder.check_number("vae/config.json", vae, "batch_norm_eps", 0.0, 1.0)
    widths = vae.get("block_out_channels")
    require_factor(name, 2 ** (len(widths) - 1) if isinstance(widths, list) else 0, FACTOR)
    return latent
