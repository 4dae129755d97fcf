"""Checkpoints as the ranks of one worker group make and restore them, together."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch.distributed as dist

from e2eft.artifacts import DisplacedError, FileEntry, Writer
from e2eft.artifacts.ownership import Epochs
from e2eft.config import TrainConfig
from e2eft.errors import E2eftError, as_json, from_json
from e2eft.model.source import MODEL_FOLDER
from e2eft.train.checkpoints import (
    Checkpoint,
    attempt_folder,
    download,
    export_path,
    newest,
    register,
    upload,
)


class RankCheckpoints:
    """One rank's part in them. Every method but `export` is collective."""

    def __init__(self, writer: Writer, config: TrainConfig, version_1: bool) -> None:
        self.writer, self.config, self.version_1 = writer, config, version_1
        self.store = writer.store
        self._attempt = ""

    @contextmanager
    def restored(self) -> Iterator[tuple[Checkpoint | None, Path | None]]:
        """The newest checkpoint, which rank 0 chooses, and a copy of it on this node.

        Raises:
            E2eftError: on every rank, what kept one of them from it.
        """
        chosen = _of_rank_0(self._choose)
        checkpoint, self._attempt = chosen
        with ExitStack() as stack:
            mine: Any = None
            if checkpoint and os.environ["LOCAL_RANK"] == "0":
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="e2eft-restored-"))
                mine = _outcome(lambda: self._fetch(checkpoint, Path(scratch)))
            node, everywhere = os.environ["NODE_RANK"], _gather((os.environ["NODE_RANK"], mine))
            found = dict(_checked(there) for there in everywhere if there[1])
            yield checkpoint, Path(found[node]) if checkpoint else None
            # Until here the files are needed by every rank of the node.
            dist.barrier()

    def _choose(self) -> tuple[Checkpoint | None, str]:
        found = newest(self.store, self.writer.claim_id, version_1=self.version_1)
        return found, secrets.token_hex(4)

    def _fetch(self, checkpoint: Checkpoint, folder: Path) -> str:
        download(self.store, checkpoint, folder)
        return str(folder)

    def save(self, step: int, folder: Path) -> None:
        """Uploads what every rank has in its `folder`, which goes; rank 0 registers it all.

        Raises:
            DisplacedError: if another job has taken the artifact over.
            E2eftError: on every rank, what kept one of them from it.
        """
        target = attempt_folder(self.writer, step, self._attempt)
        mine = _outcome(lambda: [asdict(e) for e in upload(self.store, folder, target)])
        shutil.rmtree(folder)
        written = [_checked((rank, made))[1] for rank, made in enumerate(_gather(mine))]
        files = tuple(FileEntry(**entry) for entry in chain.from_iterable(written))
        _of_rank_0(lambda: self._register(step, target, files))

    def _register(self, step: int, target: str, files: tuple[FileEntry, ...]) -> None:
        self._require_owner()
        zero = self.config.zero
        checkpoint = Checkpoint(
            step=step,
            epoch=self.writer.epoch,
            folder=target,
            files=files,
            world_size=dist.get_world_size(),
            zero_stage=zero.stage,
            precision=zero.precision,
        )
        register(self.writer, checkpoint, self.config.checkpoint.keep)

    def _require_owner(self) -> None:
        epochs = Epochs(self.store, self.writer.claim_id)
        if epochs.newest() != self.writer.epoch:
            raise DisplacedError(f"{self.store.uri} has been taken over by another job")

    def export(self, folder: Path) -> None:
        """Writes the trained model, and that it is written. For rank 0."""
        import json

        self._require_owner()
        files = [asdict(entry) for entry in self.writer.put_folder(MODEL_FOLDER, folder)]
        self.writer.create(export_path(self.writer.claim_id), json.dumps({"files": files}).encode())


def _outcome(work: Any) -> Any:
    """What work returns, or its error as data."""
    try:
        return {"made": work()}
    except E2eftError as error:
        return {"error": as_json(error)}


def _checked(there: tuple[Any, Any]) -> tuple[Any, Any]:
    name, outcome = there
    if "error" in outcome:
        raise from_json(outcome["error"])
    return name, outcome["made"]


def _gather(mine: Any) -> list[Any]:
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, mine)
    return everywhere


def _of_rank_0(work: Any) -> Any:
    """What rank 0 makes, on every rank; so are its errors."""
    mine = _outcome(work) if dist.get_rank() == 0 else None
    return _checked((0, _gather(mine)[0]))[1]
