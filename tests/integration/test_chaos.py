"""A handful of what `make chaos` does: jobs that are attacked, run again, and compared."""

from pathlib import Path

import pytest

from tests.chaos.chain import Attack, Chain, Kind
from tests.chaos.field import Field, field
from tests.chaos.jobs import Job, Place
from tests.chaos.watch import Phase


def require_equal_to_undisturbed(
    there: Field, job: Job, place: Place, attacks_at: dict[Phase, Kind]
) -> None:
    undisturbed = Chain(there, job, "disk", f"undisturbed-{job.name}", [])
    expected = undisturbed.run(None)
    assert expected and undisturbed.wrong == []
    attacks = [Attack(phase, 1, kind) for phase, kind in attacks_at.items()]
    chain = Chain(there, job, place, f"attacked-{job.name}", attacks, away_s=5.0)
    chain.run(expected)
    assert chain.wrong == [] and chain.missed == []
    assert [landing.attack for landing in chain.landed] == attacks
    assert all(landing.dead is not False for landing in chain.landed)


@pytest.mark.slow
def test_attacked_and_run_again_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """S3 away at a part, the driver killed at the commit; on local clusters."""
    with field(tmp_path, nodes=False) as here:
        attacks: dict[Phase, Kind] = {"part": "store", "commit": "driver"}
        require_equal_to_undisturbed(here, Job("prepare"), "s3", attacks)


@pytest.mark.deep
def test_attacked_on_three_nodes_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    attacks: dict[Phase, Kind] = {"register": "stop"}
    with field(tmp_path) as there:
        require_equal_to_undisturbed(there, Job("train", 2), "disk", attacks)
