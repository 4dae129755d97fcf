"""What is said, and what is refused, where an artifact was begun with another configuration."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from e2eft import cli
from e2eft.config import differences, digest_of, refusal, rounding_differences


@pytest.mark.parametrize(
    ("stage", "recorded", "now", "said"),
    [
        (
            "prepare",
            "synthetic-street --out o --seed 4",
            "hypersim --out o --root r --split-csv s",
            "source.kind synthetic -> hypersim; accepted: another recipe (source.kind synthetic)",
        ),
        (
            "train",
            "base-autoencoder --out o --data d --lr 0.002 --seed 3 --batch 32 --weight 3.0",
            "base-depth-diffusion --out o --data d --base b --export-half --batch 32 "
            "--micro-batch 4 --max-steps 6000 --schedule.final-lr-ratio 0.03 "
            "--optimizer.weight-decay 0 --model.initial-latent zeros",
            "objective.kind autoencoding -> diffusion; --weight 3.0 -> no --weight; "
            "--seed 3 -> 0; accepted: --weight 3.0 --seed 3, another recipe (objective.kind "
            "autoencoding)",
        ),
        (
            "train",
            "tiny-depth --out o --data a --data b --export-half",
            "tiny-depth --out o --data a --lr 0.001 --limit 5",
            "--data 2 times -> 1 times; --limit None -> 5; --lr 0.0002 -> 0.001; --export-half -> "
            "--no-export-half; accepted: --lr 0.0002 --export-half, 2 times --data, "
            "without --limit",
        ),
        (
            "label",
            "depth --out o --images 'my photos' --model m --save-npy",
            "normals --out o --images i --model m",
            "--images 'my photos' -> i; task depth -> normals; --save-npy -> --no-save-npy; "
            "accepted: --images 'my photos' --save-npy, another recipe (task depth)",
        ),
        (
            "label",
            "depth --out o --images i --model m",
            "depth --out o --images i --model m --processing-size 96",
            "--processing-size None -> 96; accepted: without --processing-size",
        ),
        (
            "label",
            "depth --out o --images i --model m --processing-size 96",
            "depth --out o --images i --model m",
            "--processing-size 96 -> None; accepted: --processing-size 96",
        ),
        (
            "evaluate",
            "pooled-pixels --out o --data a --labels l",
            "pooled-pixels --out o --data a --model m",
            "--labels 1 times -> 0 times; accepted: 1 times --labels",
        ),
    ],
)
def test_a_refusal_is_in_words_of_the_command_line(
    stage: str, recorded: str, now: str, said: str
) -> None:
    old, new = (cli.parse(stage, shlex.split(argv)) for argv in (recorded, now))
    assert refusal(differences(old.identity(), new)) == said


def test_latents_of_another_vae_are_a_difference_wherever_it_was_found() -> None:
    config = cli.parse("prepare", ["synthetic-indoor", "--out", "o"])
    old, moved, new = (
        config.model_copy(update={"latents_of": name, "vae_digest": digest})
        for name, digest in (("a", "0f"), ("b", "0f"), ("a", "1e"))
    )
    assert differences(old.identity(), moved) == []
    assert refusal(differences(old.identity(), new)) == (
        "vae_digest 0f -> 1e; accepted: another --latents-of (vae_digest 0f)"
    )
    assert differences(config.identity(), old)[0].accepted == "no --latents-of"


FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TRAIN = "tiny-depth --out o --data d "


@pytest.mark.parametrize(
    ("stage", "begun", "resumed"),
    [
        ("train", TRAIN, "--scaling.max-failures 9"),
        ("train", TRAIN, "--cpus-per-worker 4 --use-gpu no"),
        ("train", TRAIN, "--num-workers 1 --zero-stage 3 --precision bf16"),
        ("train", TRAIN, "--model.unet-checkpointing --model.decoder-checkpointing"),
        ("train", TRAIN, "--register depth"),
        ("train", TRAIN, "--checkpoint-every 7 --checkpoint.keep 9 --panel-frames 0"),
        ("prepare", "synthetic-indoor --out o ", "--max-reject-fraction 0.5"),
        ("label", "depth --out o --images i --model m ", "--num-workers 8 --batch-size 1"),
    ],
)
def test_following_the_programs_own_advice_is_not_refused(
    stage: str, begun: str, resumed: str
) -> None:
    old, new = cli.parse(stage, begun.split()), cli.parse(stage, (begun + resumed).split())
    assert old != new
    assert differences(old.identity(), new) == differences(new.identity(), old) == []


def test_a_finished_run_that_is_asked_for_an_average_of_its_weights_is_another_run() -> None:
    old = cli.parse("train", TRAIN.split())
    new = cli.parse("train", [*TRAIN.split(), "--checkpoint.ema-decay", "0.999"])
    assert refusal(differences(old.identity(), new)) == (
        "--checkpoint.ema-decay None -> 0.999; accepted: without --checkpoint.ema-decay"
    )


def test_a_record_that_is_older_than_a_field_was_made_with_its_default() -> None:
    config = cli.parse("train", TRAIN.split())
    old = config.identity()
    del old["optimizer"]["clip_norm"], old["checkpoint"]
    assert differences(old, config) == []
    for flags in (["--optimizer.clip-norm", "2"], ["--checkpoint.ema-decay", "0.9"]):
        (found,) = differences(old, cli.parse("train", [*TRAIN.split(), *flags]))
        assert found.said.startswith(flags[0])
    # It cannot be known to be the default where there is none.
    del old["task"]
    assert refusal(differences(old, config)) == (
        "task not recorded -> depth; accepted: the e2eft that began it"
    )


@pytest.mark.parametrize("version", [1, 2, 3])
def test_shards_from_before_normals_had_a_choice_are_finished_as_they_were_begun(
    version: int,
) -> None:
    argv = ["virtual-kitti-2", "--root", "r", "--out", "o"]
    config = cli.parse("prepare", [*argv, "--normal-planes", "own"])
    old = config.identity()
    assert old["source"].pop("normal_planes") == "own"
    assert refusal(differences(old, config, version)) == (
        "--normal-planes neighbours -> own; accepted: --normal-planes neighbours"
    )
    same = cli.parse("prepare", [*argv, "--normal-planes", "neighbours"])
    assert differences(old, same, version) == []
    (found,) = differences(same.identity(), config, 3)
    assert found.accepted == "--normal-planes neighbours"


def test_a_record_that_is_newer_than_this_program_is_not_taken_for_the_same() -> None:
    config = cli.parse("train", TRAIN.split())
    old = config.identity()
    old["optimizer"]["nesterov"] = True
    assert refusal(differences(old, config)) == (
        "optimizer.nesterov True -> unknown to this e2eft; accepted: the e2eft that began it"
    )


def test_roundings_that_are_not_recorded_are_not_known_to_differ() -> None:
    config = cli.parse("train", TRAIN.split())
    assert rounding_differences({}, config) == []
    assert [one.said for one in rounding_differences({"scaling": {"num_workers": 8}}, config)] == [
        "--num-workers 8 -> 2"
    ]


V1: list[dict[str, Any]] = json.loads((FIXTURES / "identities_v1.json").read_text())
"""Identities of version 1, as they were claimed with, their digests and the commands."""


@pytest.mark.parametrize("made", V1, ids=lambda made: f"{made['stage']} {made['argv'].split()[0]}")
def test_what_version_1_began_is_resumed_by_the_same_command(made: dict[str, Any]) -> None:
    config = cli.parse(made["stage"], made["argv"].split())
    assert differences(made["identity"], config, version=1) == []
    assert rounding_differences(made["identity"], config) == []
    assert digest_of(made["identity"]) == made["digest"]


@pytest.mark.parametrize(
    ("number", "flags", "said"),
    [
        (0, "--seed 9", ["--seed 3 -> 9"]),
        (0, "--max-reject-fraction 0.5", []),
        (1, "--root /elsewhere", []),
        (1, "--split-csv /t.csv", ["--split-csv /s.csv -> /t.csv"]),
        # Which it was is not recorded.
        (3, "--checkpoint.ema-decay 0.5", []),
        (3, "--data /c --weight 1", ["--data /a --data /b -> --data /a --data /b --data /c",
                                     "--weight 9.0 --weight 1.0 -> --weight 9.0 --weight 1.0 "
                                     "--weight 1.0"]),
        (3, "--num-workers 1 --scaling.max-failures 0 --register other --use-gpu no", []),
        (4, "--base /n --objective.latent-cache 0", ["--base /m -> /n"]),
        (5, "--model models:/depth@challenger",
         ["--model models:/depth@champion -> models:/depth@challenger"]),
        (6, "--model /n", ["--model /m -> /n"]),
        (7, "--labels /k --data /b", ["--data /a -> --data /a --data /b",
                                      "--labels /l -> --labels /l --labels /k"]),
    ],
)  # fmt: skip
def test_version_1_knew_inputs_by_their_uris(number: int, flags: str, said: list[str]) -> None:
    made = V1[number]
    config = cli.parse(made["stage"], [*made["argv"].split(), *flags.split()])
    assert [str(one) for one in differences(made["identity"], config, version=1)] == said
