"""The parts of a model by their configurations: that each is the one that is taken, of the class
that the index names, and with numbers that can be computed with. Needs neither torch nor diffusers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from e2eft.config import VAE_FACTOR
from e2eft.model.hub import ModelError
from e2eft.model.others import POINTER, TAKEN

INDEX = "model_index.json"
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
_BOM = "\ufeff"
_SCALES = (1e-4, 1e4)
"""Between which a latent's scale lies; that of released VAEs is from 0.1 to 1."""
_MOST_TIMESTEPS = 100_000

Reader = Callable[[str], str | None]
"""A text file of a model by its path, such as `unet/config.json`; None if it is not there."""


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


@dataclass(frozen=True)
class Scheduling:
    """What a model's scheduler says of its training. kind: the scheduler's class."""

    kind: str
    predicts: str
    spacing: str
    timesteps: int


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


def check_whole(folder: Folder, component: str, content: dict[str, Any]) -> dict[str, Any]:
    """The same configuration, unless it says that the weights are quantized (ModelError)."""
    for key in ("quantization_config", "compression_config"):
        if quantized := content.get(key):
            method = quantized.get("quant_method", key) if isinstance(quantized, dict) else key
            why = f"it is quantized ({method}); save it unquantized"
            raise folder.broken(f"{component}/config.json", why)
    return content


def check_channels(name: str, unet: dict[str, Any], vae: dict[str, Any]) -> tuple[int, int]:
    """Channels that a UNet takes, and of a latent, from their configurations.

    Raises:
        ModelError: if they do not fit each other and the estimator.
    """
    latent, takes = (
        _whole(name, f"{part}/config.json", content, key)
        for part, content, key in (("vae", vae, "latent_channels"), ("unet", unet, "in_channels"))
    )
    gives = _whole(name, "unet/config.json", unet, "out_channels")
    if takes not in (latent, 2 * latent) or gives != latent:
        alike = {9: ", as inpainting models do", 7: ", as upscalers do", 5: ", as models do that "
                 "are guided by depth"}.get(takes, "")  # fmt: skip
        raise ModelError(
            f"model {name!r}: its UNet takes {takes} and gives {gives} channels{alike}; with this "
            f"VAE it must take {latent} or {2 * latent} and give {latent}"
        )
    return takes, latent


def _whole(name: str, path: str, content: dict[str, Any], key: str) -> int:
    value = content.get(key)
    if type(value) is not int or value < 1:
        raise ModelError(f"model {name!r}: its {path} does not say {key}")
    return value


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
    check_factor(folder.name, 2 ** (len(widths) - 1) if isinstance(widths, list) else 0)


def check_factor(name: str, factor: int) -> None:
    """Raises ModelError unless a VAE shrinks images `VAE_FACTOR` times."""
    if factor != VAE_FACTOR:
        raise ModelError(
            f"model {name!r}: its VAE shrinks images {factor} times; "
            f"a factor of {VAE_FACTOR} is supported"
        )


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
