"""The commands: parse a recipe and its flags, run one stage, say where its artifact is."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, get_type_hints

import tyro
from pydantic import ValidationError
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from e2eft import recipes
from e2eft.config import (
    Config,
    EvaluateConfig,
    LabelConfig,
    StageConfig,
    TrackingConfig,
    TrainConfig,
)
from e2eft.config.flags import flag_of, of_lists, repeated
from e2eft.prepare import PrepareConfig
from e2eft.secrets import DiscreetFormatter, without_secrets
from e2eft.signals import Terminated, heeding_sigterm
from e2eft.stdout import for_a_reader, forget_stdout

USAGE_ERROR, STAGE_ERROR, INTERRUPTED, TERMINATED = 2, 1, 130, 143
TOO_MANY_REJECTED = 3
"""The labels are committed, and more images than --max-reject-fraction have none."""
DESCRIPTIONS = {
    "prepare": "Render or convert a dataset and shard it to object storage.",
    "train": "Fine-tune a diffusion model end to end, on one machine or a cluster.",
    "evaluate": "Score a model, or labels, against shards with ground truth.",
    "label": "Label a folder of images with depth or normals.",
}
ROLLBACK = "rollback"
ROLLBACK_DESCRIPTION = "Undo the last move of a registered model's alias champion."
UNCHECKED = ConstructorRegistry()


def parse(stage: str, argv: Sequence[str]) -> StageConfig:
    """The configuration that `stage` and its arguments name.

    Raises:
        SystemExit: with code 2 and a message for an unknown recipe, flag or value.
    """
    parsed: Any = tyro.extras.overridable_config_cli(
        recipes.STAGES[stage],
        args=list(argv),
        prog=f"{stage}.py",
        description=DESCRIPTIONS[stage],
        registry=UNCHECKED,
    )
    try:
        return type(parsed).model_validate(parsed.model_dump())
    except ValidationError as error:
        raise _refused(stage, _validation_lines(type(parsed), error)) from None


def _require_once(stage: str, argv: Sequence[str], config: StageConfig) -> None:
    """Raises SystemExit if an option of one value is given twice, of which one would be dropped."""
    twice = [name for name in repeated(argv) if name not in of_lists(config)]
    if twice:
        lines = [f"{name} is given more than once and takes one value" for name in twice]
        raise _refused(stage, [f"{line}; give it once" for line in lines])


def _refused(stage: str, lines: list[str]) -> SystemExit:
    for line in lines:
        print(f"{stage}: {line}", file=sys.stderr)
    return SystemExit(USAGE_ERROR)


@UNCHECKED.struct_rule
def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Lets tyro build configurations without their checks, which follow once all of it is there.

    tyro would print what pydantic says within a frame, its lines broken anywhere.
    """
    if not (isinstance(info.type, type) and issubclass(info.type, Config)):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    fields = tuple(
        StructFieldSpec(
            name=name,
            type=hints[name],
            default=getattr(info.default, name, field.get_default()),
            helptext=_one_line(field.description),
        )
        for name, field in info.type.model_fields.items()
    )

    def build(**values: Any) -> Any:
        return info.type.model_construct(**values)

    # What tyro prints above a group of options, where pydantic's own text would stand.
    build.__doc__ = _one_line(info.type.__doc__)
    return StructConstructorSpec(instantiate=build, fields=fields)


def _one_line(text: str | None) -> str | None:
    """Without the source's line breaks, which tyro would keep beside its own."""
    return None if text is None else " ".join(text.split())


def _validation_lines(kind: type[Config], error: ValidationError) -> list[str]:
    lines: list[str] = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if problem["loc"] and "--" not in message:
            message = f"{flag_of(kind, problem['loc'])} {problem['input']}: {message}"
        lines.append(message)
    return lines


def execute(config: StageConfig) -> Any:
    """Runs the stage of a configuration; returns its artifact."""
    if isinstance(config, PrepareConfig):
        from e2eft import prepare

        return prepare.run(config)
    if isinstance(config, TrainConfig):
        from e2eft.train import driver

        return driver.run(config)
    if isinstance(config, LabelConfig):
        from e2eft import label

        return label.run(config)
    assert isinstance(config, EvaluateConfig), type(config)
    from e2eft import score

    return score.run(config)


def run_stage(stage: str, argv: Sequence[str] | None = None) -> int:
    """Parses and runs one stage; the exit code of its process."""
    argv = sys.argv[1:] if argv is None else argv
    with for_a_reader():  # of --help
        config = parse(stage, argv)
    _require_once(stage, argv, config)
    handler = logging.StreamHandler()
    handler.setFormatter(DiscreetFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("e2eft").setLevel(logging.INFO)
    try:
        with heeding_sigterm():
            return _run(stage, config)
    except KeyboardInterrupt as error:
        is_term = isinstance(error, Terminated)
        print(
            f"{stage}: {'stopped by SIGTERM' if is_term else 'interrupted'}; what is committed "
            "stays, run the same command again to finish the rest",
            file=sys.stderr,
        )
        return TERMINATED if is_term else INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        print(
            f"{stage}: nobody reads its output any more; run the same command again, with its "
            "output in a file, to finish the rest",
            file=sys.stderr,
        )
        return STAGE_ERROR
    except ValueError as error:
        print(f"{stage}: {without_secrets(str(error))}", file=sys.stderr)
        return STAGE_ERROR


def _run(stage: str, config: StageConfig) -> int:
    started = time.monotonic()
    artifact = execute(config)
    counts = ", ".join(
        f"{value} {name.replace('_', ' ')}" for name, value in artifact.counts.items()
    )
    took_s = time.monotonic() - started
    print(f"{stage}: {artifact.uri}  ({counts}; {took_s:.0f} s)", flush=True)
    if isinstance(config, LabelConfig):
        from e2eft.label import too_many_rejected

        if said := too_many_rejected(config, artifact):
            print(f"{stage}: {said}", file=sys.stderr)
            return TOO_MANY_REJECTED
    return 0


@for_a_reader()
def rollback(argv: Sequence[str] | None = None) -> int:
    """Undoes the last move of a model's alias `champion`; the exit code of its process."""
    parser = argparse.ArgumentParser(prog=ROLLBACK, description=ROLLBACK_DESCRIPTION)
    parser.add_argument("name", help="the registered model")
    parser.add_argument("--tracking-uri", help="MLflow, as for the stages")
    parser.add_argument("--list", action="store_true", help="show the moves, and change nothing")
    arguments = parser.parse_args(argv)
    from e2eft.tracking import require_there, roll_back, standing_of

    config = TrackingConfig(tracking_uri=arguments.tracking_uri)
    name = arguments.name.removeprefix("models:/").removesuffix("@champion")
    try:
        require_there(config)
        if arguments.list:
            standing = standing_of(config, name)
            for move in standing.moves:
                print(f"{move.at}  {move.by}: {move.was or '-'} -> {move.to or '-'}  {move.why}")
            for key in standing.damaged:
                print(
                    f"{ROLLBACK}: the tag {key} of models:/{name} is damaged: no move can be read "
                    "from it",
                    file=sys.stderr,
                )
        else:
            print(f"models:/{name}: {roll_back(config, name).reason}")
    except ValueError as error:
        print(f"{ROLLBACK}: {without_secrets(str(error))}", file=sys.stderr)
        return STAGE_ERROR
    return 0


@for_a_reader()
def main() -> int:
    """The `e2eft` console script: `e2eft <stage> <recipe> [flags]`, or `e2eft rollback`."""
    stages = ", ".join(recipes.STAGES)
    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help"}:
        print(f"usage: e2eft STAGE RECIPE [flags]\n\n{DESCRIPTION}")
        for name, line in (DESCRIPTIONS | {ROLLBACK: ROLLBACK_DESCRIPTION}).items():
            print(f"  {name:9} {line}")
        print("\ne2eft STAGE --help lists the recipes, e2eft STAGE RECIPE --help their flags.")
        return 0
    if sys.argv[1] == ROLLBACK:
        return rollback(sys.argv[2:])
    if sys.argv[1] not in recipes.STAGES:
        print(f"e2eft: unknown stage {sys.argv[1]!r}; stages are {stages}", file=sys.stderr)
        return USAGE_ERROR
    return run_stage(sys.argv[1], sys.argv[2:])


DESCRIPTION = (
    "Turns image diffusion models into depth and normal estimators, and labels images with them."
)
