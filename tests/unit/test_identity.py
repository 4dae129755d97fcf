"""What every field of every configuration means for an artifact, and what is said where two
configurations differ."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from e2eft import cli
from e2eft.config import (
    Config,
    EvaluateConfig,
    LabelConfig,
    StageConfig,
    TrainConfig,
    differences,
    refusal,
    rounding_differences,
)
from e2eft.config.base import (
    PLACEMENT,
    RESULT,
    ROUNDING,
    ChosenBy,
    Role,
    configs_of,
    is_input,
    role_of,
)
from e2eft.config.flags import flag_of, typed
from e2eft.prepare import PrepareConfig

TRACKING = {
    "tracking.tracking_uri": PLACEMENT,
    "tracking.experiment": PLACEMENT,
    "tracking.enabled": PLACEMENT,
}
SAMPLING = {
    "sampling.steps": RESULT,
    "sampling.spacing": RESULT,
    "sampling.initial_latent": RESULT,
    "sampling.seed": RESULT,
}
ROLES: dict[str, dict[str, Role]] = {
    "prepare": {
        "out": PLACEMENT,
        "source.synthetic.kind": RESULT,
        "source.synthetic.family": RESULT,
        "source.synthetic.num_scenes": RESULT,
        "source.synthetic.frames_per_scene": RESULT,
        "source.synthetic.height": RESULT,
        "source.synthetic.width": RESULT,
        "source.synthetic.seed": RESULT,
        "source.synthetic.samples_per_pixel": RESULT,
        "source.hypersim.kind": RESULT,
        "source.hypersim.root": PLACEMENT,
        "source.hypersim.split_csv": RESULT,
        "source.hypersim.camera_csv": RESULT,
        "source.hypersim.split": RESULT,
        "source.hypersim.keep_list": RESULT,
        "source.hypersim.scenes": RESULT,
        "source.hypersim.intrinsics": RESULT,
        "source.hypersim.height": RESULT,
        "source.hypersim.width": RESULT,
        "source.virtual-kitti-2.kind": RESULT,
        "source.virtual-kitti-2.root": PLACEMENT,
        "source.virtual-kitti-2.selection": RESULT,
        "source.virtual-kitti-2.scenes": RESULT,
        "source.virtual-kitti-2.variations": RESULT,
        "source.virtual-kitti-2.frames_per_sequence": RESULT,
        "source.virtual-kitti-2.benchmark_crop": RESULT,
        "source.virtual-kitti-2.normal_planes": RESULT,
        "source.nyuv2.kind": RESULT,
        "source.nyuv2.root": PLACEMENT,
        "source.nyuv2.frame_list": RESULT,
        "source.nyuv2.depth": RESULT,
        "source.kitti-eigen.kind": RESULT,
        "source.kitti-eigen.root": PLACEMENT,
        "source.kitti-eigen.frame_list": RESULT,
        "source.kitti-eigen.benchmark_crop": RESULT,
        "source.eth3d.kind": RESULT,
        "source.eth3d.root": PLACEMENT,
        "source.eth3d.frame_list": RESULT,
        "source.scannet.kind": RESULT,
        "source.scannet.root": PLACEMENT,
        "source.scannet.frame_list": RESULT,
        "source.diode.kind": RESULT,
        "source.diode.root": PLACEMENT,
        "source.diode.frame_list": RESULT,
        "source.ibims-1.kind": RESULT,
        "source.ibims-1.root": PLACEMENT,
        "source.ibims-1.frame_list": RESULT,
        "source.sintel.kind": RESULT,
        "source.sintel.root": PLACEMENT,
        "source.sintel.render_pass": RESULT,
        "source.normal-maps.kind": RESULT,
        "source.normal-maps.dataset": RESULT,
        "source.normal-maps.root": PLACEMENT,
        "source.normal-maps.frame_list": RESULT,
        "source.diode-normals.kind": RESULT,
        "source.diode-normals.root": PLACEMENT,
        "source.diode-normals.frame_list": RESULT,
        "frames_per_part": RESULT,
        "max_reject_fraction": PLACEMENT,
        "cpus_per_task": PLACEMENT,
        "latents_of": PLACEMENT,
        "vae_digest": RESULT,
        "latent_actors": PLACEMENT,
        "overwrite": PLACEMENT,
        "single_writer": PLACEMENT,
        "take_over": PLACEMENT,
        **TRACKING,
    },
    "train": {
        "base": PLACEMENT,
        "out": PLACEMENT,
        "task": RESULT,
        "depth_target": RESULT,
        "objective.end-to-end.kind": RESULT,
        "objective.end-to-end.losses": RESULT,
        "objective.diffusion.kind": RESULT,
        "objective.diffusion.conditional": RESULT,
        "objective.diffusion.noise": RESULT,
        "objective.diffusion.timestep_skew": RESULT,
        "objective.diffusion.single_step_share": RESULT,
        "objective.diffusion.latent_cache": ROUNDING,
        "objective.autoencoding.kind": RESULT,
        "objective.autoencoding.kl_weight": RESULT,
        "objective.autoencoding.value_weight": RESULT,
        "objective.autoencoding.gradient_weight": RESULT,
        "objective.autoencoding.depth_error_weight": RESULT,
        "objective.autoencoding.depth_share": RESULT,
        "objective.autoencoding.normals_share": RESULT,
        "model.initial_latent": RESULT,
        "model.prompt_tokens": RESULT,
        "model.conv_in_halving": RESULT,
        "model.unet_checkpointing": PLACEMENT,
        "model.decoder_checkpointing": PLACEMENT,
        "data.uris": PLACEMENT,
        "data.weights": RESULT,
        "data.flip_probability": RESULT,
        "data.max_depth_m": RESULT,
        "data.shuffle_window": RESULT,
        "data.decode_threads": PLACEMENT,
        "data.keep_gb": PLACEMENT,
        "data.limit": RESULT,
        "batch.global_size": RESULT,
        "batch.micro_size": RESULT,
        "optimizer.lr": RESULT,
        "optimizer.beta1": RESULT,
        "optimizer.beta2": RESULT,
        "optimizer.weight_decay": RESULT,
        "optimizer.eps": RESULT,
        "optimizer.clip_norm": RESULT,
        "schedule.max_steps": RESULT,
        "schedule.warmup_steps": RESULT,
        "schedule.final_lr_ratio": RESULT,
        "zero.stage": ROUNDING,
        "zero.precision": ROUNDING,
        "zero.offload_optimizer": ROUNDING,
        "scaling.num_workers": ROUNDING,
        "scaling.cpus_per_worker": ROUNDING,
        "scaling.use_gpu": ROUNDING,
        "scaling.hang_timeout_s": PLACEMENT,
        "scaling.max_failures": PLACEMENT,
        "checkpoint.every_steps": PLACEMENT,
        "checkpoint.keep": PLACEMENT,
        "checkpoint.ema_decay": RESULT,
        "export_half": RESULT,
        "panel.every_steps": PLACEMENT,
        "panel.frames": PLACEMENT,
        "panel.uris": PLACEMENT,
        "seed": RESULT,
        "register_as": PLACEMENT,
        "overwrite": PLACEMENT,
        "single_writer": PLACEMENT,
        "take_over": PLACEMENT,
        **TRACKING,
    },
    "label": {
        "model": PLACEMENT,
        "model_card": PLACEMENT,
        "card_digest": RESULT,
        "images": RESULT,
        "out": PLACEMENT,
        "task": RESULT,
        **SAMPLING,
        "processing_size": RESULT,
        "native_size": RESULT,
        "save_npy": RESULT,
        "save_previews": RESULT,
        "images_per_part": RESULT,
        "batch_size": ROUNDING,
        "actors": ROUNDING,
        "decode_cpus": PLACEMENT,
        "max_pixels": RESULT,
        "max_reject_fraction": PLACEMENT,
        "gallery_images": PLACEMENT,
        "retry": PLACEMENT,
        "overwrite": PLACEMENT,
        "single_writer": PLACEMENT,
        "take_over": PLACEMENT,
        **TRACKING,
    },
    "evaluate": {
        "out": PLACEMENT,
        "task": RESULT,
        "data": PLACEMENT,
        "model": PLACEMENT,
        "model_card": PLACEMENT,
        "card_digest": RESULT,
        "labels": PLACEMENT,
        "labels_kind": RESULT,
        "labels_axes": RESULT,
        "labels_pattern": RESULT,
        **SAMPLING,
        "protocol": RESULT,
        "processing_px": RESULT,
        "max_depth_m": RESULT,
        "bootstrap": RESULT,
        "batch_size": ROUNDING,
        "actors": ROUNDING,
        "scoring_tasks": PLACEMENT,
        "frames_per_task": PLACEMENT,
        "panels": RESULT,
        "register_as": PLACEMENT,
        "overwrite": PLACEMENT,
        "single_writer": PLACEMENT,
        "take_over": PLACEMENT,
        **TRACKING,
    },
}
INPUTS = {
    "prepare": set[str](),
    "train": {"base", "data.uris"},
    "label": {"model"},
    "evaluate": {"data", "model", "labels"},
}
"""URIs: the claim records digests of what they held."""

KINDS: dict[str, type[Config]] = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "label": LabelConfig,
    "evaluate": EvaluateConfig,
}
COMMANDS = {
    "prepare": {
        "synthetic": "synthetic-indoor --out o",
        "hypersim": "hypersim-paper --out o --root r --split-csv s",
        "virtual-kitti-2": "virtual-kitti-2 --out o --root r",
        "nyuv2": "nyuv2 --out o --root r",
        "kitti-eigen": "kitti-eigen --out o --root r --list l",
        "eth3d": "eth3d --out o --root r --list l",
        "scannet": "scannet --out o --root r --list l",
        "diode": "diode --out o --root r",
        "ibims-1": "ibims-1 --out o --root r",
        "sintel": "sintel --out o --root r",
        "normal-maps": "nyuv2-normals --out o --root r",
        "diode-normals": "diode-normals --out o --root r",
    },
    "train": {
        "end-to-end": "tiny-depth --out o --data d --batch 96",
        "diffusion": "base-depth-diffusion --out o --data d --base b",
        "autoencoding": "base-autoencoder --out o --data d",
    },
    "label": {"images": "depth --out o --images i --model m"},
    "evaluate": {
        "model": "synthetic-depth --out o --data d --model m",
        "labels": "synthetic-depth --out o --data d --labels l",
    },
}
"""By what the configuration has: a kind of source or objective, a model or labels."""
OTHERS: dict[str, Any] = {
    "vae_digest": "0f",
    "source.synthetic.height": 488,
    "source.synthetic.width": 648,
    "source.hypersim.height": 488,
    "source.hypersim.width": 648,
    "source.hypersim.scenes": ["ai_001_001", "ai_001_002"],
    "source.virtual-kitti-2.scenes": ["Scene01", "Scene20"],
    "source.virtual-kitti-2.variations": ["fog"],
    "objective.diffusion.timestep_skew": 3.5,
    "objective.end-to-end.losses": [{"kind": "gradient-matching", "weight": 0.5, "scales": 2}],
    "depth_target": {"kind": "log", "eps_m": 0.01},
    "data.weights": [2.5],
    "data.max_depth_m": [40.0],
    "processing_px": [1088],
    "batch.global_size": 192,
    "batch.micro_size": 16,
    "zero.stage": 3,
    "scaling.num_workers": 1,
    "panel.uris": ["a b", "c"],
}
"""Where half as much, one more or another letter will not do."""
LEAVES = [(stage, path) for stage in ROLES for path in ROLES[stage] if not path.endswith(".kind")]


def leaves(kind: type[Config], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field that is no configuration, below each of those that a field may hold."""
    for name, field in kind.model_fields.items():
        nested = configs_of(field)
        for one in nested:
            member = f"{one.model_fields['kind'].default}." if len(nested) > 1 else ""
            yield from leaves(one, f"{prefix}{name}.{member}")
        if not nested:
            yield f"{prefix}{name}", field


@pytest.mark.parametrize("stage", ROLES)
def test_every_field_of_every_configuration_has_the_role_it_should(stage: str) -> None:
    found = dict(leaves(KINDS[stage]))
    assert {path: role_of(field) for path, field in found.items()} == ROLES[stage]
    assert {path for path, field in found.items() if is_input(field)} == INPUTS[stage]


def test_a_field_without_a_role_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.size has the roles \[\]: a field needs one"):

        class Forgetful(Config):  # pyright: ignore[reportUnusedClass]
            size: int = 3

    with pytest.raises(TypeError, match=r"Nested\.part has the roles \[<Role"):

        class Part(Config):
            size: Annotated[int, RESULT] = 3

        class Nested(Config):  # pyright: ignore[reportUnusedClass]
            part: Annotated[Part, PLACEMENT] = Part()


def names(path: str) -> list[str]:
    """The path without the kind of source or objective."""
    first, *rest = path.split(".")
    return [first, *(rest[1:] if first in ("source", "objective") else rest)]


def command_of(stage: str, path: str) -> str:
    """What to name for a configuration that has the field at `path`."""
    wanted = path.split(".")[1] if path.startswith(("source.", "objective.")) else path
    return wanted if wanted in COMMANDS[stage] else next(iter(COMMANDS[stage]))


@cache
def parsed(stage: str, command: str) -> StageConfig:
    return cli.parse(stage, shlex.split(COMMANDS[stage][command]))


def with_other(config: StageConfig, path: str, value: Any) -> StageConfig:
    tree = place = config.model_dump(mode="json")
    *groups, name = names(path)
    for group in groups:
        place = place[group]
    assert place[name] != value
    place[name] = value
    return type(config).model_validate(tree)


def other_value(config: StageConfig, path: str) -> Any:
    """What the field at `path` may be and is not."""
    if path in OTHERS:
        return OTHERS[path]
    value: Any = config
    for name in names(path):
        value = getattr(value, name)
    kinds = plain(dict(leaves(type(config)))[path].annotation)
    if choices := [one for one in kinds if isinstance(one, str | int) and one != value]:
        return choices[0]
    if bool in kinds:
        return not value
    if float in kinds:
        return 0.5 if value is None else value / 2 + 0.01
    if int in kinds:
        return (value or 6) + 1
    return [f"{one} more" for one in value] if isinstance(value, tuple) else f"{value} more"


def plain(annotation: Any) -> list[Any]:
    """The types, and of literals the values, that an annotation allows."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) is Annotated:
        return plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for one in get_args(annotation) for kind in plain(one)]
    return [annotation]


@pytest.mark.parametrize(("stage", "path"), LEAVES)
def test_a_changed_field_is_a_difference_if_its_role_says_so(stage: str, path: str) -> None:
    config = parsed(stage, command_of(stage, path))
    begun = with_other(config, path, other_value(config, path))
    role, name = ROLES[stage][path], ".".join(names(path))
    assert (begun.identity() != config.identity()) is (role is RESULT)
    assert (begun.digest() != config.digest()) is (role is RESULT)
    assert (begun.rounding() != config.rounding()) is (role is ROUNDING)
    results = differences(begun.identity(), config)
    roundings = rounding_differences(begun.rounding(), config)
    assert [one.field for one in results] == [name] * (role is RESULT)
    assert [one.field for one in roundings] == [name] * (role is ROUNDING)
    chosen = [e.what for e in dict(leaves(KINDS[stage]))[path].metadata if isinstance(e, ChosenBy)]
    flag = flag_of(KINDS[stage], tuple(path.split(".")))
    for one in (*results, *roundings):
        if chosen:
            assert one.said.startswith(f"{name} {one.recorded} -> ") and chosen[0] in one.accepted
        else:
            assert one.accepted == typed(flag, one.recorded)
            assert one.said.startswith(f"{one.accepted} -> ")


def all_changed(stage: str, command: str) -> StageConfig:
    """Every field that is a flag and not placement changed at once."""
    config = parsed(stage, command)
    for path, field in leaves(KINDS[stage]):
        of_another = path.startswith(("source.", "objective.")) and f".{command}." not in path
        flagless = any(isinstance(entry, ChosenBy) for entry in field.metadata)
        # It excludes --processing-size.
        if not (of_another or flagless or ROLES[stage][path] is PLACEMENT or path == "native_size"):
            config = with_other(config, path, other_value(config, path))
    return config


@pytest.mark.parametrize(
    ("stage", "command"), [(stage, command) for stage in COMMANDS for command in COMMANDS[stage]]
)
def test_what_is_said_to_be_accepted_is_accepted_when_it_is_typed(stage: str, command: str) -> None:
    config, other = parsed(stage, command), all_changed(stage, command)
    for recorded, now in ((other, config), (config, other)):
        found = differences(recorded.identity(), now)
        found += rounding_differences(recorded.rounding(), now)
        accepted = refusal(found).partition("; accepted: ")[2]
        accepted = re.split(r"(?:^|, )(?:no|without) --", accepted)[0]
        argv = shlex.split(f"{COMMANDS[stage][command]} {accepted}")
        assert cli.parse(stage, argv) == recorded and len(found) >= 2


SAMPLED = "label", "images"


@pytest.mark.parametrize("version", [1, 2])
def test_sampling_that_was_left_open_before_it_was_the_models_is_what_it_was(version: int) -> None:
    config = parsed(*SAMPLED)
    old = with_other(with_other(config, "sampling.steps", 1), "sampling.spacing", "trailing")
    recorded = {k: v for k, v in old.identity().items() if k != "card_digest"}
    for same in (config, old):
        assert differences(recorded, same, version) == []
    recorded["sampling"]["steps"] = 4
    (found,) = differences(recorded, config, version)
    assert (found.field, found.accepted) == ("sampling.steps", "--steps 4")
    recorded["sampling"] |= {"steps": 1, "spacing": "leading"}
    (found,) = differences(recorded, config, version)
    assert (found.field, found.accepted) == ("sampling.spacing", "--spacing leading")


def test_sampling_that_is_the_models_is_no_number_that_was_asked_for() -> None:
    config = parsed(*SAMPLED)
    one = with_other(config, "sampling.steps", 1)
    (found,) = differences(one.identity(), config)
    assert found.accepted == "--steps 1"
    (found,) = differences(config.identity(), one)
    assert found.accepted == "without --steps"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_another_card_than_the_models_is_another_result(version: int) -> None:
    config = parsed(*SAMPLED)
    recorded = {k: v for k, v in config.identity().items() if k != "card_digest"}
    given = with_other(config, "card_digest", "0f")
    (found,) = differences(recorded, given, version)
    assert (found.said, found.accepted) == ("card_digest None -> 0f", "no --model-card")
    assert differences(recorded, config, version) == []
