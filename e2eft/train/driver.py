"""The driver's side of a training run: claim, place, wait, commit."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from e2eft.artifacts import CLAIM, Artifact, Parent, claim, commit, entries
from e2eft.cluster import connect, count_gpus, require_room
from e2eft.config import TrainConfig
from e2eft.data.shards import open_shards, require_truth
from e2eft.model.pretrained import (
    BLANK,
    MODEL_FOLDER,
    MODEL_KIND,
    find_model,
    read_source_card,
)
from e2eft.storage import absolute, open_store
from e2eft.tracking import NoRun, Run, is_server, register_model, resolve_uri, start_run
from e2eft.train.worker import train_worker

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"


def run(config: TrainConfig) -> Artifact:
    """Trains, or resumes, or finds the work done; returns the committed model artifact.

    Raises:
        ValueError: (and its subclasses) for anything the user can correct, before workers start.
        RuntimeError: if training itself failed; a second call resumes from the last checkpoint.
    """
    config = _with_absolute_uris(config)
    shards = [open_shards(uri) for uri in config.data.uris]
    for index in shards:
        require_truth(index, config.task)
    parents = tuple(index.artifact.as_parent("data") for index in shards)
    store = open_store(config.out)
    if not store.exists(CLAIM):
        # First of all: a folder must not stay taken by a run that could never have begun.
        _require_base(config)
        _require_cluster(config)
    done = claim(store, MODEL_KIND, config, config.overwrite)
    if done:
        print(f"already trained: {config.out} (nothing to do)")
        return done
    use_gpu = _require_cluster(config)
    run = start_run(
        config.tracking,
        f"train-{config.task}",
        f"{MODEL_KIND}:{config.digest()}:{config.out}",
        {"e2eft.stage": "train", "e2eft.out": config.out},
    )
    _describe(run, config, parents)
    try:
        _fit(config, run, use_gpu)
    except BaseException:
        run.finish("FAILED")
        raise
    artifact = _commit(config, run, parents)
    if config.register_as:
        _register(config, run, artifact)
    run.finish()
    return artifact


def _with_absolute_uris(config: TrainConfig) -> TrainConfig:
    """Relative folders resolved here, since workers run elsewhere."""
    update: dict[str, Any] = {
        "out": absolute(config.out),
        "data": config.data.model_copy(update={"uris": tuple(map(absolute, config.data.uris))}),
        "panel": config.panel.model_copy(update={"uris": tuple(map(absolute, config.panel.uris))}),
    }
    if "://" not in config.base and os.path.isdir(os.path.expanduser(config.base)):
        update["base"] = absolute(config.base)
    return config.model_copy(update=update)


def _require_base(config: TrainConfig) -> None:
    """Raises ModelError if the base is a name or a folder that is no model; looks no further."""
    if config.base != BLANK and "://" not in config.base:
        find_model(config.base)


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
            f"--tracking-uri {uri} is a file on this machine, but the cluster has {len(nodes)} "
            "nodes; give the address of an MLflow server, or --no-tracking"
        )


def _describe(run: Run, config: TrainConfig, parents: tuple[Parent, ...]) -> None:
    run.params(config.parameters())
    run.json({"config": config.model_dump(mode="json")}, "config.json")
    for parent in parents:
        run.dataset(parent.uri, parent.digest, "training")
    run.tags({f"e2eft.data.{i}": parent.digest for i, parent in enumerate(parents)})


def _fit(config: TrainConfig, run: Run, use_gpu: bool) -> None:
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem, base = _checkpoint_filesystem(config.out)
    resources: dict[str, float] = {"CPU": config.scaling.cpus_per_worker}
    if use_gpu:
        resources["GPU"] = 1
    settings = {
        "config": config.model_dump(mode="json"),
        "run": None if isinstance(run, NoRun) else {"uri": run.uri, "run_id": run.run_id},
    }
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=config.scaling.num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=base,
            storage_filesystem=filesystem,
            logging_config=LoggingConfig(log_level="WARNING"),
            failure_config=FailureConfig(max_failures=config.scaling.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.checkpoint.keep),
        ),
    )
    trainer.fit()


def _checkpoint_filesystem(uri: str) -> tuple[Any, str]:
    """What Ray Train writes checkpoints to, and the artifact's path in it."""
    import pyarrow.fs as pafs

    if not uri.startswith("s3://"):
        return pafs.LocalFileSystem(), open_store(uri).uri
    options: dict[str, Any] = {"region": os.environ.get("AWS_DEFAULT_REGION", "us-east-1")}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        parsed = urlparse(endpoint)
        options |= {"endpoint_override": parsed.netloc, "scheme": parsed.scheme}
    return pafs.S3FileSystem(**options), uri.removeprefix("s3://")


def _register(config: TrainConfig, run: Run, artifact: Artifact) -> None:
    assert config.register_as is not None
    with tempfile.TemporaryDirectory(prefix="e2eft-register-") as scratch:
        source = find_model(artifact.uri, Path(scratch))
        model = register_model(
            config.tracking,
            run,
            config.register_as,
            Path(source.unet),
            card=read_source_card(source).as_json(),
            tags={"e2eft.artifact": artifact.uri, "e2eft.artifact.digest": artifact.digest},
        )
    print(f"registered {model.uri}, alias challenger")


def _commit(config: TrainConfig, run: Run, parents: tuple[Parent, ...]) -> Artifact:
    store = open_store(config.out)
    paths = [path for path, _ in store.list(f"{MODEL_FOLDER}/")]
    if not paths:
        raise RuntimeError(f"training ended without writing a model to {config.out}/{MODEL_FOLDER}")
    base = Parent(role="base", uri=config.base, digest="")
    artifact = commit(
        store,
        MODEL_KIND,
        config,
        files=entries(store, paths),
        counts={"optimizer_steps": config.schedule.max_steps},
        parents=(base, *parents),
        details={"mlflow_run_id": run.run_id},
    )
    run.tags({"e2eft.model.digest": artifact.digest})
    return artifact
