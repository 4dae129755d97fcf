"""What a user types and reads: recipes, help, and one clear line for every bad input."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from e2eft import cli, recipes, score
from e2eft.artifacts import MANIFEST
from e2eft.config import EvaluateConfig, LabelConfig, TrainConfig
from e2eft.config.base import Config, configs_of
from e2eft.losses import AffineInvariant, GradientMatching
from e2eft.prepare import PrepareConfig
from e2eft.storage import LocalStore
from e2eft.targets import LogDepth
from tests.artifacts import write_artifact
from tests.frames import write_analytic_shards
from tests.labelling import label_config, write_model

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIRED = {
    "prepare": ["--out", "o"],
    "train": ["--out", "o", "--data", "d", "--base", "b"],
    "label": ["--out", "o", "--images", "i", "--model", "m"],
    "evaluate": ["--out", "o", "--data", "d", "--model", "m"],
}
TABLES = {
    "hypersim": ["--split-csv", "s"],
    "hypersim-paper": ["--split-csv", "s"],
    "kitti-eigen": ["--list", "l"],
    "eth3d": ["--list", "l"],
    "scannet": ["--list", "l"],
}
TINY = ["tiny-depth", "--out", "o", "--data", "d"]
RECIPES = [(stage, recipe) for stage, named in recipes.STAGES.items() for recipe in named]


def required(stage: str, recipe: str) -> list[str]:
    if stage != "prepare" or recipe.startswith("synthetic-"):
        return REQUIRED[stage]
    return [*REQUIRED[stage], "--root", "r", *TABLES.get(recipe, [])]


def refusal(
    stage: str, argv: list[str], capsys: pytest.CaptureFixture[str], code: int = cli.USAGE_ERROR
) -> str:
    """What is printed to stderr by a command that is refused."""
    try:
        assert cli.run_stage(stage, argv) == code
    except SystemExit as exit_:
        assert exit_.code == code
    printed = capsys.readouterr()
    assert not printed.out and "Traceback" not in printed.err
    return " ".join(printed.err.split())


@pytest.mark.parametrize(("stage", "recipe"), RECIPES)
def test_every_recipe_parses_to_a_complete_configuration(stage: str, recipe: str) -> None:
    config = cli.parse(stage, [recipe, *required(stage, recipe)])
    assert type(config).model_validate_json(config.model_dump_json()) == config
    description, preset = recipes.STAGES[stage][recipe]
    assert description.endswith(".") and type(config) is type(preset)


def test_recipes_differ_where_they_should() -> None:
    digests = {
        recipe: cli.parse(stage, [recipe, *required(stage, recipe)]).digest()
        for stage, recipe in RECIPES
    }
    assert len(set(digests.values())) == len(digests) - 2, "sd2 and marigold differ in --base only"


def test_help_says_what_every_group_of_options_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse("train", ["tiny-depth", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for said in (
        "DeepSpeed: what is partitioned, and in which precision.",
        "MLflow: where runs go and under which experiment.",
        "Every micro-batch comes from one dataset, as in the paper",
    ):
        assert said in words
    assert "Creates a new" not in words, "pydantic speaks of itself"


def test_the_papers_recipe() -> None:
    config = cli.parse("train", ["marigold-depth", "--out", "o", "--data", "d"])
    assert isinstance(config, TrainConfig)
    assert (config.batch.global_size, config.batch.micro_size) == (32, 2)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (3e-5, 1e-2)
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.9, 0.999)
    assert (config.optimizer.eps, config.optimizer.clip_norm) == (1e-8, 1.0)
    assert (config.schedule.max_steps, config.schedule.warmup_steps) == (20_000, 100)
    assert config.schedule.final_lr_ratio == 0.01
    assert config.model.initial_latent == "zeros" and config.zero.precision == "fp32"
    assert config.data.flip_probability == 0.5


def test_flags_reach_their_fields() -> None:
    config = cli.parse(
        "train",
        ["tiny-depth", "--out", "o", "--data", "a", "--data", "b", "--weight", "9", "--weight", "1",
         "--lr", "1e-4", "--max-steps", "7", "--zero-stage", "3", "--precision", "bf16",
         "--num-workers", "4", "--batch", "16", "--micro-batch", "2", "--limit", "5",
         "--model.initial-latent", "gaussian", "--no-tracking", "--register", "depth"],
    )  # fmt: skip
    assert isinstance(config, TrainConfig)
    assert (config.data.uris, config.data.weights, config.data.limit) == (("a", "b"), (9, 1), 5)
    assert (config.optimizer.lr, config.schedule.max_steps) == (1e-4, 7)
    assert (config.zero.stage, config.zero.precision) == (3, "bf16")
    assert (config.scaling.num_workers, config.accumulation_steps) == (4, 2)
    assert config.model.initial_latent == "gaussian" and not config.tracking.enabled
    assert config.register_as == "depth"
    prepared = cli.parse(
        "prepare", ["synthetic-street", "--out", "o", "--seed", "3", "--height", "64"]
    )
    assert isinstance(prepared, PrepareConfig)
    assert (prepared.source.family, prepared.source.seed, prepared.source.height) == (
        "street",
        3,
        64,
    )
    labelled = cli.parse("label", ["normals", *REQUIRED["label"], "--steps", "4", "--native-size"])
    assert isinstance(labelled, LabelConfig)
    assert (labelled.task, labelled.sampling.steps, labelled.native_size) == ("normals", 4, True)
    scored = cli.parse(
        "evaluate",
        [
            "synthetic-depth",
            "--out",
            "o",
            "--data",
            "a",
            "--data",
            "b",
            "--labels",
            "x",
            "--labels",
            "y",
        ],
    )
    assert isinstance(scored, EvaluateConfig)
    assert (scored.data, scored.labels, scored.model) == (("a", "b"), ("x", "y"), None)


@pytest.mark.parametrize(
    ("stage", "argv", "said"),
    [
        ("train", ["sd3-depth"], ["sd3-depth", "tiny-depth", "marigold-depth", "sd2-normals"]),
        ("train", [], ["tiny-depth", "base-autoencoder"]),
        ("train", [*TINY, "--bogus", "3"], ["--bogus"]),
        ("train", ["tiny-depth", "--data", "d"], ["--out", "required"]),
        ("train", ["base-image-diffusion", "--out", "o", "--data", "d"], ["--base", "required"]),
        ("train", [*TINY, "--lr", "fast"], ["--lr", "fast"]),
        ("train", [*TINY, "--zero-stage", "4"], ["'4'", "--zero-stage", "0", "1", "2", "3"]),
        ("label", ["depth", "--out", "o", "--model", "m"], ["--images", "required"]),
        ("prepare", ["hypersim", "--out", "o", "--root", "r"], ["--split-csv", "required"]),
    ],
)
def test_what_the_parser_cannot_read_is_named(
    stage: str, argv: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(stage, argv, capsys)
    for words in said:
        assert words in message


@pytest.mark.parametrize(
    ("stage", "argv", "line"),
    [
        (
            "prepare",
            ["synthetic-indoor", "--out", "o", "--height", "100"],
            "prepare: --height 100 is not a multiple of the VAE's factor 8; use 96 or 104",
        ),
        (
            "prepare",
            ["synthetic-indoor", "--out", "o", "--width", "641"],
            "prepare: --width 641 is not a multiple of the VAE's factor 8; use 640 or 648",
        ),
        (
            "prepare",
            ["synthetic-indoor", "--out", "o", "--frames-per-part", "0"],
            "prepare: --frames-per-part 0: Input should be greater than 0",
        ),
        (
            "train",
            ["tiny-depth", "--out", "o"],
            "train: --data is missing: give at least one shards URI",
        ),
        (
            "train",
            [*TINY, "--batch", "30"],
            "train: --batch 30 is not a multiple of --micro-batch 8 x --num-workers 2 = 16; "
            "use --batch 32",
        ),
        ("train", [*TINY, "--lr", "-1"], "train: --lr -1.0: Input should be greater than 0"),
        (
            "train",
            [*TINY, "--optimizer.weight-decay", "-2"],
            "train: --optimizer.weight-decay -2.0: Input should be greater than or equal to 0",
        ),
        (
            "train",
            ["base-autoencoder", "--out", "o", "--data", "d", "--objective.kl-weight", "-1"],
            "train: --objective.kl-weight -1.0: Input should be greater than or equal to 0",
        ),
        (
            "train",
            [*TINY, "--weight", "1", "--weight", "2"],
            "train: --weight is given 2 times but --data 1 times; "
            "give one weight for each dataset, or none",
        ),
        (
            "evaluate",
            ["synthetic-depth", "--out", "o", "--data", "d"],
            "evaluate: give either --model or --labels (one for each --data)",
        ),
        (
            "label",
            ["depth", *REQUIRED["label"], "--native-size", "--processing-size", "9"],
            "label: --native-size and --processing-size 9 exclude each other",
        ),
        (
            "label",
            ["depth", *REQUIRED["label"], "--processing-size", "100000"],
            "label: --processing-size 100000: Input should be less than or equal to 4096",
        ),
        (
            "label",
            ["depth", *REQUIRED["label"], "--retry", "--overwrite"],
            "label: --retry and --overwrite exclude each other: one keeps every label that is "
            "there, the other may delete them",
        ),
        (
            "label",
            ["depth", *REQUIRED["label"], "--images=j"],
            "label: --images is given more than once and takes one value; give it once",
        ),
        (
            "label",
            ["depth", *REQUIRED["label"], "--max-pixels", "9", "--max_pixels", "9"],
            "label: --max-pixels is given more than once and takes one value; give it once",
        ),
        (
            "train",
            [*TINY, "--data", "e", "--no-tracking", "--tracking"],
            "train: --tracking is given more than once and takes one value; give it once",
        ),
        (
            "prepare",
            [
                "hypersim",
                *REQUIRED["prepare"],
                "--root",
                "r",
                "--split-csv",
                "s",
                "--scene",
                "a",
                "--scene",
                "b",
                "--root",
                "q",
            ],
            "prepare: --root is given more than once and takes one value; give it once",
        ),
        (
            "evaluate",
            [
                "pooled-pixels",
                "--out",
                "o",
                "--data",
                "d",
                "--data",
                "e",
                "--model",
                "m",
                "--panels",
                "1",
                "--panels",
                "2",
            ],
            "evaluate: --panels is given more than once and takes one value; give it once",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    stage: str, argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(stage, argv, capsys) == line


def test_two_mistakes_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse("train", [*TINY, "--lr", "-1", "--max-steps", "0"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines] == ["--lr", "--max-steps"]


def configurations(kind: type[Config]) -> Iterator[type[Config]]:
    """All that one is made of."""
    yield kind
    for field in kind.model_fields.values():
        for inner in configs_of(field):
            yield from configurations(inner)


def test_an_integer_beyond_64_bits_is_refused_by_name() -> None:
    """It would stop a worker, in a table, a seed, or the size of an array."""
    fields: set[str] = set()
    for stage in (PrepareConfig, TrainConfig, LabelConfig, EvaluateConfig):
        for kind in configurations(stage):
            hints = get_type_hints(kind)
            for name in kind.model_fields:
                if hints[name] not in (int, int | None):
                    continue
                fields.add(f"{kind.__name__}.{name}")
                for value in (2**63, -(2**63) - 1):
                    with pytest.raises(ValidationError) as caught:
                        kind.model_validate({name: value})
                    assert (name,) in [error["loc"] for error in caught.value.errors()], name
    assert len(fields) == 41 and "SamplingConfig.seed" in fields


def train_argv(data: Path | str, out: Path) -> list[str]:
    return ["tiny-depth", "--out", str(out), "--data", str(data), "--no-tracking"]


def test_data_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = train_argv(tmp_path / "absent", tmp_path / "out")
    message = refusal("train", argv, capsys, cli.STAGE_ERROR)
    assert (
        message
        == f"train: {tmp_path}/absent has no manifest.json, so it is not a finished artifact"
    )
    assert not (tmp_path / "out").exists()


def test_data_of_another_kind_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path / "labels")
    config = label_config("i", store.uri, "m")
    write_artifact(store, "labels", config, files={}, counts={})
    message = refusal("train", train_argv(store.uri, tmp_path / "out"), capsys, cli.STAGE_ERROR)
    assert message == f"train: {store.uri} is a 'labels' artifact; expected shards"


def test_data_of_a_newer_program_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_analytic_shards(str(tmp_path / "data"), 2, height=16, width=24).store
    manifest = json.loads(store.read(MANIFEST))
    manifest["details"]["shard_schema_version"] = 9
    store.write(MANIFEST, json.dumps(manifest).encode())
    message = refusal("train", train_argv(store.uri, tmp_path / "out"), capsys, cli.STAGE_ERROR)
    assert "has shard schema 9, this program reads up to 1; upgrade e2eft" in message


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("./absent", "model './absent' is not there; give a folder, a run's URI, a hub id"),
        ("tiny-sdd", "model 'tiny-sdd' is not there"),
        ("models:/depth@champion", "is a registered model; give its run's folder or URI"),
    ],
)
def test_a_base_that_is_no_model_is_named_and_the_folder_stays_free(
    base: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_analytic_shards(str(tmp_path / "data"), 2, height=16, width=24).uri
    argv = [*train_argv(data, tmp_path / "out"), "--base", base]
    assert said in refusal("train", argv, capsys, cli.STAGE_ERROR)
    assert not (tmp_path / "out").exists()


def test_a_target_and_losses_are_chosen_in_a_word_each() -> None:
    config = cli.parse(
        "train",
        ["tiny-depth", *REQUIRED["train"], "--target", "log:eps_m=0.01,high=0.99",
         "--loss", "affine-invariant", "--loss", "gradient-matching:weight=0.5"],
    )  # fmt: skip
    assert isinstance(config, TrainConfig)
    assert config.depth_target == LogDepth(eps_m=0.01, high=0.99)
    assert config.losses == (AffineInvariant(), GradientMatching(weight=0.5))
    assert config.identity()["depth_target"] == "log:high=0.99,eps_m=0.01"
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("recipe", "flags", "said"),
    [
        ("tiny-depth", "--target metres", "'metres' is none of linear, log, disparity, sqrt-disp"),
        ("tiny-depth", "--target log:eps=1", "log has no setting 'eps'; they are low, high, eps_m"),
        ("tiny-depth", "--target log:eps_m=-1", "eps_m -1: expected metres, 0 or more"),
        ("tiny-depth", "--loss log-space:weight=0", "weight 0: expected a positive number"),
        ("tiny-depth", "--loss angular", "--loss angular is one of normals, not of depth"),
        ("tiny-normals", "--loss log-space", "--loss log-space is one of depth, not of normals"),
        ("tiny-normals", "--target log", "--target log is one of depth, not of normals"),
    ],
)
def test_what_is_no_target_or_no_loss_of_the_task_is_named(
    recipe: str, flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.parse("train", [recipe, *REQUIRED["train"], *flags.split()])
    assert refused.value.code == cli.USAGE_ERROR
    printed = capsys.readouterr()
    assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", printed.out + printed.err).split())


def test_a_registered_model_can_be_scored_and_registered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from e2eft import evaluate, tracking
    from e2eft.model.hub import ModelError
    from e2eft.model.pinned import pin_model

    folder = write_model(tmp_path, "depth")
    fetched: list[str] = []
    given: list[tuple[Any, ...]] = []

    def download(_: Any, uri: str, scratch: Path) -> tracking.RegisteredModel:
        fetched.append(uri)
        return tracking.RegisteredModel(uri, "depth", "3", folder)

    def register(*arguments: Any) -> tracking.Promotion:
        given.append(arguments)
        return tracking.Promotion(True, "better")

    monkeypatch.setattr(score, "download_model", download)
    monkeypatch.setattr(evaluate, "register", register)
    digest = pin_model("m", "m", str(folder), tmp_path).digest
    made_by = iter([("models:/depth/3", digest), ("models:/depth/3", "another")])
    monkeypatch.setattr(evaluate, "scored_model", lambda scores: next(made_by))
    config = cli.parse(
        "evaluate",
        ["synthetic-depth", "--out", "o", "--data", "d", "--model", "models:/depth@challenger",
         "--register", "depth"],
    )  # fmt: skip
    assert isinstance(config, EvaluateConfig)
    scores = SimpleNamespace(uri="o")
    score.register(config, scores)
    assert fetched == ["models:/depth/3"]  # what was scored, wherever the alias leads now
    ((_, registered, exported, card),) = given
    assert (registered, exported, card["task"]) == (scores, folder, "depth")
    with pytest.raises(ModelError, match="is not what o scored"):
        score.register(config, scores)
    assert len(given) == 1


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://bucket/x", "unknown scheme; use a folder, file:// or s3://"),
        ("s3://", "names no bucket"),
        ("file://data/x", "write file:///data/x"),
    ],
)
def test_uris_that_cannot_be_are_named(
    uri: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal("train", train_argv(uri, tmp_path), capsys, cli.STAGE_ERROR)
    assert said in refusal("prepare", ["synthetic-indoor", "--out", uri], capsys, cli.STAGE_ERROR)


def test_another_configuration_at_the_same_place_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_analytic_shards(str(tmp_path / "data"), 2, height=16, width=24)
    message = refusal(
        "prepare", ["synthetic-indoor", "--out", data.uri, "--seed", "5"], capsys, cli.STAGE_ERROR
    )
    assert "--seed 0 -> 5" in message and "--overwrite to delete" in message


def test_finished_work_is_found_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_analytic_shards(str(tmp_path / "data"), 3, height=16, width=24)
    argv = ["synthetic-indoor", "--out", data.uri, "--num-scenes", "3", "--frames-per-scene", "1",
            "--frames-per-part", "8"]  # fmt: skip
    assert cli.run_stage("prepare", argv) == 0
    printed = capsys.readouterr().out
    assert f"already prepared: {data.uri} (3 frames; nothing to do)" in printed
    assert f"prepare: {data.uri}  (3 frames, 0 rejected;" in printed


def test_an_interrupted_stage_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "execute", interrupt)
    message = refusal("prepare", ["synthetic-indoor", "--out", "o"], capsys, cli.INTERRUPTED)
    assert message == (
        "prepare: interrupted; what is committed stays, run the same command again to finish the "
        "rest"
    )


TERMINATED = (
    "import signal, sys, time; from e2eft import cli, signals\n"
    "def work(config):\n"
    "    with signals.keeping_sigterm():\n"
    "        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))  # as ray.init does\n"
    "    print('working', flush=True)\n"
    "    try:\n"
    "        time.sleep(60)\n"
    "    except KeyboardInterrupt:\n"
    "        raise ValueError('the cluster is gone')\n"
    "cli.execute = work\n"
    "code = cli.run_stage('label', sys.argv[1:])\n"
    "signal.raise_signal(signal.SIGTERM)  # a second one while it ends\n"
    "sys.exit(code)\n"
)


def test_a_terminated_stage_says_what_is_kept_and_how_to_go_on() -> None:
    argv = ["depth", *REQUIRED["label"]]
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stdout.readline() == "working\n"
        process.terminate()
        printed = process.communicate(timeout=30)
    assert process.returncode == cli.TERMINATED == 143
    assert printed == (
        "",
        "label: stopped by SIGTERM; what is committed stays, run the same command again to finish "
        "the rest\n",
    )


def test_a_stage_that_ends_leaves_signals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "execute", lambda _: SimpleNamespace(uri="o", counts={}))
    assert cli.run_stage("prepare", ["synthetic-indoor", "--out", "o"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before


LOADED = (
    "import runpy, sys\n"
    "sys.argv = [sys.argv[1], *sys.argv[2:]]\n"
    "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    "except SystemExit as e:\n    code = e.code\n"
    "heavy = {'torch', 'ray', 'deepspeed', 'diffusers', 'mlflow', 'numpy'} & set(sys.modules)\n"
    "print('CODE', code, 'HEAVY', sorted(heavy))\n"
)


@pytest.mark.parametrize("stage", recipes.STAGES)
def test_help_answers_without_loading_anything_heavy(stage: str, tmp_path: Path) -> None:
    recipe = next(iter(recipes.STAGES[stage]))
    for argv in (["--help"], [recipe, "--help"]) if stage == "train" else (["--help"],):
        script = REPOSITORY / f"pipelines/{stage}.py"
        done = subprocess.run(
            [sys.executable, "-c", LOADED, str(script), *argv],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True,
        )  # fmt: skip
        assert "CODE 0 HEAVY []" in done.stdout, done.stdout[-500:] + done.stderr
        assert (recipe in done.stdout) if len(argv) == 1 else ("--out" in done.stdout)


def test_every_entry_point_says_the_same(tmp_path: Path) -> None:
    """As a script from any folder, and as the console script."""
    argv = ["tiny-depth", "--out", "o", "--data", "d", "--batch", "7"]
    script = [sys.executable, str(REPOSITORY / "pipelines/train.py"), *argv]
    console = [
        sys.executable,
        "-c",
        "import sys; from e2eft.cli import main; sys.exit(main())",
        "train",
        *argv,
    ]
    environment = os.environ | {"PYTHONPATH": ""}
    by_script = subprocess.run(
        script, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    by_console = subprocess.run(
        console, cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert by_script.returncode == by_console.returncode == cli.USAGE_ERROR
    assert by_script.stderr == by_console.stderr
    assert by_script.stderr.startswith("train: --batch 7 is not a multiple")


def test_the_console_script_lists_the_stages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["e2eft", "--help"])
    assert cli.main() == 0
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in recipes.STAGES)
    monkeypatch.setattr(sys, "argv", ["e2eft", "bake"])
    assert cli.main() == cli.USAGE_ERROR
    assert "unknown stage 'bake'; stages are prepare, train" in capsys.readouterr().err


def test_a_page_whose_reader_left_ends_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "pipelines/evaluate.py"), "--help"],
            stdout=writing, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ""},
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
