"""Tiny folders in the layouts of others' models.

Every part that a class of diffusers describes is built by that class, on the meta device where its
weights don't matter; what is alike is linked, so that a folder takes milliseconds.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from e2eft.model.backbones.sd_unet import widen_conv_in, write_model_index
from e2eft.model.backbones.sd_unet_layout import LAYOUT
from e2eft.model.blank import blank_unet, blank_vae, stable_diffusion_2_scheduler, write_blank_model
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.layout import DIFFUSERS_WEIGHTS, save_diffusers
from tests.tiny_models import edit_json

SD, MARIGOLD = "StableDiffusionPipeline", "MarigoldDepthPipeline"
TASK_SWITCH = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
"""What Lotus and GeoWizard tell their UNets the task by."""
LEFT_BY_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438167540\n"
TRAILING = stable_diffusion_2_scheduler(timestep_spacing="trailing")


class Parts:
    """The whole models that all others are made of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = write_blank_model(root / "parts" / "sd")
        torch.manual_seed(1)
        self.wide = root / "parts" / "wide"
        save_diffusers(widen_conv_in(blank_unet(), "weight"), self.wide / "unet")

    def model(
        self, folder: Path, pipeline: str, *, wide: bool = False, index: Any = None, **parts: Any
    ) -> Path:
        """A folder for a pipeline; `parts` come in the place of the blank model's: an object of
        diffusers, whose configuration alone is written, or None for a part that is not there."""
        folder.mkdir(parents=True)
        for component in LAYOUT.components:
            if component not in parts:
                root = self.wide if wide and component == "unet" else self.base
                (folder / component).symlink_to(root / component)
        for component, part in parts.items():
            if part is not None:
                part.save_config(folder / component)
        write_model_index(folder, pipeline, **(index or {}))
        return folder

    def copy(self, folder: Path, **settings: Any) -> Path:
        """A Marigold of its own files, to be broken."""
        self.model(folder.with_name("linked"), MARIGOLD, wide=True, **settings)
        return Path(shutil.copytree(folder.with_name("linked"), folder))


@dataclass(frozen=True)
class Layout:
    """A kind of folder (or name), and how one is made in an empty folder; gives its name."""

    title: str
    make: Callable[[Parts, Path], Path | str]


def unet(**changes: Any) -> Any:
    """The blank model's, changed, without weights."""
    from diffusers import UNet2DConditionModel

    config = {k: v for k, v in blank_config("unet").items() if not k.startswith("_")}
    with torch.device("meta"):
        return UNet2DConditionModel(**config | changes)


def vae(kind: str, **changes: Any) -> Any:
    import diffusers

    config = {k: v for k, v in blank_config("vae").items() if not k.startswith("_")}
    if kind != "AutoencoderKL":
        config = {}
    with torch.device("meta"):
        return getattr(diffusers, kind)(**config | changes)


@cache
def blank_config(component: str) -> dict[str, Any]:
    with torch.device("meta"):
        return dict((blank_unet() if component == "unet" else _meta_vae()).config)


def _meta_vae() -> Any:
    from diffusers import AutoencoderKL

    with torch.device("cpu"):
        made: AutoencoderKL = blank_vae()
    return made


def scheduler(kind: str, **changes: Any) -> Any:
    import diffusers

    return getattr(diffusers, kind)(**changes)


def other(pipeline: str, **parts: Any) -> Callable[[Parts, Path], Path]:
    """A folder for a pipeline of others. parts: see `Parts.model`; made when they are needed."""

    def make(zoo: Parts, folder: Path) -> Path:
        return zoo.model(folder, pipeline, **{name: part() for name, part in parts.items()})

    return make


def transformer(pipeline: str, kind: str, **settings: Any) -> Callable[[Parts, Path], Path]:
    """A pipeline without a UNet."""

    def make(zoo: Parts, folder: Path) -> Path:
        import diffusers

        with torch.device("meta"):
            part = getattr(diffusers, kind)(**settings)
        entry = {"transformer": ["diffusers", kind]}
        flow = scheduler("FlowMatchEulerDiscreteScheduler")
        return zoo.model(folder, pipeline, unet=None, scheduler=flow, transformer=part, index=entry)

    return make


def marigold(**settings: Any) -> Callable[[Parts, Path], Path]:
    pipeline = settings.pop("pipeline", MARIGOLD)
    return lambda zoo, folder: zoo.model(folder, pipeline, wide=True, index=settings)


def broken(spoil: Callable[[Path], Any]) -> Callable[[Parts, Path], Path]:
    """A Marigold to which something has happened."""

    def make(zoo: Parts, folder: Path) -> Path:
        made = zoo.copy(folder)
        spoil(made)
        return made

    return make


def files(**content: str) -> Callable[[Parts, Path], Path]:
    """A folder with these files and no others; the last dot of a name is written `__`."""

    def make(_: Parts, folder: Path) -> Path:
        folder.mkdir()
        for name, text in content.items():
            (folder / name.replace("__", ".")).write_text(text)
        return folder

    return make


def _e2e_ft(zoo: Parts, folder: Path) -> Path:
    trained = scheduler("DDPMScheduler", **_plain(TRAILING.config))
    return zoo.model(folder, SD, wide=True, scheduler=trained)


def _plain(config: Any) -> dict[str, Any]:
    """What a scheduler of Stable Diffusion's own noise says, whichever class it is of."""
    names = ("beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing")
    return {name: config[name] for name in names} | {"clip_sample": False}


def _ours(zoo: Parts, folder: Path) -> Path:
    made = zoo.model(folder, MARIGOLD, wide=True)
    card = ModelCard("depth", initial_latent="zeros", processing_size=640)
    (made / CARD_NAME).write_text(json.dumps(card.as_json()))
    return made


def as_variant(folder: Path) -> None:
    for component in ("unet", "vae", "text_encoder"):
        (whole,) = (folder / component).glob("*.safetensors")
        half = {name: tensor.half() for name, tensor in load_file(whole).items()}
        save_file(half, whole.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        whole.unlink()


def _as_shards(folder: Path) -> None:
    whole = folder / "unet" / DIFFUSERS_WEIGHTS
    state = load_file(whole)
    names = sorted(state)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, whole.with_name(shard), {"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": whole.stat().st_size}, "weight_map": weight_map}
    (folder / "unet" / f"{DIFFUSERS_WEIGHTS}.index.json").write_text(json.dumps(index))
    whole.unlink()


def _without_a_shard(folder: Path) -> None:
    _as_shards(folder)
    next((folder / "unet").glob("*-00002-of-*")).unlink()


def _without_a_tensor(folder: Path) -> None:
    whole = folder / "unet" / DIFFUSERS_WEIGHTS
    state = load_file(whole)
    state.pop("conv_in.weight")
    save_file(state, whole, metadata={"format": "pt"})


def _pointer(path: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / path).write_text(LEFT_BY_LFS)


def _ending_in_zeros(folder: Path) -> None:
    """As a download that is cut leaves a file whose size was reserved."""
    whole = folder / "unet" / DIFFUSERS_WEIGHTS
    size = whole.stat().st_size
    os.truncate(whole, size // 2)
    os.truncate(whole, size)


def _of_whole_numbers(folder: Path) -> None:
    whole = folder / "unet" / DIFFUSERS_WEIGHTS
    state = load_file(whole)
    state["conv_in.weight"] = state["conv_in.weight"].to(torch.int8)
    save_file(state, whole, metadata={"format": "pt"})


def _of_another_shape(folder: Path) -> None:
    whole = folder / "unet" / DIFFUSERS_WEIGHTS
    state = load_file(whole)
    state["conv_in.weight"] = state["conv_in.weight"][:, :4].contiguous()
    save_file(state, whole, metadata={"format": "pt"})


def _lora(_: Parts, folder: Path) -> Path:
    folder.mkdir()
    file = folder / "pixels.safetensors"
    save_file({"unet.mid_block.to_q.lora_A.weight": torch.zeros(1)}, file)
    return file


def _cache(zoo: Parts, folder: Path) -> Path:
    (folder / "refs").mkdir(parents=True)
    zoo.model(folder / "snapshots" / "1a2b", MARIGOLD, wide=True)
    return folder


def _cut(folder: Path) -> None:
    whole = folder / "unet" / DIFFUSERS_WEIGHTS
    os.truncate(whole, whole.stat().st_size // 2)


def _pickled(folder: Path) -> None:
    for component in ("unet", "vae", "text_encoder"):
        (whole,) = (folder / component).glob("*.safetensors")
        name = "pytorch_model.bin" if component == "text_encoder" else f"{whole.stem}.bin"
        torch.save(load_file(whole), whole.with_name(name))
        whole.unlink()


def _of_flax(folder: Path) -> None:
    (folder / "vae" / DIFFUSERS_WEIGHTS).unlink()
    (folder / "vae" / "diffusion_flax_model.msgpack").touch()


TAKEN = (
    Layout("Stable Diffusion 2", lambda zoo, folder: zoo.model(folder, SD)),
    Layout("Stable Diffusion 1", other(SD, scheduler=lambda: scheduler(
        "PNDMScheduler", beta_schedule="scaled_linear", skip_prk_steps=True))),
    Layout("Stable Diffusion, from image to image", other("StableDiffusionImg2ImgPipeline")),
    Layout("Marigold depth", marigold(
        prediction_type="depth", default_denoising_steps=4, default_processing_resolution=768)),
    Layout("Marigold depth, from before diffusers had it", marigold(pipeline="MarigoldPipeline")),
    Layout("Marigold normals", marigold(
        pipeline="MarigoldNormalsPipeline", prediction_type="normals", use_full_z_range=True,
        default_denoising_steps=4, default_processing_resolution=768)),
    Layout("Marigold normals with half of z", marigold(
        pipeline="MarigoldNormalsPipeline", prediction_type="normals", use_full_z_range=False)),
    Layout("E2E-FT, depth or normals", _e2e_ft),
    Layout("a model of `e2eft train`", _ours),
    Layout("Marigold, `fp16` variants only", broken(as_variant)),
    Layout("Marigold, weights in shards", broken(_as_shards)),
    Layout("Marigold, pickled weights (`.bin`)", broken(_pickled)),
)  # fmt: skip
REFUSED = (
    Layout("InstructPix2Pix", other(
        "StableDiffusionInstructPix2PixPipeline", unet=lambda: unet(in_channels=8))),
    Layout("InstructPix2Pix, as Stable Diffusion", other(SD, unet=lambda: unet(in_channels=8),
        scheduler=lambda: scheduler("EulerAncestralDiscreteScheduler"))),
    Layout("E2E-FT's UNet with another scheduler", lambda zoo, folder: zoo.model(
        folder, SD, wide=True)),
    Layout("a UNet of another's code", marigold(unet=["my_unet", "MyUNet"])),
    Layout("a ControlNet beside it", marigold(controlnet=["diffusers", "ControlNetModel"])),
    Layout("a sampler for few steps, by its index", marigold(
        scheduler=["diffusers", "LCMScheduler"])),
    Layout("a quantized UNet", broken(lambda made: edit_json(
        made / "unet/config.json", quantization_config={"quant_method": "bitsandbytes"}))),
    Layout("a schedule that DDIM has not", other(SD, scheduler=lambda: scheduler(
        "DDPMScheduler", beta_schedule="sigmoid"))),
    Layout("Marigold intrinsic images (IID)", other(
        "MarigoldIntrinsicsPipeline", unet=lambda: unet(in_channels=12, out_channels=8))),
    Layout("Marigold for disparity", marigold(prediction_type="disparity")),
    Layout("Marigold LCM", other(MARIGOLD, unet=lambda: unet(in_channels=8),
        scheduler=lambda: scheduler("LCMScheduler", prediction_type="v_prediction"))),
    Layout("Lotus, by its pipeline's name", other(
        "LotusGPipeline", unet=lambda: unet(in_channels=8, **TASK_SWITCH))),
    Layout("Lotus, as Stable Diffusion", other(SD, unet=lambda: unet(**TASK_SWITCH))),
    Layout("GeoWizard", other("DepthNormalEstimationPipeline", unet=lambda: unet(
        in_channels=8, **TASK_SWITCH | {"projection_class_embeddings_input_dim": 10}))),
    Layout("StableNormal", other("StableNormalPipeline")),
    Layout("DepthMaster", other("DepthMasterPipeline")),
    Layout("GenPercept", other("GenPerceptPipeline")),
    Layout("a UNet trained by flow matching", other(
        SD, scheduler=lambda: scheduler("FlowMatchEulerDiscreteScheduler"))),
    Layout("the same, with a sampler's flag", other(SD, scheduler=lambda: scheduler(
        "DPMSolverMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction"))),
    Layout("Stable Diffusion LCM", other("LatentConsistencyModelPipeline",
        unet=lambda: unet(time_cond_proj_dim=64))),
    Layout("a UNet distilled with guidance", other(
        SD, unet=lambda: unet(time_cond_proj_dim=64))),
    Layout("a sampler for few steps", other(SD, scheduler=lambda: scheduler("TCDScheduler"))),
    Layout("inpainting", other(
        "StableDiffusionInpaintPipeline", unet=lambda: unet(in_channels=9))),
    Layout("inpainting, as Stable Diffusion", other(SD, unet=lambda: unet(in_channels=9))),
    Layout("upscaler", other("StableDiffusionUpscalePipeline",
        unet=lambda: unet(in_channels=7, num_class_embeds=1000))),
    Layout("depth-guided Stable Diffusion", other(
        "StableDiffusionDepth2ImgPipeline", unet=lambda: unet(in_channels=5))),
    Layout("ControlNet pipeline", other("StableDiffusionControlNetPipeline")),
    Layout("image variations", other("StableDiffusionImageVariationPipeline")),
    Layout("Stable Diffusion XL", other("StableDiffusionXLPipeline", unet=lambda: unet(
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 64))),
    Layout("its UNet, as Stable Diffusion", other(SD, unet=lambda: unet(
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 64))),
    Layout("Stable Diffusion 3", transformer(
        "StableDiffusion3Pipeline", "SD3Transformer2DModel", num_layers=1)),
    Layout("FLUX.1 (Lotus-2)", transformer(
        "FluxPipeline", "FluxTransformer2DModel", num_layers=1, num_single_layers=1)),
    Layout("FLUX.2", transformer(
        "Flux2Pipeline", "Flux2Transformer2DModel", num_layers=1, num_single_layers=1)),
    Layout("Qwen-Image-Edit (Marigold V2)", transformer(
        "QwenImageEditPlusPipeline", "QwenImageTransformer2DModel", num_layers=1)),
    Layout("Sana", transformer("SanaPipeline", "SanaTransformer2DModel", num_layers=1)),
    Layout("Stable Video Diffusion", other("StableVideoDiffusionPipeline")),
    Layout("a pipeline that nobody knows", other("OurOwnDepthPipeline",
        unet=lambda: unet(in_channels=8))),
    Layout("a VAE of another class", other(SD, vae=lambda: vae("AutoencoderTiny"))),
    Layout("a VAE that shrinks 4 times", other(SD, vae=lambda: vae(
        "AutoencoderKL", block_out_channels=(8, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3))),
    Layout("a VAE that normalizes by channel", other(SD, vae=lambda: vae(
        "AutoencoderKL", latents_mean=[0.0] * 4, latents_std=[1.0] * 4))),
    Layout("ε-prediction without signal at T", other(SD, scheduler=lambda: scheduler(
        "DDIMScheduler", prediction_type="epsilon", rescale_betas_zero_snr=True))),
    Layout("ONNX", other("OnnxStableDiffusionPipeline")),
)  # fmt: skip
NO_FOLDER_OF_DIFFUSERS = (
    Layout("single-file checkpoint", lambda _, folder: files(
        depthfm__ckpt="")(_, folder) / "depthfm.ckpt"),
    Layout("a folder with one (DepthFM, Pixel-Perfect Depth)", files(ppd__pth="")),
    Layout("a quantized one", files(model__gguf="")),
    Layout("LoRA weights (FE2E)", files(pytorch_lora_weights__safetensors="")),
    Layout("LoRA weights as a file", _lora),
    Layout("a file that Git LFS has left", lambda _, folder: files(
        sd__safetensors=LEFT_BY_LFS)(_, folder) / "sd.safetensors"),
    Layout("the hub's cache", _cache),
    Layout("ControlNet alone", files(config__json='{"_class_name": "ControlNetModel"}')),
    Layout("UNet alone", files(config__json='{"_class_name": "UNet2DConditionModel"}')),
    Layout("Depth Anything, of transformers", files(
        config__json='{"architectures": ["DepthAnythingForDepthEstimation"]}')),
    Layout("an ONNX file", files(model__onnx="")),
    Layout("anything else", files(notes__txt="")),
    Layout("a mistyped folder", lambda *_: "./modles/marigold"),
    Layout("a mistyped registered model", lambda *_: "model:/my-depth@champion"),
)  # fmt: skip
BROKEN = (
    Layout("weights left by Git LFS", broken(_pointer(f"unet/{DIFFUSERS_WEIGHTS}"))),
    Layout("a configuration left by Git LFS", broken(_pointer("unet/config.json"))),
    Layout("weights that end early", broken(_cut)),
    Layout("weights that end in zeros", broken(_ending_in_zeros)),
    Layout("weights of whole numbers", broken(_of_whole_numbers)),
    Layout("weights of another shape", broken(_of_another_shape)),
    Layout("a missing tensor", broken(_without_a_tensor)),
    Layout("a missing shard", broken(_without_a_shard)),
    Layout("a missing part", broken(lambda made: shutil.rmtree(made / "text_encoder"))),
    Layout("missing weights", broken(lambda made: (made / "vae" / DIFFUSERS_WEIGHTS).unlink())),
    Layout("weights of Flax", broken(_of_flax)),
    Layout("broken JSON", broken(lambda made: (made / "vae/config.json").write_text("{"))),
    Layout("a broken tokenizer", broken(
        lambda made: next((made / "tokenizer").glob("[tv]o*r.json")).write_text("{}"))),
    Layout("a size that is none", broken(
        lambda made: edit_json(made / "model_index.json", default_processing_resolution="768"))),
    Layout("a size without bound", broken(
        lambda made: edit_json(made / "model_index.json", default_processing_resolution=10**7))),
    Layout("a scale that is no number", broken(
        lambda made: edit_json(made / "vae/config.json", scaling_factor="0.18215"))),
    Layout("no timesteps", broken(lambda made: edit_json(
        made / "scheduler/scheduler_config.json", num_train_timesteps=0))),
    Layout("an empty card", broken(lambda made: (made / CARD_NAME).touch())),
    Layout("a card with a field that is not known", broken(
        lambda made: (made / CARD_NAME).write_text('{"task": "depth", "Steps": 4}'))),
    Layout("a card with a value that is not known", broken(
        lambda made: (made / CARD_NAME).write_text('{"task": "depth", "initial_latent": "ones"}'))),
)  # fmt: skip
SECTIONS = {
    "Taken": TAKEN,
    "Refused: something else": REFUSED,
    "Refused: no folder of diffusers": NO_FOLDER_OF_DIFFUSERS,
    "Refused: broken": BROKEN,
}
