"""A handful of what `make chaos` does: jobs that are attacked, run again, and compared."""

from collections.abc import Iterator

import pytest

from tests.chaos.chain import Attack, Chain, Kind
from tests.chaos.field import Field, field
from tests.chaos.jobs import Job, Place
from tests.chaos.watch import Phase

Attacks = dict[Phase, Kind]
HANDFUL: list[tuple[Job, Place, Attacks]] = [
    (Job("prepare"), "s3", {"part": "store", "commit": "driver"}),
    (Job("label"), "disk", {"part": "second", "commit": "full"}),
]
"""On a local cluster; the first one in `make test`."""
ON_NODES: list[tuple[Job, Place, Attacks]] = [
    (Job("train", 2), "disk", {"upload": "writer", "register": "stop", "after": "driver"}),
    (
        Job("train", 3),
        "s3",
        {"upload": "driver", "prune": "writer", "commit": "driver"},
    ),
]


def require_equal_to_undisturbed(there: Field, job: Job, place: Place, attacks_at: Attacks) -> None:
    undisturbed = Chain(there, job, "disk", f"undisturbed-{job.name}", [])
    expected = undisturbed.run(None)
    assert expected and undisturbed.wrong == []
    attacks = [Attack(phase, 1, kind) for phase, kind in attacks_at.items()]
    chain = Chain(there, job, place, f"attacked-{job.name}", attacks, away_s=5.0)
    chain.run(expected)
    assert chain.wrong == [] and chain.missed == []
    assert [landing.attack for landing in chain.landed] == attacks
    assert all(landing.dead is not False for landing in chain.landed)


def named(value: Job | Place | Attacks) -> str:
    return value.name if isinstance(value, Job) else "" if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field(tmp_path_factory.mktemp("chaos"), nodes=False) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "place", "attacks_at"),
    [HANDFUL[0], *(pytest.param(*each, marks=pytest.mark.deep) for each in HANDFUL[1:])],
    ids=named,
)
def test_attacked_and_run_again_it_ends_as_if_undisturbed(
    here: Field, job: Job, place: Place, attacks_at: Attacks
) -> None:
    require_equal_to_undisturbed(here, job, place, attacks_at)


@pytest.fixture(scope="module")
def on_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field(tmp_path_factory.mktemp("chaos")) as started:
        yield started


@pytest.mark.deep
@pytest.mark.parametrize(("job", "place", "attacks_at"), ON_NODES, ids=named)
def test_attacked_on_three_nodes_training_ends_in_the_same_bits(
    on_nodes: Field, job: Job, place: Place, attacks_at: Attacks
) -> None:
    require_equal_to_undisturbed(on_nodes, job, place, attacks_at)
