"""Others' models, and broken ones: what becomes of each layout of the zoo."""

from pathlib import Path

import diffusers
import pytest

from tests import model_zoo
from tests.model_layouts import BROKEN, NO_FOLDER_OF_DIFFUSERS, REFUSED, SECTIONS, TAKEN
from tests.model_zoo import PAGE

Found = dict[str, tuple[str, str]]
LABELS = {
    "Stable Diffusion 2": "is a plain image model",
    "Stable Diffusion 1": "is a plain image model",
    "Stable Diffusion, from image to image": "is a plain image model",
    "Marigold depth": "**depth**: from gaussian, 4 steps, longest side 768",
    "Marigold depth, from before diffusers had it": "**depth**: from gaussian, 1 step, own size",
    "Marigold normals": "**normals** (right-up-viewer): from gaussian, 4 steps, longest side 768",
    "Marigold normals with half of z": "**normals** (right-up-viewer): from gaussian, 1 step",
    "E2E-FT, depth or normals": "**depth or normals** (left-up-viewer): from zeros, 1 step",
    "a model of `e2eft train`": "**depth**: from zeros, 1 step, longest side 640",
    "Marigold, `fp16` variants only": "**depth**: from gaussian",
    "Marigold, weights in shards": "**depth**: from gaussian",
    "Marigold, pickled weights (`.bin`)": "**depth**: from gaussian",
    "InstructPix2Pix": "is an InstructPix2Pix model, which edits images",
    "InstructPix2Pix, as Stable Diffusion": "predicts epsilon (EulerAncestralDiscreteScheduler",
    "E2E-FT's UNet with another scheduler": "v_prediction (DDIMScheduler, leading spacing), unlike",
    "a UNet of another's code": 'UNet is not diffusers\' UNet2DConditionModel, but ["my_unet", ',
    "a ControlNet beside it": "a model with a controlnet (ControlNetModel) beside the parts of",
    "a sampler for few steps, by its index": "is a consistency model, distilled to few steps (LCM",
    "a quantized UNet": "cannot load its unet: it is quantized (bitsandbytes); save it unquantized",
    "a schedule that DDIM has not": "noise that is not known (beta_schedule sigmoid)",
    "Marigold intrinsic images (IID)": "is Marigold's model of intrinsic images (IID)",
    "Marigold for disparity": "is a Marigold model of disparity, not of depth",
    "Marigold LCM": "is a consistency model, distilled to few steps (LCMScheduler)",
    "Lotus, by its pipeline's name": "is a Lotus model (LotusGPipeline)",
    "Lotus, as Stable Diffusion": "with class embeddings, as Lotus's and GeoWizard's",
    "GeoWizard": "is a GeoWizard model",
    "StableNormal": "is a StableNormal model",
    "DepthMaster": "is a DepthMaster model",
    "GenPercept": "is a GenPercept model",
    "a UNet trained by flow matching": "is a model of flow matching",
    "the same, with a sampler's flag": "is a model of flow matching",
    "Stable Diffusion LCM": "is a latent consistency model (LCM)",
    "a UNet distilled with guidance": "distilled with guidance (LCM) (time_cond_proj_dim 64)",
    "a sampler for few steps": "is a consistency model",
    "inpainting": "is an inpainting model",
    "inpainting, as Stable Diffusion": "takes 9 and gives 4 channels, as inpainting models do",
    "upscaler": "is an upscaler",
    "depth-guided Stable Diffusion": "is an image model that is guided by depth",
    "ControlNet pipeline": "is an image model with a network that steers it",
    "image variations": "is an image model that is given an image's CLIP embedding",
    "Stable Diffusion XL": "is Stable Diffusion XL",
    "its UNet, as Stable Diffusion": "with additional embeddings, as Stable Diffusion XL's",
    "Stable Diffusion 3": "is Stable Diffusion 3, a diffusion transformer with flow matching",
    "FLUX.1 (Lotus-2)": "is FLUX.1 (Lotus-2's base)",
    "FLUX.2": "is FLUX.2",
    "Qwen-Image-Edit (Marigold V2)": "is Qwen-Image (Marigold V2's base)",
    "Sana": "is a diffusion transformer (SanaPipeline)",
    "Stable Video Diffusion": "is a video model",
    "a pipeline that nobody knows": "not known (model_index.json says OurOwnDepthPipeline)",
    "a VAE of another class": "is a model whose VAE is an AutoencoderTiny",
    "a VAE that shrinks 4 times": "its VAE shrinks images 4 times; a factor of 8 is supported",
    "a VAE that normalizes by channel": "whose VAE normalizes latents otherwise (latents_mean)",
    "ε-prediction without signal at T": "epsilon prediction is undefined at t = T-1",
    "ONNX": "is an ONNX export",
    "single-file checkpoint": "a single-file checkpoint (depthfm.ckpt); convert it",
    "a folder with one (DepthFM, Pixel-Perfect Depth)": "a single-file checkpoint (ppd.pth)",
    "a quantized one": "a quantized single-file checkpoint (model.gguf)",
    "LoRA weights (FE2E)": "LoRA weights alone; fuse them",
    "LoRA weights as a file": "is LoRA weights alone; fuse them into their model with diffusers",
    "a file that Git LFS has left": "is a pointer of Git LFS (sd.safetensors); run `git lfs pull`",
    "the hub's cache": "of the hub's cache; give the model in it, it/snapshots/1a2b",
    "ControlNet alone": "a ControlNet alone (ControlNetModel)",
    "UNet alone": "a UNet alone (UNet2DConditionModel)",
    "Depth Anything, of transformers": "of transformers (DepthAnythingForDepthEstimation)",
    "an ONNX file": "an ONNX export (model.onnx)",
    "anything else": "neither a finished training run (manifest.json) nor a model in diffusers",
    "a mistyped folder": "is not there; give a folder, a run's URI, a hub id",
    "a mistyped registered model": "is no registered model's name; give a folder, a run's URI, a",
    "weights left by Git LFS": "unet/diffusion_pytorch_model.safetensors is a pointer of Git LFS",
    "a configuration left by Git LFS": "unet/config.json is a pointer of Git LFS; run `git lfs",
    "weights that end early": "unet/diffusion_pytorch_model.safetensors is damaged",
    "weights that end in zeros": "weights of its unet are zeros where no model has them (all of ",
    "weights of whole numbers": "holds conv_in.weight as I8; save it unquantized, as F32",
    "weights of another shape": "hold conv_in.weight of shape [48, 4, 3, 3], but unet/config.json "
    "says [48, 8, 3, 3]; copy both again",
    "a missing tensor": "the weights in unet/ lack conv_in.weight, other than unet/config.json",
    "a missing shard": "00002-of-00002.safetensors is missing, which",
    "a missing part": "text_encoder/config.json is missing; copy the whole folder again",
    "missing weights": "vae/diffusion_pytorch_model.safetensors is missing; copy it again",
    "weights of Flax": "vae/diffusion_flax_model.msgpack is of a format that is not read; save",
    "broken JSON": "vae/config.json is no JSON (",
    "a broken tokenizer": "cannot load its tokenizer: tokenizer/ is broken (",
    "a size that is none": "default_processing_resolution '768', which is no whole number from 8",
    "a size without bound": "default_processing_resolution 10000000, which is no whole number from",
    "a scale that is no number": "scaling_factor '0.18215', which is no number from 0.0001 to",
    "no timesteps": "num_train_timesteps 0, which is no whole number from 1 to 100000",
    "an empty card": "e2eft.json is empty; copy it again",
    "a card with a field that is not known": 'e2eft.json: "Steps" is no field of a card; they',
    "a card with a value that is not known": "initial_latent \"ones\" should be 'zeros'",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return model_zoo.outcomes(tmp_path_factory.mktemp("zoo"))


def test_every_layout_is_taken_or_named(found: dict[str, Found]) -> None:
    said = {title: pair for section in found.values() for title, pair in section.items()}
    assert said.keys() == LABELS.keys()
    wrong = {t: said[t][0] for t, wanted in LABELS.items() if wanted not in said[t][0]}
    assert not wrong
    assert not [pair for pair in said.values() if "\n" in "".join(pair)]


def test_what_is_no_estimator_is_no_base_either(found: dict[str, Found]) -> None:
    taken, *refused = found.values()
    assert all(base.startswith("**taken**: ") for _, base in taken.values())
    assert all(base == labels for section in refused for labels, base in section.values())
    assert [len(section) for section in found.values()] == [
        len(layouts) for layouts in (TAKEN, REFUSED, NO_FOLDER_OF_DIFFUSERS, BROKEN)
    ] == [len(layouts) for layouts in SECTIONS.values()]  # fmt: skip


def test_the_page_is_what_the_zoo_says(found: dict[str, Found]) -> None:
    assert PAGE.read_text() == model_zoo.page(found), "python -m tests.model_zoo"


def test_pipelines_are_called_as_diffusers_calls_them() -> None:
    theirs = set(dir(diffusers))
    for name in ("StableDiffusionInstructPix2PixPipeline", "MarigoldIntrinsicsPipeline",
                 "LatentConsistencyModelPipeline", "QwenImageEditPlusPipeline", "Flux2Pipeline",
                 "StableDiffusionDepth2ImgPipeline", "OnnxStableDiffusionPipeline"):  # fmt: skip
        assert name in theirs


def test_the_page_names_no_place_of_a_machine() -> None:
    assert str(Path.home()) not in PAGE.read_text() and "/tmp" not in PAGE.read_text()
