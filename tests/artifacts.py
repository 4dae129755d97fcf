"""Artifacts made by hand, as a stage makes them: look, take, write, commit, release."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from e2eft.artifacts import (
    Artifact,
    ArtifactError,
    Claim,
    DisplacedError,
    FileEntry,
    Owned,
    Parent,
    look,
)
from e2eft.config import StageConfig
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import Store, open_store

EVERYTHING = Owned(patterns=(), results=(r".+",))
"""Such an artifact's folder holds nothing else."""


def begin(store: Store, kind: str, config: StageConfig, inputs: tuple[Parent, ...] = ()) -> Claim:
    """The claim of an unfinished artifact; to be released, best by `with`."""
    return look(store, kind, config, inputs, EVERYTHING).take()


def write_artifact(
    store: Store,
    kind: str,
    config: StageConfig,
    *,
    files: Mapping[str, bytes],
    counts: dict[str, int],
    parents: tuple[Parent, ...] = (),
    details: dict[str, Any] | None = None,
    unlisted: Mapping[str, bytes] | None = None,
) -> Artifact:
    """An artifact of these files.

    unlisted: what lies beside them, known to one of them only.
    """
    with begin(store, kind, config) as claim:
        for name, content in (unlisted or {}).items():
            claim.put(name, content)
        written = [claim.put(name, content) for name, content in files.items()]
        return claim.commit(files=written, counts=counts, parents=parents, details=details)


KIND = "shards"
OWNED = Owned((r"data/part-\d+",), results=(r"parts/[0-9a-f]+/part-\d+\.json",))
"""What the small jobs of these tests write."""
PARTS = ("data/part-0", "data/part-1", "data/part-2")


def config_of(store: Store, seed: int = 0, **fields: Any) -> PrepareConfig:
    """Of a small job; two seeds are two configurations."""
    return PrepareConfig(
        out=store.uri, source=SyntheticSource(family="indoor", seed=seed), **fields
    )


def work(config: PrepareConfig, store: Store | None = None) -> Artifact:
    """A whole small job: three parts, each with the record that registers it, and the commit."""
    place = look(store or open_store(config.out), KIND, config, (), OWNED)
    if place.finished:
        return place.finished
    with place.take() as claim:
        return claim.finished or work_in(claim)


def work_in(claim: Claim) -> Artifact:
    """The same in a folder that is taken."""
    seed = claim.record.config["source"]["seed"]
    files: list[FileEntry] = []
    for name in PARTS:
        record = f"parts/{claim.record.id}/{name.removeprefix('data/')}.json"
        if not claim.store.exists(record):
            made = claim.put(name, f"{name} of {seed} ".encode() * 100)
            claim.writer.create(record, json.dumps(vars(made)).encode())
        files.append(FileEntry(**json.loads(claim.store.read(record))))
    return claim.commit(files=files, counts={"frames": len(PARTS)})


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, hidden ones and folders (None) included."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def before_change(number: int, do: Callable[[], None]) -> None:
    """Makes this process call `do` before its `number`-th change (from 0) to a disk: every linking,
    renaming and unlinking, which is how `LocalStore` writes, creates and deletes."""
    count = iter(range(1 << 30))

    def hooked(change: Callable[..., Any]) -> Callable[..., Any]:
        def changing(*args: Any, **kwargs: Any) -> Any:
            if next(count) == number:
                do()
            return change(*args, **kwargs)

        return changing

    for name in ("link", "replace", "rename", "unlink"):
        setattr(os, name, hooked(getattr(os, name)))


DISPLACED, REFUSED = 3, 4


def forked(job: Callable[[], object]) -> int:
    """The id of a child process that does `job`, and ends with 0, DISPLACED, REFUSED, or 1."""
    if child := os.fork():
        return child
    code = 1
    try:
        job()
        code = 0
    except DisplacedError:
        code = DISPLACED
    except ArtifactError as error:
        print(error, file=sys.stderr)
        code = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, or minus the signal that ended or stopped it."""
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return -os.WSTOPSIG(status)
    return os.waitstatus_to_exitcode(status)
