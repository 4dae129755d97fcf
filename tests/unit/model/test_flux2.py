"""FLUX.2 klein: as diffusers' own pipeline runs it, through the estimator that everything uses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from e2eft import cli
from e2eft.config import ModelConfig, SamplingConfig
from e2eft.model.backbones.flux2 import (
    FlowSchedule,
    Flux2Codec,
    image_ids,
    text_ids,
    write_text_context,
)
from e2eft.model.backbones.flux2_layout import CONTEXT
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.codec import ImageSizeError
from e2eft.model.estimator import Estimator
from e2eft.model.hub import ModelError
from e2eft.model.inference import PreparedImage, predict
from e2eft.model.layout import save_diffusers
from e2eft.model.parametrization import Flow
from e2eft.model.pinned import as_input, pin_model, require_all_weights, require_task
from e2eft.model.pretrained import export_model, load_codec, load_estimator, require_tensors
from e2eft.model.source import find_model, recognized_at
from e2eft.prepare.latents import open_codec
from e2eft.tasks import get_task
from tests.frames import write_analytic_shards
from tests.tiny_flux2 import (
    IN_PLACE,
    REFERENCE,
    TEXT_TOKENS,
    TEXT_WIDTH,
    tiny_transformer,
    write_tiny_flux2,
)
from tests.tiny_models import edit_json

HEIGHT, WIDTH = 64, 80
ROWS, COLUMNS = HEIGHT // 16, WIDTH // 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_flux2(tmp_path_factory.mktemp("flux2") / "model")


@pytest.fixture(scope="module")
def estimator(folder: Path) -> Estimator:
    return load_estimator(find_model(str(folder)))


def images(count: int = 2) -> Tensor:
    """Of whole steps of 1/255, as files have them."""
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=generator)
    return levels.float() / 127.5 - 1


def carded(folder: Path, target: Path, card: ModelCard) -> Path:
    shutil.copytree(folder, target)
    (target / CARD_NAME).write_text(json.dumps(card.as_json()))
    return target


class Recorder(torch.nn.Module):
    """The denoiser, and what it was asked."""

    def __init__(self, denoiser: Any) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.asked: list[dict[str, Any]] = []

    def forward(self, **asked: Any) -> Any:
        self.asked.append(asked)
        return self.denoiser(**asked)


def recording(estimator: Estimator) -> tuple[Estimator, Recorder]:
    recorder = Recorder(estimator.denoiser)
    made = Estimator(estimator.codec, recorder, estimator.call, estimator.schedule, estimator.card)
    return made, recorder


@pytest.mark.parametrize("reference", [True, False])
@torch.no_grad()
def test_one_step_is_what_diffusers_pipeline_makes(
    reference: bool, folder: Path, estimator: Estimator
) -> None:
    """The same tokens, places, time and text, and the same image. Where the image is in the place
    of the noise, the pipeline is given its latent for that."""
    asked: list[dict[str, Any]] = []
    transformer = estimator.denoiser
    pipeline: Any = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
        vae=estimator.codec.vae,
        text_encoder=None,  # type: ignore[arg-type]
        tokenizer=None,  # type: ignore[arg-type]
        transformer=transformer,
        is_distilled=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    rgb = images(1)
    picture = Image.fromarray(((rgb[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy())
    noise = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(7))
    start = noise if reference else estimator.codec.encode(rgb)
    handle = transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: asked.append(kwargs), with_kwargs=True
    )
    try:
        theirs = pipeline(
            image=picture if reference else None,
            prompt_embeds=estimator.context,
            latents=Flux2KleinPipeline._patchify_latents(start),
            height=HEIGHT,
            width=WIDTH,
            num_inference_steps=1,
            output_type="pt",
        ).images
        ours = estimator(rgb, initial="gaussian" if reference else "none", seeds=[7])
    finally:
        handle.remove()
    there, here = asked
    torch.testing.assert_close(here["hidden_states"], there["hidden_states"], atol=1e-5, rtol=1e-5)
    assert here["hidden_states"].shape[1] == ROWS * COLUMNS * (2 if reference else 1)
    for ids in ("img_ids", "txt_ids"):
        assert torch.equal(here[ids], there[ids][0]), ids
    assert torch.equal(here["timestep"], there["timestep"]) and here["timestep"].tolist() == [1.0]
    assert torch.equal(here["encoder_hidden_states"], there["encoder_hidden_states"])
    assert here["guidance"] is None and there["guidance"] is None
    wanted = (ours / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(wanted, theirs, atol=1e-5, rtol=1e-5)
    assert float(theirs.std()) > 0.05


def test_places_are_those_of_diffusers_helpers() -> None:
    pipeline: Any = Flux2KleinPipeline
    latents = torch.zeros(2, 16, 3, 5)
    assert torch.equal(image_ids(3, 5, 0), pipeline._prepare_latent_ids(latents)[0])
    theirs = pipeline._prepare_image_ids([latents[:1], latents[:1, :, :2]])[0]
    assert torch.equal(torch.cat([image_ids(3, 5, 10), image_ids(2, 5, 20)]), theirs)
    assert torch.equal(text_ids(7), pipeline._prepare_text_ids(torch.zeros(2, 7, 4))[1])


@torch.no_grad()
def test_latents_are_normalized_as_diffusers_does_and_back(estimator: Estimator) -> None:
    codec = estimator.codec
    assert isinstance(codec, Flux2Codec)
    assert (codec.factor, codec.size_multiple, codec.channels) == (8, 16, 4)
    latent = codec.encode(images())
    assert latent.shape == (2, 4, HEIGHT // 8, WIDTH // 8)
    pipeline: Any = Flux2KleinPipeline
    bare = SimpleNamespace(vae=codec.vae, _patchify_latents=pipeline._patchify_latents)
    theirs = pipeline._encode_vae_image(bare, images(), None)
    torch.testing.assert_close(pipeline._patchify_latents(latent), theirs, rtol=1e-5, atol=1e-5)
    raw = codec.vae.encode(images()).latent_dist.mean
    torch.testing.assert_close(codec.normalizer.denormalize(latent), raw, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(codec.normalizer.normalize(raw), latent, rtol=1e-5, atol=1e-5)
    assert float((raw - latent).abs().mean()) > 0.1


@pytest.mark.parametrize("card", [REFERENCE, IN_PLACE])
@torch.no_grad()
def test_a_batch_is_its_images(card: ModelCard, folder: Path, tmp_path: Path) -> None:
    made = load_estimator(find_model(str(carded(folder, tmp_path / "m", card))))
    together = made.run(images(), SamplingConfig(), [1, 2])
    assert together.shape == (2, 3, HEIGHT, WIDTH) and together.isfinite().all()
    for number in range(2):
        alone = made.run(images()[number : number + 1], SamplingConfig(), [number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-4, atol=1e-5)
    assert float((together[0] - together[1]).abs().mean()) > 0.01


@torch.no_grad()
def test_where_the_image_enters(estimator: Estimator) -> None:
    """As a reference behind the target's tokens, or in the place of those."""
    made, recorder = recording(estimator)
    latent = made.codec.encode(images())
    packed = Flux2KleinPipeline._pack_latents(Flux2KleinPipeline._patchify_latents(latent))
    for initial in ("zeros", "none"):
        made.latent(images(), initial=initial)  # type: ignore[arg-type]
    reference, in_place = (asked["hidden_states"] for asked in recorder.asked)
    tokens = ROWS * COLUMNS
    assert not reference[:, :tokens].any() and torch.equal(reference[:, tokens:], packed)
    assert torch.equal(in_place, packed)
    assert recorder.asked[0]["img_ids"][:, 0].tolist() == [0] * tokens + [10] * tokens
    assert recorder.asked[1]["img_ids"][:, 0].tolist() == [0] * tokens


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        (REFERENCE, lambda image, output: -output),
        (IN_PLACE, lambda image, output: image - output),
        (ModelCard("depth", initial_latent="zeros", predicts="sample"), lambda _, output: output),
        (
            ModelCard("depth", initial_latent="zeros", predicts="residual"),
            lambda image, output: image - output,
        ),
    ],
)
@torch.no_grad()
def test_the_card_says_what_the_output_means(
    card: ModelCard, wanted: Callable[[Tensor, Tensor], Tensor], folder: Path, tmp_path: Path
) -> None:
    made = load_estimator(find_model(str(carded(folder, tmp_path / "m", card))))
    image = made.codec.encode(images())
    target = None if card.initial_latent == "none" else torch.zeros_like(image)
    output = made.denoise(image, target, torch.ones(2))
    clean = made.latent(images(), initial=card.initial_latent)
    torch.testing.assert_close(clean, wanted(image, output), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_bf16_transformer_is_told_the_time_in_fp32(folder: Path) -> None:
    made, recorder = recording(load_estimator(find_model(str(folder))))
    made.denoiser.bfloat16()
    latent = made.codec.encode(images())
    output = made.denoise(latent, latent, torch.tensor([0.3, 1.0]))
    asked = recorder.asked[0]
    assert asked["timestep"].dtype == torch.float32 and asked["timestep"].tolist() != [0.3, 1.0]
    torch.testing.assert_close(asked["timestep"], torch.tensor([0.3, 1.0]), rtol=0, atol=0)
    assert asked["hidden_states"].dtype == asked["encoder_hidden_states"].dtype == torch.bfloat16
    assert output.dtype == torch.float32 and output.shape == latent.shape


def test_gradients_reach_the_transformer_only(folder: Path) -> None:
    made = load_estimator(find_model(str(folder)))
    made(images()).square().mean().backward()
    assert any(p.grad is not None and p.grad.any() for p in made.denoiser.parameters())
    assert all(p.grad is None for p in made.codec.vae.parameters())


def test_images_of_any_size_are_labelled(estimator: Estimator) -> None:
    generator = np.random.default_rng(0)
    prepared = [
        PreparedImage(generator.integers(0, 256, (*size, 3), np.uint8), size, number)
        for number, size in enumerate([(20, 37), (33, 16), (20, 37)])
    ]
    task = get_task("depth", max_depth_m=80.0)
    made = predict(estimator, task, prepared, SamplingConfig())
    assert [label.shape for label in made] == [(20, 37), (33, 16), (20, 37)]
    with pytest.raises(ImageSizeError, match="multiples of the VAE's factor 8 times the 2 latents"):
        estimator.codec.encode(torch.zeros(1, 3, 24, 32))


def test_more_than_one_step_is_refused(estimator: Estimator) -> None:
    with pytest.raises(ValueError, match=r"--steps 2: FLUX\.2 is run in 1"):
        estimator(images(), steps=2)
    line = FlowSchedule(Flow())
    a, s = line.coefficients(torch.tensor([0.25, 1.0]))
    assert a.flatten().tolist() == [0.75, 0.0] and s.flatten().tolist() == [0.25, 1.0]


def test_it_is_fixed_to_its_bytes_with_its_text(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    name = str(copy)
    model = pin_model(name, name, name, tmp_path)
    assert (model.card, model.sees_image, model.timesteps) == (REFERENCE, True, 1)
    require_task(model, "depth")
    require_tensors(model.source)
    stored = as_input(f"file://{copy}", "model").digest
    assert model.digest == as_input(name, "model").digest == stored
    (copy / "text_encoder").mkdir()
    (copy / "text_encoder/config.json").write_text("{}")
    assert as_input(name, "model").digest == as_input(f"file://{copy}", "model").digest == stored
    save_file({"embeds": torch.zeros(1, TEXT_TOKENS, TEXT_WIDTH)}, copy / CONTEXT)
    assert as_input(name, "model").digest != model.digest
    assert as_input(f"file://{copy}", "model").digest == as_input(name, "model").digest


def test_the_codecs_digest_is_of_its_encoder_and_statistics(folder: Path) -> None:
    codec = load_codec(find_model(str(folder)))
    digest = codec.digest()
    with torch.no_grad():
        codec.vae.decoder.conv_out.weight.add_(1)
        assert codec.digest() == digest
        codec.vae.bn.running_var.add_(1)
    assert codec.digest() != digest


@torch.no_grad()
def test_an_export_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    source = find_model(str(folder))
    made = load_estimator(source)
    again = export_model(made, source, tmp_path / "again", made.card)
    read = load_estimator(find_model(str(again)))
    assert read.card == made.card and torch.equal(read.context, made.context)
    assert torch.equal(read(images()), made(images()))


def index_says(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "model_index.json", **entries)


def config_says(part: str, **entries: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / part / "config.json", **entries)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (index_says(_class_name="Flux2Pipeline"), "is FLUX.2, a diffusion transformer with flow"),
        (index_says(vae=["diffusers", "AutoencoderKL"]), "vae is not diffusers' AutoencoderKLFl"),
        (index_says(controlnet=["diffusers", "X"]), "a controlnet (X) beside the parts of FLUX.2"),
        (config_says("transformer", guidance_embeds=True), "a scale of guidance (guidance_embeds)"),
        (config_says("transformer", guidance_embeds=None), "a scale of guidance (guidance_embeds)"),
        (config_says("transformer", in_channels=4), "takes 4 and gives 4 channels; with this VAE"),
        (config_says("transformer", patch_size=2), "packs latents itself (patch_size)"),
        (config_says("transformer", _class_name="FluxTransformer2DModel"), "transformer is a Flux"),
        (config_says("transformer", quantization_config={"quant_method": "q"}), "is quantized (q)"),
        (config_says("vae", block_out_channels=[4, 4]), "shrinks images 2 times; a factor of 8"),
        (config_says("vae", patch_size=[1, 1]), "VAE packs other than 2 x 2 latents"),
        (config_says("vae", batch_norm_eps="x"), "batch_norm_eps 'x', which is no number"),
        (config_says("vae", latent_channels=None), "vae/config.json does not say latent_channels"),
        (lambda f: edit_json(f / CARD_NAME, steps=4), "its card says steps 4; FLUX.2 is run in 1"),
        (
            lambda f: edit_json(f / "scheduler/scheduler_config.json", num_train_timesteps=100),
            "is a model of 100 timesteps",
        ),
        (lambda f: (f / CONTEXT).unlink(), "text_context.safetensors is missing, the embedded"),
    ],
)  # fmt: skip
def test_what_is_no_klein_is_refused(
    spoil: Callable[[Path], None], said: str, folder: Path, tmp_path: Path
) -> None:
    copy = str(shutil.copytree(folder, tmp_path / "copy"))
    spoil(Path(copy))
    with pytest.raises(ModelError) as told:
        pin_model(copy, copy, copy, tmp_path)
    assert said in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(ModelError) as told:
        load_estimator(find_model(copy))
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"other": torch.zeros(1)}, "is no tensor 'embeds'"),
        ({"embeds": torch.zeros(1, 5, 8)}, "is of shape [1, 5, 8]; its transformer takes [1, tok"),
        ({"embeds": torch.full((1, 5, TEXT_WIDTH), torch.nan)}, "is not finite; write it anew"),
        (None, "is no tensor 'embeds'"),
    ],
)
def test_a_text_context_that_is_none_is_named(
    tensors: dict[str, Tensor] | None, said: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    if tensors is None:
        (copy / CONTEXT).write_bytes(b"no tensors")
    else:
        save_file(tensors, copy / CONTEXT)
    with pytest.raises(ModelError) as told:
        load_estimator(find_model(str(copy)))
    assert said in str(told.value)


def test_weights_of_another_transformer_are_told(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    save_diffusers(tiny_transformer(num_layers=2), tmp_path / "deeper")
    shutil.copy(tmp_path / "deeper/config.json", copy / "transformer")
    for attempt in (require_tensors, load_estimator):
        with pytest.raises(ModelError, match="the weights in transformer/ lack transformer_blocks"):
            attempt(find_model(str(copy)))
    next((copy / "transformer").glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"load its transformer: .* is missing; copy it again"):
        require_all_weights(find_model(str(copy)))


def test_without_a_card_it_is_an_image_model(folder: Path, tmp_path: Path) -> None:
    copy = str(shutil.copytree(folder, tmp_path / "copy"))
    (Path(copy) / CARD_NAME).unlink()
    model = pin_model(copy, copy, copy, tmp_path)
    with pytest.raises(ModelError, match=r"\(its transformer does not see an image\); nor is it a"):
        require_task(model, "depth")


@pytest.mark.parametrize("has_card", [True, False])
def test_training_refuses_it_before_anything_is_claimed(
    has_card: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    if not has_card:
        (base / CARD_NAME).unlink()
    data = write_analytic_shards(str(tmp_path / "data"), 2, height=16, width=24).uri
    out = tmp_path / "out"
    argv = ["tiny-depth", "--base", str(base), "--data", data, "--out", str(out), "--no-tracking"]
    assert cli.run_stage("train", argv) == cli.STAGE_ERROR
    printed = capsys.readouterr().err
    assert "is FLUX.2 klein" in printed and "which `e2eft train` does not take" in printed
    assert len(printed.splitlines()) == 1 and not out.exists()
    assert recognized_at(str(base)).backbone == "flux2"
    with pytest.raises(ModelError, match="`e2eft train` does not take"):
        load_estimator(find_model(str(base)), ModelConfig())
    with pytest.raises(ModelError, match=r"--latents-of .* for training, which does not take such"):
        open_codec(str(base))


def test_the_empty_prompt_is_embedded_once_by_the_folders_own_encoder(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / CONTEXT).unlink()
    with pytest.raises(ModelError, match=r"cannot load its text_encoder: .* is missing"):
        write_text_context(copy)
    encoder, tokenizer = tiny_qwen(copy)
    shutil.move(copy / "tokenizer", tmp_path / "tokenizer")
    with pytest.raises(ModelError, match="its tokenizer has no chat template; copy it again"):
        write_text_context(copy)
    shutil.move(tmp_path / "tokenizer", copy / "tokenizer")
    write_text_context(copy)
    made = load_estimator(find_model(str(copy)))
    embed: Any = Flux2KleinPipeline._get_qwen3_prompt_embeds
    with torch.no_grad():
        wanted = embed(encoder, tokenizer, "")
    assert made.context.shape == (1, 512, TEXT_WIDTH)
    torch.testing.assert_close(made.context, wanted)


def tiny_qwen(folder: Path) -> tuple[Any, Any]:
    """A text encoder and a tokenizer of single bytes, in a model's folder."""
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), "<|endoftext|>"]
    tokenizer: Any = Qwen2Tokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH // 3,
        intermediate_size=8,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=512,
    )
    encoder = Qwen3ForCausalLM(config).eval()
    encoder.save_pretrained(folder / "text_encoder")
    return encoder, tokenizer
