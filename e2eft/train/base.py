"""The base model, brought to a node once, whatever number of ranks it has."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist

from e2eft.errors import E2eftError, as_json, from_json
from e2eft.model.hub import ModelError
from e2eft.model.pinned import brought_here, model_files
from e2eft.model.source import ModelSource, find_model
from e2eft.walk import digest_files


@contextmanager
def base_model(name: str, digest: str = "") -> Iterator[ModelSource]:
    """Where the base model lies on this node. Collective.

    The first rank of each node (LOCAL_RANK 0 of NODE_RANK) looks for it, into a folder that goes
    when that rank leaves; by then the others must have loaded it.

    Args:
        digest: of its files; "": whatever they are.

    Raises:
        E2eftError: on every rank, what it was on the first that did not find it.
    """
    node = os.environ["NODE_RANK"]
    with ExitStack() as stack:
        mine: dict[str, Any] = {}
        if os.environ["LOCAL_RANK"] == "0":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="e2eft-base-"))
            mine = _found(name, digest, Path(folder))
        everywhere: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, (node, mine))
        found = {of_node: there for of_node, there in everywhere if there}
        for there in found.values():
            if "error" in there:
                raise from_json(there["error"])
        yield ModelSource(**found[node])


def _found(name: str, digest: str, scratch: Path) -> dict[str, Any]:
    try:
        source = brought_here(find_model(name, scratch))
        if digest and digest_files(model_files(source)) != digest:
            raise ModelError(
                f"the base model {name} has changed since the run began; put it back, or train "
                "with --overwrite"
            )
        return asdict(source)
    except E2eftError as error:
        return {"error": as_json(error)}
