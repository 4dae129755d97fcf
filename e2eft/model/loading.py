"""Loading single components of a model, all of their weights and none of another's."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from e2eft.model.hub import ModelError, one_line
from e2eft.model.sound import require_sound
from e2eft.model.source import ModelSource
from e2eft.model.weights import (
    PICKLED,
    STEMS,
    Shape,
    pickle_of,
    require_float,
    require_weights,
    tensors_of,
)

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


def load_component(kind: Any, source: ModelSource, component: str, **options: Any) -> Any:
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
        require_tensors(source, component, kind)  # Says so if the weights are of another model.
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


def require_tensors(source: ModelSource, component: str, kind: Any) -> None:
    """Raises ModelError if a component on this machine has not the tensors that its configuration
    says; reads no more than their names and shapes."""
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
        if hasattr(kind, "from_config"):
            made: Any = kind.from_config(kind.load_config(folder))
        else:
            made = kind(kind.config_class.from_pretrained(folder))
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
