import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from e2eft.config import (
    Autoencoding,
    Config,
    DataConfig,
    Diffusion,
    EndToEnd,
    EvaluateConfig,
    LabelConfig,
    ScheduleConfig,
    TrainConfig,
    require_multiple,
)
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig

HEAVY = ("torch", "ray", "deepspeed", "diffusers", "mlflow", "transformers", "mitsuba", "pyarrow")
INDOOR = SyntheticSource(family="indoor")


def train_config(**fields: Any) -> TrainConfig:
    known: dict[str, Any] = {
        "base": "tiny-sd",
        "out": "runs/1",
        "task": "depth",
        "objective": EndToEnd(),
        "data": DataConfig(uris=("shards/a",)),
    }
    return TrainConfig(**known | fields)


EXAMPLES: list[Config] = [
    PrepareConfig(out="x", source=INDOOR, frames_per_part=7),
    train_config(),
    train_config(objective=Diffusion(conditional=False)),
    train_config(objective=Autoencoding(depth_share=0.3), seed=9),
    train_config(data=DataConfig(uris=("a", "b"), weights=(9.0, 1.0))),
    LabelConfig(model="m", images="i", out="o", task="normals"),
    EvaluateConfig(out="o", task="depth", data=("d",), model="m"),
]


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: type(config).__name__)
def test_json_round_trip_is_exact_and_keeps_the_digest(config: Config) -> None:
    again = type(config).model_validate_json(config.model_dump_json())
    assert again == config and again.digest() == config.digest()
    assert type(config).model_validate(config.model_dump(mode="json")) == config


def test_digests_tell_configurations_apart() -> None:
    assert len({config.digest() for config in EXAMPLES}) == len(EXAMPLES)


def test_the_digest_is_sha256_of_canonical_json() -> None:
    config = EXAMPLES[0]
    canonical = json.dumps(config.identity(), sort_keys=True, separators=(",", ":"))
    assert config.digest() == hashlib.sha256(canonical.encode()).hexdigest()
    assert config.identity()["source"]["family"] == "indoor"
    assert "tracking" not in config.identity()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (PrepareConfig, {"out": "y"}),
        (PrepareConfig, {"overwrite": True}),
        (PrepareConfig, {"cpus_per_task": 4.0}),
        (TrainConfig, {"out": "y"}),
        (TrainConfig, {"overwrite": True}),
        (TrainConfig, {"tracking": {"enabled": False}}),
        (TrainConfig, {"panel": {"frames": 0}}),
        (TrainConfig, {"checkpoint": {"every_steps": 1}}),
        (TrainConfig, {"data": {"uris": ("shards/a",), "decode_threads": 9}}),
        (TrainConfig, {"data": {"uris": ("moved/a",)}}),
        (TrainConfig, {"base": "moved/base"}),
        (TrainConfig, {"scaling": {"num_workers": 4}}),
        (TrainConfig, {"scaling": {"hang_timeout_s": 9.0}}),
        (LabelConfig, {"out": "y"}),
        (LabelConfig, {"batch_size": 99, "actors": 8}),
        (LabelConfig, {"model": "n"}),
        (EvaluateConfig, {"out": "y"}),
        (EvaluateConfig, {"batch_size": 99}),
    ],
)
def test_where_and_how_fast_are_no_part_of_what(kind: type[Config], change: Any) -> None:
    config = next(example for example in EXAMPLES if isinstance(example, kind))
    changed = kind.model_validate(config.model_dump() | change)
    assert changed != config
    assert changed.identity() == config.identity() and changed.digest() == config.digest()


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        (PrepareConfig, {"frames_per_part": 8}, "frames_per_part"),
        (TrainConfig, {"seed": 1}, "seed"),
        (TrainConfig, {"task": "normals"}, "task"),
        (TrainConfig, {"data": {"uris": ("shards/a", "shards/b")}}, "data"),
        (TrainConfig, {"checkpoint": {"ema_decay": 0.9}}, "checkpoint"),
        (LabelConfig, {"images": "j"}, "images"),
        (LabelConfig, {"save_npy": True}, "save_npy"),
        (EvaluateConfig, {"max_depth_m": 10.0}, "max_depth_m"),
    ],
)
def test_what_changes_the_artifact_changes_the_identity(
    kind: type[Config], change: Any, field: str
) -> None:
    config = next(example for example in EXAMPLES if isinstance(example, kind))
    changed = kind.model_validate(config.model_dump() | change)
    before, after = config.identity(), changed.identity()
    assert {name for name in before if before[name] != after[name]} == {field}
    assert changed.digest() != config.digest()


def test_people_see_inputs_and_hardware_and_no_places_of_outputs() -> None:
    shown = train_config(tracking={"tracking_uri": "http://me:secret@host"}).parameters()
    assert (shown["base"], shown["data"]["uris"]) == ("tiny-sd", ["shards/a"])
    assert shown["zero"] == {"stage": 2, "precision": "fp32", "offload_optimizer": False}
    assert shown["scaling"]["num_workers"] == 1 and shown["optimizer"]["lr"] == 3e-5
    assert not {"out", "tracking", "panel", "register_as"} & {*shown}


def test_configurations_are_frozen_and_strict() -> None:
    config = train_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        ScheduleConfig(steps=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="Extra inputs"):
        train_config(objective={"kind": "end-to-end", "noise": "gaussian"})


@given(value=st.integers(1, 10_000))
def test_multiples_are_suggested_around_the_value(value: int) -> None:
    if value % 8 == 0:
        require_multiple("height", value)
        return
    low, high = value // 8 * 8, value // 8 * 8 + 8
    with pytest.raises(
        ValueError, match=f"--height {value} is not a multiple .* 8; use {low} or {high}"
    ):
        require_multiple("height", value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": DataConfig()}, "--data is missing: give at least one shards URI"),
        (
            {"batch": {"global_size": 30, "micro_size": 4}},
            "--batch 30 is not a multiple of --micro-batch 4 x --num-workers 1 = 4; use --batch 32",
        ),
        (
            {"batch": {"global_size": 8, "micro_size": 4}, "scaling": {"num_workers": 3}},
            "--batch 8 is not a multiple of --micro-batch 4 x --num-workers 3 = 12; use --batch 12",
        ),
        # DeepSpeed has no such mode.
        (
            {"zero": {"stage": 0, "precision": "bf16"}},
            "--zero-stage 0 with --precision bf16 .*; use --zero-stage 1",
        ),
    ],
)
def test_training_checks_across_fields(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        train_config(**fields)


def test_accumulation_follows_from_batch_and_workers() -> None:
    batch = {"global_size": 24, "micro_size": 3}
    for workers, steps in ((1, 8), (2, 4), (4, 2), (8, 1)):
        config = train_config(batch=batch, scaling={"num_workers": workers})
        assert config.accumulation_steps == steps


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": (1.0,)}, "--weight is given 1 times but --data 2 times"),
        ({"max_depth_m": (1.0, 2.0, 3.0)}, "--max-depth is given 3 times but --data 2 times"),
        ({"max_depth_m": (0.0,)}, "greater than 0"),
        ({"weights": (1.0, 0.0)}, r"--weight \(1.0, 0.0\) must all be positive"),
        ({"flip_probability": 1.5}, "less than or equal to 1"),
        ({"limit": 0}, "greater than 0"),
    ],
)
def test_data_checks(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(uris=("a", "b"), **fields)


@pytest.mark.parametrize("given", [65, 65.0, (65.0,), [65.0, 65.0]])
def test_one_range_counts_for_all_datasets(given: Any) -> None:
    """A number is what configurations had when a run had one range."""
    config = DataConfig.model_validate({"uris": ("a", "b"), "max_depth_m": given})
    assert config.max_depth_m == (65.0, 65.0)
    assert DataConfig(uris=("a", "b")).max_depth_m == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": ()}, "--data is missing"),
        ({"model": None}, "give either --model or --labels"),
        ({"labels": ("l",)}, "give either --model or --labels"),
        ({"model": None, "labels": ("l", "k")}, "--labels is given 2 times but --data 1 times"),
        ({"model": None, "labels": ("l",), "register_as": "m"}, "--register needs --model"),
    ],
)
def test_evaluation_checks(fields: Any, message: str) -> None:
    known: dict[str, Any] = {"out": "o", "task": "depth", "data": ("d",), "model": "m"}
    with pytest.raises(ValidationError, match=message):
        EvaluateConfig(**known | fields)


def test_a_size_is_native_or_given() -> None:
    known: dict[str, Any] = {"model": "m", "images": "i", "out": "o", "task": "depth"}
    with pytest.raises(ValidationError, match="--native-size and --processing-size 64 exclude"):
        LabelConfig(**known, native_size=True, processing_size=64)


def test_configuration_and_recipes_load_nothing_heavy() -> None:
    """On a login node without any of it, `--help` and the checks still answer, and at once."""
    code = (
        "import json, sys; import e2eft.config, e2eft.recipes, e2eft.cli\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert {"e2eft", "pydantic", "tyro"} <= loaded
    assert not loaded & {*HEAVY, "numpy", "boto3"}
