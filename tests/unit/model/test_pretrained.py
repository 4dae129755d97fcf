import copy
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from e2eft.artifacts import ArtifactError
from e2eft.config import ConvInHalving, InitialLatent, ModelConfig, TrainConfig
from e2eft.model.backbones.sd_unet import embed_empty_prompt, widen_conv_in
from e2eft.model.backbones.sd_unet_layout import check_channels
from e2eft.model.blank import blank_unet, blank_vae
from e2eft.model.hub import ModelError
from e2eft.model.layout import save_diffusers
from e2eft.model.pinned import as_input
from e2eft.model.pretrained import (
    export_model,
    load_codec,
    load_estimator,
    require_tensors,
)
from e2eft.model.sound import require_sound
from e2eft.model.source import MODEL_KIND, PACKAGED, find_model
from e2eft.storage import LocalStore
from tests.artifacts import begin
from tests.tiny_models import blank_source, edit_json


def response(unet: UNet2DConditionModel, latents: Tensor) -> Tensor:
    context = torch.full((len(latents), 2, 64), 0.3)
    with torch.no_grad():
        return unet(latents, torch.tensor([999]), encoder_hidden_states=context).sample


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    made = blank_unet()
    with torch.no_grad():
        assert made.conv_in.bias is not None
        made.conv_in.bias.uniform_(-1, 1)
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return blank_source(tmp_path_factory.mktemp("blank") / "blank")


@pytest.mark.parametrize("halving", ["weight", "weight-and-bias"])
def test_conv_in_is_doubled_and_halved(unet: UNet2DConditionModel, halving: ConvInHalving) -> None:
    old = unet.conv_in
    widened = widen_conv_in(copy.deepcopy(unet), halving)
    new = widened.conv_in
    assert (new.in_channels, new.out_channels) == (8, old.out_channels)
    assert (new.kernel_size, new.stride, new.padding) == (old.kernel_size, old.stride, old.padding)
    assert widened.config["in_channels"] == 8
    torch.testing.assert_close(new.weight[:, :4], old.weight / 2, rtol=0, atol=0)
    torch.testing.assert_close(new.weight[:, 4:], old.weight / 2, rtol=0, atol=0)
    assert old.bias is not None and new.bias is not None
    share = 0.5 if halving == "weight-and-bias" else 1.0
    torch.testing.assert_close(new.bias, old.bias * share, rtol=0, atol=0)


def test_equal_halves_give_the_old_output_where_the_bias_is_kept(
    unet: UNet2DConditionModel,
) -> None:
    latent = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    other = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    widened = widen_conv_in(copy.deepcopy(unet), "weight")
    before, after = response(unet, latent), response(widened, torch.cat([latent, latent], dim=1))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    # The two halves add up, so their mean is what counts.
    mixed = response(widened, torch.cat([latent, other], dim=1))
    torch.testing.assert_close(mixed, response(unet, (latent + other) / 2), rtol=1e-4, atol=1e-5)
    halved = widen_conv_in(copy.deepcopy(unet), "weight-and-bias")
    assert not torch.allclose(
        response(halved, torch.cat([latent, latent], dim=1)), before, atol=1e-4
    )


@pytest.mark.parametrize(
    ("initial", "conditional", "channels"),
    [("zeros", True, 8), ("gaussian", True, 8), ("none", True, 4), ("gaussian", False, 4)],
)
def test_the_run_decides_how_many_channels_the_unet_takes(
    source: Any, initial: InitialLatent, conditional: bool, channels: int
) -> None:
    settings = ModelConfig(initial_latent=initial)
    estimator = load_estimator(source, settings, conditional=conditional)
    assert estimator.denoiser.conv_in.in_channels == channels
    assert estimator.card.initial_latent == initial
    rgb = torch.zeros(1, 3, 16, 24)
    if conditional:
        assert estimator(rgb, initial=initial).shape == (1, 3, 16, 24)


def test_an_8_channel_model_is_not_cut_down(source: Any, tmp_path: Path) -> None:
    estimator = load_estimator(source, ModelConfig())
    folder = export_model(estimator, source, tmp_path / "wide", estimator.card)
    wide = find_model(str(folder))
    assert load_estimator(wide, ModelConfig()).denoiser.conv_in.in_channels == 8
    with pytest.raises(ModelError, match=r"takes 8 channels, but this run gives it 4; use an"):
        load_estimator(wide, ModelConfig(initial_latent="none"))
    with pytest.raises(ModelError, match=r"takes 8 channels, but this run gives it 4"):
        load_estimator(wide, ModelConfig(), conditional=False)


def test_an_exported_model_does_not_say_where_it_was_made(source: Any, tmp_path: Path) -> None:
    estimator = load_estimator(source, ModelConfig())
    export_model(estimator, source, tmp_path / "made", estimator.card)
    files = sorted((tmp_path / "made").rglob("*.json"))
    assert len(files) > 5
    for file in files:
        assert str(tmp_path) not in file.read_text() and source.root not in file.read_text(), file


def test_checkpointing_is_switched_on_where_asked(source: Any) -> None:
    settings = ModelConfig(unet_checkpointing=True, decoder_checkpointing=True)
    estimator = load_estimator(source, settings)
    assert estimator.denoiser.is_gradient_checkpointing
    assert estimator.codec.vae.is_gradient_checkpointing
    plain = load_estimator(source, ModelConfig())
    assert not plain.denoiser.is_gradient_checkpointing
    assert not plain.codec.vae.is_gradient_checkpointing


def test_the_vae_is_frozen_and_all_is_fp32(source: Any) -> None:
    estimator = load_estimator(source, ModelConfig())
    assert not any(p.requires_grad for p in estimator.codec.vae.parameters())
    assert all(p.requires_grad for p in estimator.denoiser.parameters())
    modules = (estimator.codec.vae, estimator.denoiser)
    assert {p.dtype for module in modules for p in module.parameters()} == {torch.float32}


def shallow_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=4,
    )


def odd_unet(in_channels: int, out_channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=4,
        layers_per_block=1,
    )


def test_a_vae_of_another_factor_is_refused(source: Any, tmp_path: Path) -> None:
    message = r"its VAE shrinks images 4 times; a factor of 8 is supported"
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))
    shutil.rmtree(folder / "vae")
    save_diffusers(shallow_vae(), folder / "vae")
    with pytest.raises(ModelError, match=message):
        load_estimator(find_model(str(folder)), ModelConfig())


@pytest.mark.parametrize(("takes", "gives"), [(9, 4), (12, 4), (8, 8), (4, 3), (3, 4)])
def test_unets_of_other_channels_are_refused(takes: int, gives: int) -> None:
    with pytest.raises(
        ModelError, match=rf"takes {takes} and gives {gives} channels.*; .* take 4 or 8 and give 4"
    ):
        check_channels("inpainting", odd_unet(takes, gives).config, blank_vae().config)


@pytest.mark.parametrize("takes", [4, 8])
def test_the_right_channels_are_accepted(takes: int) -> None:
    found = check_channels("fits", odd_unet(takes, 4).config, blank_vae().config)
    assert found == (takes, 4)


def test_a_text_encoder_of_another_width_is_refused(source: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))
    shutil.rmtree(folder / "unet")
    save_diffusers(odd_unet(4, 4), folder / "unet")
    with pytest.raises(ModelError, match="text encoder gives 64 features, its UNet takes 8"):
        load_estimator(find_model(str(folder)), ModelConfig())


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_that_end_early_are_one_line(component: str, source: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))
    (weights,) = (folder / component).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=f"cannot load its {component}: ") as error:
        load_estimator(find_model(str(folder)), ModelConfig())
    assert "\n" not in str(error.value)


def test_tensors_are_called_as_stable_diffusion_1_and_2_called_theirs(tmp_path: Path) -> None:
    source = blank_source(tmp_path / "old")
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    )
    shutil.rmtree(tmp_path / "old/vae")
    save_diffusers(vae, tmp_path / "old/vae")
    new = load_estimator(source)
    require_tensors(source)

    def rename(path: Path, old_name: Callable[[str], str], **more: Tensor) -> None:
        state = {old_name(name): tensor for name, tensor in load_file(path).items()}
        save_file(state | more, path, metadata={"format": "pt"})

    def of_attention(name: str) -> str:
        for ours, theirs in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"),
                             ("to_out.0", "proj_attn")):  # fmt: skip
            name = name.replace(f".{ours}.", f".{theirs}.")
        return name

    rename(tmp_path / "old/vae/diffusion_pytorch_model.safetensors", of_attention)
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    rename(tmp_path / "old/text_encoder/model.safetensors", "text_model.{}".format, **positions)
    require_tensors(source)
    old = load_estimator(source)
    assert torch.equal(old.context, new.context)
    rgb = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(old.codec.encode(rgb), new.codec.encode(rgb))


def test_tensors_that_no_configuration_names_are_told(source: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    more = {"class_embedding.weight": torch.zeros(4, 192)}
    save_file(load_file(weights) | more, weights, metadata={"format": "pt"})
    for attempt in (require_tensors, load_estimator):
        with pytest.raises(ModelError, match=r"weights in unet/ also hold class_embedding\.weight"):
            attempt(find_model(str(folder)))


def test_the_empty_prompt_in_two_lengths(source: Any) -> None:
    short, long = embed_empty_prompt(source, 2), embed_empty_prompt(source, 77)
    assert short.shape == (1, 2, 64) and long.shape == (1, 77, 64)
    assert short.dtype == long.dtype == torch.float32 and not short.requires_grad
    # The text model is causal: padding after BOS and EOS does not reach them.
    torch.testing.assert_close(long[:, :2], short, rtol=1e-5, atol=1e-6)
    assert load_estimator(source, ModelConfig(prompt_tokens=77)).context.shape == (1, 77, 64)


def test_a_prompt_of_another_length_is_refused(source: Any) -> None:
    with pytest.raises(ModelError, match="empty prompt is 2 tokens long, expected 3"):
        embed_empty_prompt(source, 3)


def test_names_that_are_no_models(tmp_path: Path) -> None:
    for name in ("./absent", "/absent/model", "word", "a/b/c", "", "owner/", "$HOME/x", "tiny-sd/"):
        said = rf"'{re.escape(name)}' is not there.*{PACKAGED[0]}"
        with pytest.raises(ModelError, match=said):
            find_model(name, tmp_path)
    for name in ("model:/depth@champion", "Models:/depth/1", "runs:/x", "dbfs:/x"):
        with pytest.raises(
            ModelError, match=r"is no registered model's name; .*models:/name@alias"
        ):
            find_model(name, tmp_path)
    with pytest.raises(ModelError, match="'' is not there; give a folder"):
        as_input("", "base")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"neither a finished training run \(manifest\.json\) nor"):
        find_model(str(tmp_path / "empty"))


def test_a_registered_model_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models:/depth@champion is a registered model"):
        find_model("models:/depth@champion", tmp_path)


def test_a_hub_id_is_taken_as_it_is(tmp_path: Path) -> None:
    source = find_model("prs-eth/marigold-depth-v1-0", tmp_path)
    assert source.of("unet") == {
        "pretrained_model_name_or_path": "prs-eth/marigold-depth-v1-0",
        "subfolder": "unet",
    }


def committed_run(folder: Path, source: Any, kind: str = MODEL_KIND) -> LocalStore:
    store = LocalStore(folder)
    config = TrainConfig.model_validate(
        {"base": "blank", "out": str(folder), "task": "depth", "objective": {"kind": "end-to-end"},
         "data": {"uris": ["x"]}}
    )  # fmt: skip
    with begin(store, kind, config) as claim:
        claim.commit(files=claim.writer.put_folder("model", Path(source.root)), counts={})
    return store


def test_a_training_runs_artifact_is_a_model(source: Any, tmp_path: Path) -> None:
    store = committed_run(tmp_path / "run", source)
    for uri in (store.uri, f"file://{store.uri}"):
        found = find_model(uri)
        assert Path(found.root) == tmp_path / "run/model"
        assert json.loads(found.text("model_index.json") or "")["_class_name"]
    load_estimator(find_model(store.uri), ModelConfig())


def test_another_artifact_is_no_model(source: Any, tmp_path: Path) -> None:
    store = committed_run(tmp_path / "labels", source, kind="labels")
    with pytest.raises(ArtifactError, match="is a 'labels' artifact; expected model"):
        find_model(store.uri)


def test_blank_models_of_one_seed_are_equal(tmp_path: Path) -> None:
    weights = "unet/diffusion_pytorch_model.safetensors"
    made = [
        (Path(blank_source(tmp_path / name, seed).root) / weights).read_bytes()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert made[0] == made[1] != made[2]


def test_a_scheduler_that_cannot_be_used_is_named(source: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))
    edit_json(
        folder / "scheduler/scheduler_config.json",
        prediction_type="epsilon", rescale_betas_zero_snr=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match="epsilon prediction is undefined"):
        load_estimator(find_model(str(folder)), ModelConfig())


@pytest.mark.parametrize(
    ("component", "tensor"),
    [("unet", "conv_out.weight"), ("vae", "decoder.conv_out.weight"),
     ("text_encoder", "final_layer_norm.weight")],
)  # fmt: skip
def test_weights_that_are_not_finite_are_refused_by_name(
    component: str, tensor: str, tmp_path: Path
) -> None:
    source = blank_source(tmp_path)
    (file,) = (tmp_path / component).glob("*.safetensors")
    weights = load_file(file)
    weights[next(name for name in weights if name.endswith(tensor))][0] = math.nan
    save_file(weights, file)
    told = rf"weights of its {component} are not all finite \(.*{tensor}"
    with pytest.raises(ModelError, match=told):
        load_estimator(source)
    if component == "vae":
        with pytest.raises(ModelError, match=told):
            load_codec(source)


def fail_to_load(folder: Path, component: str, change: Callable[[dict[str, Tensor]], Any]) -> str:
    """What is said of a model after a change of a component's weights."""
    (file,) = (folder / component).glob("*.safetensors")
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError) as told:
        load_estimator(find_model(str(folder)))
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize(
    ("component", "first", "last"),
    [("unet", 0, 1), ("vae", 1 / 3, 2 / 3), ("text_encoder", 2 / 3, 1)],
)
def test_weights_that_are_zeros_are_refused(
    component: str, first: float, last: float, source: Any, tmp_path: Path
) -> None:
    """All of them, a hole in their middle, and their end."""
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))

    def empty(weights: dict[str, Tensor]) -> None:
        names = sorted(weights)
        for name in names[int(first * len(names)) : int(last * len(names))]:
            weights[name].zero_()

    said = fail_to_load(folder, component, empty)
    assert f"weights of its {component} are zeros where no model has them (" in said
    assert said.endswith("; copy it again")


def test_empty_branches_are_no_damage() -> None:
    """As networks of several kinds begin; the blank VAE's are empty already."""
    unet = blank_unet()
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.startswith("conv_out") or ".conv2." in name or "to_out" in name:
                weight.zero_()
    require_sound("m", "unet", unet)
    require_sound("m", "vae", blank_vae())
    for weight in unet.parameters():
        if weight.ndim > 1:
            weight.data.zero_()
    with pytest.raises(ModelError, match=r"\(61 of its 61 matrices\)"):
        require_sound("m", "unet", unet)


@pytest.mark.parametrize(
    ("component", "tensor"),
    [("unet", "conv_in.weight"), ("vae", "encoder.conv_in.weight"),
     ("text_encoder", "embeddings.position_embedding.weight")],
)  # fmt: skip
def test_a_tensor_of_another_shape_or_kind_is_named(
    component: str, tensor: str, source: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(source.root, tmp_path / "copy"))
    shape: list[int] = []

    def narrow(weights: dict[str, Tensor]) -> None:
        shape.extend(weights[tensor].shape)
        weights[tensor] = weights[tensor][1:].clone()

    said = fail_to_load(folder, component, narrow)
    assert said.endswith(
        f"hold {tensor} of shape {[shape[0] - 1, *shape[1:]]}, but {component}/config.json says "
        f"{shape}; copy both again"
    )

    def round_off(weights: dict[str, Tensor]) -> None:
        weights[tensor] = weights[tensor].to(torch.int8)

    assert f"holds {tensor} as I8; save it unq" in fail_to_load(folder, component, round_off)
    (file,) = (folder / component).glob("*.safetensors")
    pickle = "pytorch_model.bin" if component == "text_encoder" else f"{file.stem}.bin"
    torch.save(load_file(file), file.with_name(pickle))
    file.unlink()
    with pytest.raises(ModelError, match=rf"{pickle} holds {tensor} as int8; save it unquantized"):
        load_estimator(find_model(str(folder)))
