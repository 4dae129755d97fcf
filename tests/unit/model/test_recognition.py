"""What the text files of a model say: each is what belongs there, and fits the others."""

import json
import math
from typing import Any

import pytest

from e2eft.model.backbones.base import Recognized
from e2eft.model.card import CARD_NAME
from e2eft.model.components import INDEX
from e2eft.model.hub import ModelError
from e2eft.model.recognition import recognize
from e2eft.model.source import ModelSource, find_model

LEFT_BY_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
SCHEDULER = "scheduler/scheduler_config.json"
BOM = "\ufeff"
Texts = dict[str, str | None]


def found(texts: Texts, given: str = "") -> Recognized:
    """The packaged Marigold with these files in the place of its own."""
    source = find_model("tiny-marigold-depth")
    own: Texts = {CARD_NAME: None}

    def read(path: str) -> str | None:
        return (own | texts)[path] if path in own | texts else source.text(path)

    return recognize("m", read, given)


def changed(path: str, **settings: Any) -> Texts:
    source: ModelSource = find_model("tiny-marigold-depth")
    content = json.loads(source.text(path) or "") | settings
    return {path: json.dumps({k: v for k, v in content.items() if v is not ...})}


@pytest.mark.parametrize(
    ("path", "key", "values"),
    [
        ("vae/config.json", "scaling_factor", ("x", [1.0], 0, -1, math.nan, 1e30, True, None)),
        ("vae/config.json", "shift_factor", ("x", math.inf)),
        (SCHEDULER, "num_train_timesteps", (0, -1, 1000.0, "1000", 10**9)),
        (SCHEDULER, "beta_start", (math.nan, -0.1, 2, "0", None)),
        (SCHEDULER, "beta_end", (math.inf, [0.1])),
        (SCHEDULER, "steps_offset", (-1, 1000, 0.5)),
        (SCHEDULER, "trained_betas", ([0.1], "x", [math.nan] * 1000)),
        (INDEX, "default_denoising_steps", (0, 1001, 1.5)),
        (INDEX, "default_processing_resolution", (1, 4097, 10**7, "768", False, 0.0)),
    ],
)
def test_a_number_that_cannot_be_computed_with_is_named(
    path: str, key: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(ModelError, match=rf"{path} (says|has) {key} .*; (put|copy) it") as told:
            found(changed(path, **{key: value}))
        assert "\n" not in str(told.value)


def test_numbers_that_are_left_out_are_the_librarys() -> None:
    of_schedulers = ("steps_offset", "beta_start", "num_train_timesteps")
    of_vaes = ("scaling_factor", "shift_factor")
    for path, keys in (("vae/config.json", of_vaes), (SCHEDULER, of_schedulers)):
        assert found(changed(path, **dict.fromkeys(keys, ...))).timesteps == 1000
    for size in (0, 8, 4096, None):
        card = found(changed(INDEX, default_processing_resolution=size)).card
        assert card.processing_size == (size or 0)
    assert found(changed(SCHEDULER, trained_betas=[0.01] * 1000)).timesteps == 1000


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"unet": ["my_unet", "MyUNet"]}, "UNet is not diffusers' UNet2DConditionModel, but"),
        ({"unet": ["my_unet", "UNet2DConditionModel"]}, "UNet is not diffusers' UNet2DCond"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "VAE is not diffusers' AutoencoderKL, but"),
        ({"vae": [None, None]}, "VAE is not diffusers' AutoencoderKL, but [null, null]"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "not transformers' CLIPTextModel"),
        ({"tokenizer": ["transformers", "T5Tokenizer"]}, "not transformers' CLIPTokenizer"),
        ({"scheduler": ["diffusers", "LCMScheduler"]}, "is a consistency model"),
        ({"scheduler": ["mine", "MyScheduler"]}, "a scheduler that is not known (MyScheduler)"),
        *(({part: ["diffusers", "X"]}, f"a model with a {part} (X) beside the parts of Stable")
          for part in ("controlnet", "unet_2", "image_encoder", "text_encoder_2")),
    ],
)  # fmt: skip
def test_an_index_that_names_other_parts_is_refused(entries: dict[str, Any], said: str) -> None:
    for given in ("", '{"task": "depth"}'):
        with pytest.raises(ModelError) as told:
            found(changed(INDEX, **entries), given)
        assert said in str(told.value) and "taken are " in str(told.value)


def test_what_changes_no_image_may_be_in_an_index() -> None:
    for entries in (
        {"scheduler": ["diffusers", "PNDMScheduler"]},
        {"tokenizer": ["transformers", "CLIPTokenizerFast"]},
        {"image_encoder": [None, None], "requires_safety_checker": True},
        {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
         "feature_extractor": ["transformers", "CLIPImageProcessor"]},
        {"text_encoder": ...},
    ):  # fmt: skip
        assert found(changed(INDEX, **entries)).card.task == "depth"
    unnamed = changed(SCHEDULER, _class_name=...)
    assert found(unnamed).timesteps == 1000
    with pytest.raises(ModelError, match=r"does not say its _class_name; copy it again"):
        found(unnamed | changed(INDEX, scheduler=...))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({CARD_NAME: ""}, "e2eft.json is empty; copy it again"),
        ({CARD_NAME: BOM + "\n"}, "e2eft.json is empty; copy it again"),
        ({CARD_NAME: LEFT_BY_LFS}, "e2eft.json is a pointer of Git LFS; run `git lfs pull` there"),
        ({INDEX: ""}, "model_index.json is empty; copy it again"),
        ({"vae/config.json": BOM + "{}"}, "byte-order mark, which diffusers does not read; save"),
        ({"tokenizer/merges.txt": LEFT_BY_LFS, "tokenizer/tokenizer.json": None},
         "tokenizer/merges.txt is a pointer of Git LFS"),
        ({"tokenizer/special_tokens_map.json": LEFT_BY_LFS}, "map.json is a pointer of Git"),
    ],
)  # fmt: skip
def test_a_text_file_that_is_not_what_belongs_there_is_named(texts: Texts, said: str) -> None:
    vocabulary: Texts = {"tokenizer/vocab.json": "{}"}
    with pytest.raises(ModelError) as told:
        found(vocabulary | texts)
    assert said in str(told.value)


def test_a_byte_order_mark_is_no_part_of_a_card_or_an_index() -> None:
    index = find_model("tiny-marigold-depth").text(INDEX) or ""
    card = BOM + '{"task": "depth", "steps": 3}'
    assert found({INDEX: BOM + index}).card.processing_size == 160
    assert found({CARD_NAME: card}).card.steps == found({}, card).card.steps == 3


def test_what_stable_diffusion_predicts_its_scheduler_says() -> None:
    with pytest.raises(ModelError, match="its card says predicts 'residual', but of Stable"):
        found({}, '{"task": "depth", "predicts": "residual"}')


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_quantized_part_is_named(part: str) -> None:
    for quantized, method in (
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao"}, "torchao"),
        ("int8", "quantization_config"),
    ):
        with pytest.raises(ModelError, match=rf"load its {part}: it is quantized \({method}\)"):
            found(changed(f"{part}/config.json", quantization_config=quantized))
