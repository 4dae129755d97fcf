"""A handful of what `make chaos` does: jobs that are attacked, run again, and compared."""

from collections.abc import Iterator

import pytest

from tests.chaos.chain import Attack, Chain, Kind, attacks_of
from tests.chaos.field import Field, field
from tests.chaos.jobs import Job, Place
from tests.chaos.watch import Phase

HANDFUL: dict[tuple[Job, Place], dict[Phase, Kind]] = {
    (Job("prepare"), "s3"): {"claim": "driver", "part": "store", "commit": "driver"},
    (Job("train", 2), "disk"): {"upload": "writer", "register": "stop", "after": "driver"},
    (Job("label"), "disk"): {"part": "second", "commit": "full"},
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with field(tmp_path_factory.mktemp("chaos")) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize(("job", "place"), HANDFUL, ids=lambda value: getattr(value, "name", value))
def test_attacked_and_run_again_it_ends_as_if_undisturbed(
    there: Field, job: Job, place: Place
) -> None:
    undisturbed = Chain(there, job, "disk", f"undisturbed-{job.name}", [])
    expected = undisturbed.run(None)
    assert expected and undisturbed.wrong == []
    attacks = [Attack(phase, 1, kind) for phase, kind in HANDFUL[job, place].items()]
    chain = Chain(there, job, place, f"attacked-{job.name}", attacks)
    chain.run(expected)
    assert chain.wrong == [] and chain.missed == []
    assert [landing.attack for landing in chain.landed] == attacks
    assert all(landing.dead is not False for landing in chain.landed)


@pytest.mark.deep
@pytest.mark.parametrize("place", ["disk", "s3"])
@pytest.mark.parametrize(
    "job", [Job("prepare"), Job("train", 3), Job("label")], ids=lambda j: j.name
)
def test_attacked_at_every_phase(there: Field, job: Job, place: Place) -> None:
    undisturbed = Chain(there, job, "disk", f"undisturbed-{place}-{job.name}", [])
    expected = undisturbed.run(None)
    chain = Chain(there, job, place, f"every-{job.name}", attacks_of(job, place, 0))
    chain.run(expected)
    assert chain.wrong == []
