"""The text files of a model's folder: that each is there, and says what can be computed with. Needs
neither torch nor diffusers.
"""

import json
from collections.abc import Callable
from typing import Any

from e2eft.model.hub import ModelError
from e2eft.model.others import POINTER, TAKEN

INDEX = "model_index.json"
_BOM = "\ufeff"

Reader = Callable[[str], str | None]
"""A text file of a model by its path, such as `vae/config.json`; None if it is not there."""


class Folder:
    """The text files of a model, with errors that name it and them."""

    def __init__(self, name: str, read: Reader) -> None:
        self.name, self.read = name, read

    def text(self, path: str) -> str | None:
        """None if it is not there.

        Raises:
            ModelError: if nothing is in it, or not what belongs there.
        """
        text = self.read(path)
        if text is None:
            return None
        if text.startswith(POINTER):
            raise self.broken(path, f"{path} is a pointer of Git LFS; run `git lfs pull` there")
        if not text.strip(_BOM).strip():
            raise self.broken(path, f"{path} is empty; copy it again")
        return text

    def json(self, path: str) -> dict[str, Any]:
        text = self.text(path)
        if text is None:
            raise self.broken(path, f"{path} is missing; copy the whole folder again")
        if "/" in path and text.startswith(_BOM):
            why = "begins with a byte-order mark, which diffusers does not read"
            raise self.broken(path, f"{path} {why}; save it as UTF-8 without one")
        try:
            content = json.loads(text.removeprefix(_BOM))
        except ValueError as error:
            raise self.broken(path, f"{path} is no JSON ({error}); copy it again") from None
        if not isinstance(content, dict):
            raise self.broken(path, f"{path} holds no JSON object; copy it again")
        return content

    def broken(self, path: str, why: str) -> ModelError:
        component = path.rpartition("/")[0]
        what = f"cannot load its {component}: " if component else ""
        return ModelError(f"model {self.name!r}: {what}{why}")

    def is_other(self, what: str) -> ModelError:
        return ModelError(f"model {self.name!r} is {what}; {TAKEN}")

    def check_number(
        self, path: str, content: dict[str, Any], key: str, low: float, high: float
    ) -> None:
        """Raises ModelError if a file gives this key something that is no number within bounds, or
        no whole one where the bounds are whole."""
        value = content.get(key, low)
        kinds = (int,) if isinstance(low, int) else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            what = "whole number" if isinstance(low, int) else "number"
            why = f"which is no {what} from {low:g} to {high:g}; put it right, or copy it again"
            raise self.broken(path, f"{path} says {key} {value!r}, {why}")


def check_whole(folder: Folder, component: str, content: dict[str, Any]) -> dict[str, Any]:
    """The same configuration, unless it says that the weights are quantized (ModelError)."""
    for key in ("quantization_config", "compression_config"):
        if quantized := content.get(key):
            method = quantized.get("quant_method", key) if isinstance(quantized, dict) else key
            why = f"it is quantized ({method}); save it unquantized"
            raise folder.broken(f"{component}/config.json", why)
    return content


def whole_number(name: str, path: str, content: dict[str, Any], key: str) -> int:
    """Raises ModelError unless a file gives this key a number of channels, or of other things."""
    value = content.get(key)
    if type(value) is not int or value < 1:
        raise ModelError(f"model {name!r}: its {path} does not say {key}")
    return value


def require_factor(name: str, factor: int, wanted: int) -> None:
    """Raises ModelError unless a VAE shrinks images as many times as the backbone's do."""
    if factor != wanted:
        raise ModelError(
            f"model {name!r}: its VAE shrinks images {factor} times; "
            f"a factor of {wanted} is supported"
        )
