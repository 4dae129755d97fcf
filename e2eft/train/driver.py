"""The driver's side of a training run: claim, place, wait, commit."""

import json
import logging
import math
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from e2eft.artifacts import (
    Artifact,
    ArtifactError,
    Claim,
    FileEntry,
    Owned,
    Parent,
    Place,
    Record,
    finished_of,
    is_gone,
    left_of,
    look,
    recorded,
    rounding_changes,
)
from e2eft.cluster import connect, count_gpus, require_room
from e2eft.config import TrainConfig, is_conditional
from e2eft.data.shards import KIND as SHARDS
from e2eft.data.shards import ShardIndex, open_shards, require_modality
from e2eft.extras import require_extra
from e2eft.model.backbones import layout
from e2eft.model.hub import ModelError, commit_of, hub_id, pinned
from e2eft.model.pinned import as_input, content_digest, require_all_weights
from e2eft.model.source import (
    BLANK,
    MODEL_FOLDER,
    MODEL_KIND,
    find_model,
    recognized,
    recognized_at,
)
from e2eft.secrets import shown
from e2eft.storage import MissingError, absolute, on_this_disk, open_store
from e2eft.tasks import label_codec
from e2eft.tracking import (
    NoRun,
    Run,
    check_tracking,
    complete_run,
    is_server,
    register_model,
    registered_version,
    registering,
    resolve_uri,
    start_run,
)
from e2eft.train.checkpoints import (
    CHECKPOINTS,
    SNAPSHOT,
    export_path,
    newest,
    require_restorable,
)
from e2eft.train.errors import TrainingError
from e2eft.train.mixture import depth_ranges_m, require_one_making

log = logging.getLogger(__name__)

RUN_NAME = "run"
OWNED = Owned(
    patterns=(rf"{CHECKPOINTS}/.+", rf"{MODEL_FOLDER}(-[0-9a-f]+)?/.+"),
    results=(
        rf"{CHECKPOINTS}/[0-9a-f]+/(step-\d+|export)\.json",
        re.escape(SNAPSHOT),
    ),
)
"""What this stage writes."""


def run(config: TrainConfig) -> Artifact:
    """Trains, or resumes, or finds the work done; returns the committed model artifact.

    Raises:
        ValueError: (and its subclasses) for anything the user can correct.
        TrainingError: if training itself failed; a second call resumes from the last checkpoint.
    """
    require_extra("train", "training")
    config = _with_absolute_uris(config)
    try:
        config, inputs = _with_inputs(config)
    except (ModelError, ArtifactError, MissingError):
        found = _without_inputs(config)
        if found is None:
            raise
        config, inputs = found
    place = look(open_store(config.out), MODEL_KIND, config, inputs, OWNED)
    artifact = place.finished
    if artifact:
        print(f"already trained: {config.out} (nothing to do)")
    else:
        use_gpu = _require_possible(config, place)
        with place.take() as claim:
            artifact = claim.finished or _train(config, claim, use_gpu)
    _after_commit(config, artifact, inputs)
    return artifact


def _with_inputs(config: TrainConfig) -> tuple[TrainConfig, tuple[Parent, ...]]:
    """The configuration with what follows from the data, and what it is made from."""
    shards = [open_shards(uri) for uri in config.data.uris]
    for index in shards:
        require_modality(index, config.task)
    require_one_making(shards, config.task)
    data = (index.artifact.as_parent("data") for index in shards)
    return _with_depth_ranges(_as_begun(config), shards), (_base(config), *data)


def _without_inputs(config: TrainConfig) -> tuple[TrainConfig, tuple[Parent, ...]] | None:
    """The same of a run that is finished, whose data or base model have gone since: nothing is
    known of what those held; what is there is compared. None if it is not finished.

    Raises:
        ModelError, ArtifactError: if something else has come in their place.
    """
    store = open_store(config.out)
    begun = None if config.overwrite else recorded(store)
    if begun is None or finished_of(store, begun) is None:
        return None
    config = _as_begun(config)
    ranges = begun.config.get("data", {}).get("max_depth_m")
    if not config.data.max_depth_m and isinstance(ranges, list):
        data = config.data.model_copy(update={"max_depth_m": tuple(ranges)})
        config = config.model_copy(update={"data": data})
    data = (left_of(uri, "data", SHARDS) for uri in config.data.uris)
    return config, (_base_left(config, begun), *data)


def _base_left(config: TrainConfig, begun: Record) -> Parent:
    try:
        return _base(config)
    except ModelError:
        if not is_gone(config.base):
            raise
    names = (config.base, absolute(config.base))
    base = next((p.uri for p in begun.inputs if p.role == "base" and p.uri in names), config.base)
    return Parent("base", base, "")


def _train(config: TrainConfig, claim: Claim, use_gpu: bool) -> Artifact:
    for change in rounding_changes(claim):
        print(f"goes on with other rounding than it was begun with: {change}")
    run = start_run(config.tracking, *_work(config, claim.work))
    _describe(run, config, claim.place.inputs)
    try:
        if not claim.store.exists(export_path(claim.record.id)):
            _fit(config, claim, run, use_gpu)
        artifact = _commit(config, claim, run)
    except BaseException:
        run.finish("FAILED")
        raise
    return artifact


def _work(config: TrainConfig, work: str) -> tuple[str, str, dict[str, str]]:
    """The arguments of `start_run` for the job of this name."""
    tags = {"e2eft.stage": "train", "e2eft.out": config.out}
    return f"train-{config.task}", work, tags


def _after_commit(config: TrainConfig, artifact: Artifact, inputs: tuple[Parent, ...]) -> None:
    """Registers the model and ends the MLflow run, or finds it done.

    Raises:
        TrackingError: if the model could not be registered; the same command tries again.
    """
    work = _work(config, artifact.work)
    if config.register_as:
        with registering(artifact.uri):
            known = registered_version(
                config.tracking, config.register_as, "e2eft.artifact.digest", artifact.digest
            )
            if known is None:
                _register(config, start_run(config.tracking, *work), artifact)

    def write(run: Run) -> None:
        _describe(run, config, inputs)
        run.tags({"e2eft.model.digest": artifact.digest})

    complete_run(config.tracking, *work, write)


def _with_absolute_uris(config: TrainConfig) -> TrainConfig:
    """Relative folders resolved here, since workers run elsewhere."""
    update: dict[str, Any] = {
        "out": absolute(config.out),
        "data": config.data.model_copy(update={"uris": tuple(map(absolute, config.data.uris))}),
        "panel": config.panel.model_copy(update={"uris": tuple(map(absolute, config.panel.uris))}),
    }
    here = on_this_disk(config.base)
    if here and here.is_dir():
        update["base"] = str(here)
    return config.model_copy(update=update)


def _base(config: TrainConfig) -> Parent:
    """The base model; of one on the hub the commit that the run was begun with."""
    begun = None if config.overwrite else recorded(open_store(config.out))
    for parent in begun.inputs if begun else ():
        if (parent.role, parent.uri) == ("base", config.base) and _is_commit(parent):
            return parent
    return as_input(config.base, "base")


def _is_commit(base: Parent) -> bool:
    """Whether a base model was recorded by a commit of the hub, which is a SHA-1."""
    return hub_id(base.uri) is not None and len(base.digest) == 40


def _for_workers(config: TrainConfig, base: Parent) -> dict[str, Any]:
    """The configuration, its base model fixed to what the run was begun with."""
    if _is_commit(base):
        config = config.model_copy(update={"base": pinned(base.uri, base.digest)})
    return {"config": config.model_dump(mode="json"), "base_digest": content_digest(base)}


def _with_depth_ranges(config: TrainConfig, shards: list[ShardIndex]) -> TrainConfig:
    """Defaults follow from what the shards were made of; what is trained is recorded."""
    ranges_m = depth_ranges_m(config.data.max_depth_m, shards)
    data = config.data.model_copy(update={"max_depth_m": ranges_m})
    return config.model_copy(update={"data": data})


def _as_begun(config: TrainConfig) -> TrainConfig:
    """A run of version 1 keeps the one range of depth that it was begun with."""
    begun = recorded(open_store(config.out))
    if begun is None or begun.identity_version > 1 or config.data.max_depth_m:
        return config
    single = begun.config.get("data", {}).get("max_depth_m")
    if not isinstance(single, int | float):
        return config
    ranges = {"max_depth_m": (float(single),) * len(config.data.uris)}
    return config.model_copy(update={"data": config.data.model_copy(update=ranges)})


def _require_possible(config: TrainConfig, place: Place) -> bool:
    """Raises what can be known before anything is claimed; whether the run uses GPUs."""
    if place.record is not None and not place.replaces:
        record = place.record
        version_1 = record.identity_version == 1
        checkpoint = newest(place.store, record.id, version_1=version_1)
        if checkpoint:
            require_restorable(checkpoint, config)
    base = place.inputs[0]
    if not base.digest and hub_id(base.uri):
        commit_of(base.uri)  # raises what kept it from being known
    _require_trainable(config, base, deletes=place.replaces)
    check_tracking(config.tracking, config.register_as)
    return _require_cluster(config)


def _require_trainable(config: TrainConfig, base: Parent, *, deletes: bool) -> None:
    """Raises ModelError if the base model is not taken, is not whole as far as that can be seen
    from here, or does not take what this run gives it."""
    if config.base == BLANK:
        return
    name = pinned(base.uri, base.digest) if _is_commit(base) else config.base
    found = recognized_at(name)
    conditional = is_conditional(config.objective)
    backbone = layout(found.backbone)
    backbone.require_trainable(config.base, found, config.model, conditional=conditional)
    if found.note:
        log.info("%s", found.note)
    if "://" not in name and hub_id(name) is None:
        require_all_weights(find_model(name))
        if deletes:
            from e2eft.model.pretrained import require_tensors

            require_tensors(find_model(name))
    if label_codec(config.task).has_directions and found.card.axes != "right-up-viewer":
        log.info(
            "the trained model's %s will be right-up-viewer, as diffusers reads them", config.task
        )


def _require_cluster(config: TrainConfig) -> bool:
    """Connects; raises ValueError if the cluster cannot hold the run; whether it uses GPUs."""
    connect()
    wanted = config.scaling.use_gpu
    use_gpu = count_gpus() >= 1 if wanted == "auto" else wanted == "yes"
    require_room(
        config.scaling.num_workers, config.scaling.cpus_per_worker, gpus=1 if use_gpu else 0
    )
    _require_reachable_tracking(config)
    return use_gpu


def _require_reachable_tracking(config: TrainConfig) -> None:
    import ray

    uri = resolve_uri(config.tracking)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if config.tracking.enabled and not is_server(uri) and len(nodes) > 1:
        raise ValueError(
            f"--tracking-uri {shown(uri)} is a file on this machine, but the cluster has "
            f"{len(nodes)} nodes; give the address of an MLflow server, or --no-tracking"
        )


def _describe(run: Run, config: TrainConfig, parents: tuple[Parent, ...]) -> None:
    run.params(config.parameters())
    run.json({"config": config.model_dump(mode="json")}, "config.json")
    for parent in parents:
        run.dataset(parent.uri, parent.digest, "training")
    run.tags({f"e2eft.data.{i}": parent.digest for i, parent in enumerate(parents)})


def _fit(config: TrainConfig, claim: Claim, run: Run, use_gpu: bool) -> None:
    from ray.train import (
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )
    from ray.train.torch import TorchConfig, TorchTrainer

    from e2eft.train.failures import EndOrRestart, as_error

    resources: dict[str, float] = {"CPU": config.scaling.cpus_per_worker}
    if use_gpu:
        resources["GPU"] = 1
    settings = {
        **_for_workers(config, claim.place.inputs[0]),
        "run": None if isinstance(run, NoRun) else {"uri": run.uri, "run_id": run.run_id},
        "writer": vars(claim.writer),
        "version_1": claim.record.identity_version == 1,
    }
    # Nothing here asks whether a node will go, which Ray Train would watch for.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Train's own state ends with this process; checkpoints are the artifact's.
    scratch = tempfile.mkdtemp(prefix="e2eft-ray-train-")
    trainer = TorchTrainer(
        _run_rank,
        train_loop_config=settings,
        # The last resort: a rank's own watch names what it waits for, and sooner.
        torch_config=TorchConfig(timeout_s=math.ceil(2 * config.scaling.hang_timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=config.scaling.num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=RUN_NAME,
            storage_path=scratch,
            logging_config=LoggingConfig(log_level="WARNING"),
            failure_config=FailureConfig(max_failures=config.scaling.max_failures),
            callbacks=[EndOrRestart(config.scaling.max_failures)],
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as failed:
        raise as_error(failed) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_rank(settings: dict[str, Any]) -> None:
    """What Ray Train runs on every worker, which alone imports what it needs."""
    from e2eft.train.worker import train_worker

    train_worker(settings)


def _register(config: TrainConfig, run: Run, artifact: Artifact) -> None:
    assert config.register_as is not None
    with tempfile.TemporaryDirectory(prefix="e2eft-register-") as scratch:
        source = find_model(artifact.uri, Path(scratch))
        model = register_model(
            config.tracking,
            run,
            config.register_as,
            Path(source.root),
            card=recognized(source).card.as_json(),
            tags={"e2eft.artifact": artifact.uri, "e2eft.artifact.digest": artifact.digest},
        )
    print(f"registered {model.uri}, alias challenger")


def _commit(config: TrainConfig, claim: Claim, run: Run) -> Artifact:
    path = export_path(claim.record.id)
    try:
        exported = json.loads(claim.store.read(path))
    except MissingError:
        raise TrainingError(
            f"training ended without writing a model to {config.out}/{MODEL_FOLDER}"
        ) from None
    if lost := label_codec(config.task, config.depth_target).exported:
        print(f"the trained model: {lost}")
    return claim.commit(
        files=[FileEntry(**entry) for entry in exported["files"]],
        counts={"optimizer_steps": config.schedule.max_steps},
        parents=claim.place.inputs,
        details={"mlflow_run_id": run.run_id},
    )
