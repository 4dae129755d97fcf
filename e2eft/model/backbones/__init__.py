"""Backbones: a denoiser with all that it needs, each behind the protocols of `base`.

A backbone has a name, say `sd_unet`, and two modules here: `sd_unet_layout`, which says what its
folders are and needs no torch, and `sd_unet`, which loads and computes. They are imported when they
are needed. docs/extending/backbone.md says how to add one.
"""

import json
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e2eft.model.backbones.base import Backbone, Layout

DENOISERS = {
    "UNet2DConditionModel": "sd_unet",
    "Flux2Transformer2DModel": "flux2",
}
"""Names of backbones by the class of the denoiser in `model_index.json`."""
COMPONENTS = ("unet", "transformer")
"""What diffusers calls denoisers."""
DEFAULT = "sd_unet"
"""What an index is held against that names no denoiser known here: it says what is not right."""


def name_in(index: dict[str, Any]) -> str:
    """The backbone of a model by its index."""
    for component in COMPONENTS:
        entry = index.get(component)
        if isinstance(entry, list) and entry and str(entry[-1]) in DENOISERS:
            return DENOISERS[str(entry[-1])]
    return DEFAULT


def name_read(index: str | None) -> str:
    """The same by the text of an index, whatever is wrong with it."""
    with suppress(ValueError):
        content = json.loads((index or "").removeprefix("\ufeff"))
        if isinstance(content, dict):
            return name_in(content)
    return DEFAULT


def layout(name: str) -> "Layout":
    """What a backbone's folders are."""
    return import_module(f"{__name__}.{name}_layout").LAYOUT


def backbone(name: str) -> "Backbone":
    """A backbone's loading and export, for which torch and diffusers are imported."""
    return import_module(f"{__name__}.{name}").BACKBONE
