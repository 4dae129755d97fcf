"""What is exported is what diffusers' own Marigold pipelines run; and released layouts load here.

Weights are random: these tests are about conventions, not about quality. Peers are the pipelines
of the installed diffusers. Tolerance: 1e-5 of a depth range of 1, the fp32 rounding of two
different orders of the same sums; normals 1e-4.
"""

import json
import shutil
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, MarigoldDepthPipeline, MarigoldNormalsPipeline
from safetensors.torch import load_file
from torch import Tensor

from e2eft.config import InitialLatent, ModelConfig
from e2eft.model.backbones.sd_unet import widen_conv_in, write_model_index
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.estimator import Estimator
from e2eft.model.hub import ModelError
from e2eft.model.inference import pad_to_multiple
from e2eft.model.layout import save_diffusers
from e2eft.model.prediction import initial_latent
from e2eft.model.pretrained import export_model, load_estimator
from e2eft.model.source import find_model, recognized
from e2eft.tasks import get_task
from tests.tiny_models import blank_source, edit_json, lively

HEIGHT, WIDTH = 48, 72
ODD_HEIGHT, ODD_WIDTH = 45, 67
SEEDS = [11, 12]


def export(folder: Path, task: str, initial: InitialLatent = "zeros", **options: Any) -> Path:
    source, estimator = lively(folder / "blank", ModelConfig(initial_latent=initial))
    card = ModelCard(task, initial_latent=initial, processing_size=64)
    return export_model(estimator, source, folder / "exported", card, **options)


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("depth"), "depth")


@pytest.fixture(scope="module")
def normals_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("normals"), "normals")


def loaded_here(folder: Path) -> Estimator:
    return load_estimator(find_model(str(folder)))


def pipeline_of(kind: Any, folder: Path, *, set_alpha_to_one: bool, **options: Any) -> Any:
    pipeline = kind.from_pretrained(folder, **options)
    config = {**pipeline.scheduler.config, "set_alpha_to_one": set_alpha_to_one}
    pipeline.scheduler = type(pipeline.scheduler).from_config(config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Two smooth images in [0, 1]: `[2 3 h w]`."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = [torch.sin(a * x + b * y + c) for a, b, c in ((9, 2, 0), (3, 11, 1), (5, -7, 2))]
    return torch.stack([torch.stack(waves), torch.stack(waves).flip(-1, 0)]) / 2 + 0.5


def starts(kind: InitialLatent, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    latents = initial_latent(kind, (4, -(-height // 8), -(-width // 8)), SEEDS)
    assert latents is not None
    return latents


@torch.no_grad()
def predicted_here(
    estimator: Estimator, task: str, images: Tensor, initial: InitialLatent, steps: int
) -> np.ndarray:
    height, width = images.shape[-2:]
    rgb = pad_to_multiple(images * 2 - 1, 8)
    made = estimator(rgb, steps=steps, initial=initial, seeds=SEEDS)[..., :height, :width]
    columns = get_task(task).label(get_task(task).decode(made))
    return next(iter(columns.values()))


def predicted_there(pipeline: Any, images: Tensor, latents: Tensor, steps: int) -> np.ndarray:
    """`[n h w]` or `[n h w 3]`. Resolution 0 leaves the images at their own size."""
    answer = pipeline(
        images, num_inference_steps=steps, latents=latents, batch_size=2, processing_resolution=0
    )
    return answer.prediction.squeeze(-1) if answer.prediction.shape[-1] == 1 else answer.prediction


CASES = [("zeros", 1), ("gaussian", 1), ("gaussian", 4), ("pyramid", 2)]


@pytest.mark.parametrize(("initial", "steps"), CASES)
def test_diffusers_gives_the_same_depth(
    depth_folder: Path, initial: InitialLatent, steps: int
) -> None:
    pipeline = pipeline_of(MarigoldDepthPipeline, depth_folder, set_alpha_to_one=True)
    there = predicted_there(pipeline, picture(), starts(initial), steps)
    here = predicted_here(loaded_here(depth_folder), "depth", picture(), initial, steps)
    assert here.shape == there.shape == (2, HEIGHT, WIDTH)
    # The depth varies, within an image and between images, so agreement means something.
    assert here.std(axis=(1, 2)).min() > 0.02 and np.abs(here[0] - here[1]).mean() > 0.02
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_sizes_that_are_no_multiple_of_8_are_padded_alike(depth_folder: Path) -> None:
    images = picture(ODD_HEIGHT, ODD_WIDTH)
    pipeline = pipeline_of(MarigoldDepthPipeline, depth_folder, set_alpha_to_one=True)
    latents = starts("zeros", ODD_HEIGHT, ODD_WIDTH)
    there = predicted_there(pipeline, images, latents, 1)
    here = predicted_here(loaded_here(depth_folder), "depth", images, "zeros", 1)
    assert here.shape == there.shape == (2, ODD_HEIGHT, ODD_WIDTH)
    np.testing.assert_allclose(here, there, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("initial", "steps"), [("zeros", 1), ("gaussian", 4)])
def test_as_exported_they_differ_by_the_last_steps_prev_sample(
    depth_folder: Path, initial: InitialLatent, steps: int
) -> None:
    """The pipelines decode a_0 x_0 + s_0 eps, training and we decode x_0: for each parameter known.

    Stable Diffusion's configuration has `set_alpha_to_one` false, so their last step goes to t = 0.
    """
    pipeline = pipeline_of(MarigoldDepthPipeline, depth_folder, set_alpha_to_one=False)
    estimator = loaded_here(depth_folder)
    answer = pipeline(
        picture(), num_inference_steps=steps, latents=starts(initial), batch_size=2,
        processing_resolution=0, output_latent=True,
    )  # fmt: skip
    rgb = picture() * 2 - 1
    clean = estimator.latent(rgb, steps=steps, initial=initial, seeds=SEEDS)

    image_latent, x_t = estimator.codec.encode(rgb), starts(initial)
    grid = estimator.schedule.sigmas(steps, "trailing")
    for sigma, sigma_next in pairwise(grid):
        before = estimator.one_step(image_latent, x_t, sigma)
        both = torch.tensor([sigma, sigma]), torch.tensor([sigma_next, sigma_next])
        x_t = estimator.schedule.ddim_step(before, x_t, *both)
    last, zero = torch.tensor([grid[-1]] * 2), torch.tensor([0.001, 0.001])
    stated = estimator.schedule.ddim_step(clean, x_t, last, zero)
    torch.testing.assert_close(answer.latent, stated, rtol=1e-5, atol=1e-5)
    assert (answer.latent - clean).abs().max() > 1e-4

    decoded = get_task("depth").decode(estimator.codec.decode(stated)).numpy()
    np.testing.assert_allclose(answer.prediction[..., 0], decoded, atol=1e-5)
    if (initial, steps) == ("zeros", 1):
        # From zeros both are multiples of v: -0.99525 and -0.99767.
        torch.testing.assert_close(
            answer.latent, clean * (0.99525 / 0.997667), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("initial", "steps"), [("zeros", 1), ("gaussian", 4)])
def test_diffusers_gives_the_same_normals(
    normals_folder: Path, initial: InitialLatent, steps: int
) -> None:
    pipeline = pipeline_of(MarigoldNormalsPipeline, normals_folder, set_alpha_to_one=True)
    there = predicted_there(pipeline, picture(), starts(initial), steps)
    here = predicted_here(loaded_here(normals_folder), "normals", picture(), initial, steps)
    assert here.shape == there.shape == (2, HEIGHT, WIDTH, 3)
    assert np.abs(here).reshape(-1, 3).std(axis=0).min() > 0.02
    # Theirs: x right, y up, z towards the viewer. Ours are OpenCV's.
    there_opencv = there * np.array([1, -1, -1])
    # They clip the image to [-1, 1] before they normalize it, and the paper doesn't.
    image = image_of(normals_folder, initial, steps)
    alike = (np.abs(image).max(axis=-1) < 1) & (np.linalg.norm(image, axis=-1) > 0.1)
    assert alike.mean() > 0.2
    np.testing.assert_allclose(here[alike], there_opencv[alike], atol=1e-4)


@torch.no_grad()
def test_normals_with_half_of_z_are_read_as_diffusers_reads_them(
    normals_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(normals_folder, tmp_path / "half"))
    (folder / CARD_NAME).unlink()
    edit_json(folder / "model_index.json", use_full_z_range=False)
    pipeline = pipeline_of(MarigoldNormalsPipeline, folder, set_alpha_to_one=True)
    there = predicted_there(pipeline, picture(), starts("gaussian"), 1) * np.array([1, -1, -1])
    estimator = loaded_here(folder)
    task = get_task("normals").read_from(estimator.card.axes, estimator.card.full_z_range)
    image = estimator(picture() * 2 - 1, initial="gaussian", seeds=SEEDS)
    (here,) = task.label(task.decode(image)).values()
    alike = image.abs().amax(1).numpy() < 1
    assert alike.mean() > 0.2 and here[alike][:, 2].max() <= 0
    np.testing.assert_allclose(here[alike], there[alike], atol=1e-4)
    (whole,) = get_task("normals").label(get_task("normals").decode(image)).values()
    assert np.abs(whole[alike] - here[alike]).max() > 0.1


@torch.no_grad()
def image_of(folder: Path, initial: InitialLatent, steps: int) -> np.ndarray:
    rgb = picture() * 2 - 1
    image = loaded_here(folder)(rgb, steps=steps, initial=initial, seeds=SEEDS)
    return image.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("task", "pipeline"),
    [("depth", "MarigoldDepthPipeline"), ("normals", "MarigoldNormalsPipeline")],
)
def test_what_an_export_says_of_itself(
    task: str, pipeline: str, depth_folder: Path, normals_folder: Path
) -> None:
    folder = {"depth": depth_folder, "normals": normals_folder}[task]
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == pipeline
    assert index["default_denoising_steps"] == 1
    assert index["default_processing_resolution"] == 64
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert scheduler["timestep_spacing"] == "trailing"
    assert scheduler["prediction_type"] == "v_prediction" and not scheduler["clip_sample"]
    assert loaded_here(folder).card == recognized(find_model(str(folder))).card
    assert loaded_here(folder).card == ModelCard(task, initial_latent="zeros", processing_size=64)


def test_the_base_itself_stays_leading(tmp_path: Path) -> None:
    folder = Path(blank_source(tmp_path / "blank").root)
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert scheduler["timestep_spacing"] == "leading"


def test_an_fp16_export_loads_and_is_near(tmp_path: Path, depth_folder: Path) -> None:
    folder = export(tmp_path, "depth", half=True)
    for component in ("unet", "vae"):
        state = load_file(folder / component / "diffusion_pytorch_model.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    estimator = loaded_here(folder)
    assert {p.dtype for p in estimator.denoiser.parameters()} == {torch.float32}
    here = predicted_here(estimator, "depth", picture(), "zeros", 1)
    full = predicted_here(loaded_here(depth_folder), "depth", picture(), "zeros", 1)
    assert 0 < np.abs(here - full).max() < 0.02
    pipeline = pipeline_of(MarigoldDepthPipeline, folder, set_alpha_to_one=True)
    there = predicted_there(pipeline, picture(), starts("zeros"), 1)
    np.testing.assert_allclose(here, there, atol=1e-5)
    half = MarigoldDepthPipeline.from_pretrained(folder, dtype=torch.float16)
    assert half.unet.dtype == half.vae.dtype == half.text_encoder.dtype == torch.float16


@pytest.fixture
def released_e2e(tmp_path: Path) -> Path:
    """The layout of the models that arXiv 2409.11355 released: no card, DDPM, an image pipeline."""
    source, estimator = lively(tmp_path / "released")
    folder = Path(source.root)
    shutil.rmtree(folder / "unet")
    save_diffusers(estimator.denoiser, folder / "unet")
    config = {**estimator.schedule.scheduler.config, "timestep_spacing": "trailing"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DDPMScheduler.from_config(config).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline" and not (folder / CARD_NAME).exists()
    edit_json(folder / "model_index.json", scheduler=["diffusers", "DDPMScheduler"])
    return folder


def test_a_released_e2e_model_starts_from_zeros(released_e2e: Path) -> None:
    estimator = loaded_here(released_e2e)
    assert estimator.card.initial_latent == "zeros"
    assert (estimator.card.steps, estimator.card.spacing) == (1, "trailing")
    assert estimator.context.shape == (1, 2, 64)
    rgb, sigma = picture() * 2 - 1, torch.ones(2)
    with torch.no_grad():
        image_latent = estimator.codec.encode(rgb)
        output = estimator.denoise(image_latent, 0 * image_latent, sigma)
        clean = estimator.latent(rgb, initial=estimator.card.initial_latent)
    torch.testing.assert_close(clean, -0.997667 * output, rtol=1e-5, atol=1e-6)


def test_a_released_marigold_starts_from_gaussian_noise(released_e2e: Path) -> None:
    for task, pipeline in (
        ("depth", "MarigoldDepthPipeline"),
        ("normals", "MarigoldNormalsPipeline"),
    ):
        write_model_index(released_e2e, pipeline)
        card = loaded_here(released_e2e).card
        assert (card.task, card.initial_latent) == (task, "gaussian")


def test_a_plain_stable_diffusion_is_an_image_model(tmp_path: Path) -> None:
    source = blank_source(tmp_path / "sd")
    assert load_estimator(source).card == ModelCard(task="image", initial_latent="none")


def test_a_card_is_read_and_what_a_newer_version_adds_is_named(
    depth_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(depth_folder, tmp_path / "copy"))
    edit_json(folder / CARD_NAME, prompt_tokens=77)
    estimator = loaded_here(folder)
    assert estimator.card.prompt_tokens == 77 and estimator.context.shape == (1, 77, 64)
    edit_json(folder / CARD_NAME, invented_later=3)
    with pytest.raises(ModelError, match='"invented_later" is no field of a card; they are task'):
        loaded_here(folder)


@pytest.mark.parametrize("component", ["unet", "vae", "scheduler", "tokenizer", "text_encoder"])
def test_a_missing_component_is_named(depth_folder: Path, tmp_path: Path, component: str) -> None:
    folder = Path(shutil.copytree(depth_folder, tmp_path / "copy"))
    shutil.rmtree(folder / component)
    with pytest.raises(ModelError, match=rf"{folder}.*cannot load its {component}\b"):
        loaded_here(folder)


def test_weights_that_are_no_weights_are_named(depth_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(depth_folder, tmp_path / "copy"))
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 1000)
    with pytest.raises(ModelError, match="cannot load its unet"):
        loaded_here(folder)


def test_a_widened_export_reads_back_its_channels(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    from e2eft.model.blank import blank_unet

    save_diffusers(widen_conv_in(blank_unet(), "weight"), tmp_path / "unet")
    again = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    assert again.config["in_channels"] == again.conv_in.in_channels == 8
