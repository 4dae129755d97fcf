"""One process group for all tests of training: DeepSpeed remembers the first it sees."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.frames import write_analytic_shards


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process is rank 0 of 1."""
    rendezvous = tmp_path_factory.mktemp("rendezvous") / "file"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"
        }.items():  # fmt: skip
            patch.setenv(name, value)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the blank model lies once it was asked for."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def shards_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve tiny analytic frames."""
    uri = str(tmp_path_factory.mktemp("data") / "shards")
    return write_analytic_shards(uri, 12, height=16, width=24).uri
