"""`python -m tests.chaos`: attacks the stages until every phase has been hit often enough."""

import argparse
import time
from pathlib import Path

from tests.chaos.chain import Chain, attacks_of
from tests.chaos.field import Field, field
from tests.chaos.jobs import JOBS, Job, Place, remember, remembered
from tests.chaos.mends import MENDS, noticed
from tests.chaos.report import EACH, PHASES, Ledger, commit, short, table
from tests.ray_cluster import REPOSITORY

PAGE = REPOSITORY / "benchmarks/results/chaos.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.chaos")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "chaos", help="work and ledger")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after these; go on later")
    parser.add_argument(
        "--each", type=int, default=EACH, help="kills that shall land at every phase"
    )
    parser.add_argument("--only", nargs="*", default=[], help="jobs, e.g. label train-zero-3")
    parser.add_argument("--phases", nargs="*", default=[], choices=PHASES, help="attack these only")
    parser.add_argument("--no-mends", action="store_true", help="leave out the safeguards' turn")
    parser.add_argument("--page", type=Path, default=PAGE, help="the table")
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    given.folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(given.folder / "ledger.jsonl", commit())
    jobs = [job for job in JOBS if not given.only or job.name in given.only]
    if not given.no_mends:
        _without_mends(ledger, given.folder, end)
    with field(given.folder) as there:
        while (missing := _missing(ledger, jobs, given)) and time.monotonic() < end:
            # Those that have had the fewest chains first, so that a short session sees all.
            job, place = min(missing, key=lambda pair: ledger.chains(pair[0].name, pair[1]))
            _attack(there, ledger, job, place, given.phases)
            given.page.write_text(table(ledger))
    given.page.write_text(table(ledger))
    print(f"\n{given.page}: " + ("all done" if not missing else "not done; run it again to go on"))


def _missing(ledger: Ledger, jobs: list[Job], given: argparse.Namespace) -> list[tuple[Job, Place]]:
    places: tuple[Place, ...] = ("disk", "s3")
    return [
        (job, place)
        for job in jobs
        for place in places
        if any(
            ledger.kills(job.name, place)[phase] < given.each
            for phase in job.phases
            if not given.phases or phase in given.phases
        )
    ]


def _attack(there: Field, ledger: Ledger, job: Job, place: Place, phases: list[str]) -> None:
    kept = there.folder / f"expected-{ledger.commit}-{job.name}.json"
    expected = None if ledger.commit.endswith("+") else remembered(kept)
    if expected is None:
        undisturbed = Chain(there, job, "disk", f"undisturbed-{job.name}", [])
        expected = undisturbed.run(None)
        assert expected and not undisturbed.wrong, undisturbed.wrong
        remember(expected, kept)
    number = ledger.chains(job.name, place)
    attacks = [
        attack for attack in attacks_of(job, place, number) if not phases or attack.phase in phases
    ]
    chain = Chain(there, job, place, f"{job.name}-{place}-{number:03d}", attacks)
    there.delete(chain.out)
    started = time.monotonic()
    chain.run(expected)
    ledger.add_chain(chain)
    landed = " ".join(f"{one.attack.phase}:{one.attack.kind}" for one in chain.landed)
    took, said = time.monotonic() - started, short("\n".join(chain.wrong)) or "ok"
    print(f"{chain.name} {took:.0f} s  {len(chain.codes)} runs  {landed}  {said}", flush=True)
    if not chain.wrong:
        there.delete(chain.out)


def _without_mends(ledger: Ledger, folder: Path, end: float) -> None:
    done = {entry["mend"] for entry in ledger.entries("mend")}
    for number, mend in enumerate(MENDS):
        if mend.name in done or time.monotonic() > end:
            continue
        said = noticed(mend, folder / f"mend-{number}", number)
        ledger.add({"what": "mend", "mend": mend.name, "attacked": mend.attacked, "noticed": said})
        print(f"without {mend.name!r}: {short(said) or 'NOTHING NOTICED'}", flush=True)


if __name__ == "__main__":
    main()
