"""Cases in processes of their own, of which one may die or hang without harm to the others."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from tests.mutations.cases import case, fault, is_undetected, verdict_on
from tests.mutations.judge import Verdict

HANGS_S = 20.0


@dataclass(frozen=True)
class Result:
    """One line of the ledger. fault: what is wrong with the verdict; "" if nothing is."""

    kind: str
    seed: int
    layout: str
    damage: str
    outcome: str
    fault: str
    undetected: bool = False
    compared: bool = False


def result_of(kind: str, seed: int) -> Result:
    """What becomes of a case, in this process."""
    one = case(kind, seed)
    try:
        verdict = verdict_on(one)
        wrong = fault(kind, one, verdict)
    except Exception:
        verdict, wrong = Verdict("raised"), traceback.format_exc(limit=-1)
    return Result(
        kind, seed, one.layout, one.damage, verdict.outcome, wrong,
        is_undetected(one, verdict), verdict.apart is not None,
    )  # fmt: skip


Judge = Callable[[str, int], Result]


def _serve(pipe: Connection, judge: Judge) -> None:
    while True:
        pipe.send(judge(*pipe.recv()))


class _Worker:
    def __init__(self, judge: Judge, hangs_s: float) -> None:
        self.hangs_s = hangs_s
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, judge), daemon=True)
        self.process.start()
        other.close()

    def ask(self, wanted: tuple[str, int]) -> None:
        self.wanted = wanted
        self.pipe.send(wanted)

    def answer(self) -> Result:
        """What it found, or how it ended."""
        kind, seed = self.wanted
        one = case(kind, seed)
        try:
            if self.pipe.poll(self.hangs_s):
                return self.pipe.recv()
            said = f"hangs for {self.hangs_s:g} s"
        except EOFError:
            self.process.join()
            said = f"its process ended with {self.process.exitcode}"
        self.process.kill()
        self.process.join()
        return Result(kind, seed, one.layout, one.damage, "none", said)


def results(
    wanted: Iterable[tuple[str, int]],
    processes: int,
    judge: Judge = result_of,
    hangs_s: float = HANGS_S,
) -> Iterator[Result]:
    """The results of cases, by kind and seed, in no order."""
    left = iter(wanted)
    workers: dict[Connection, _Worker] = {}

    def start(worker: _Worker) -> None:
        following = next(left, None)
        if following is None:
            worker.process.kill()
            return
        worker.ask(following)
        workers[worker.pipe] = worker

    for _ in range(processes):
        start(_Worker(judge, hangs_s))
    while workers:
        # Whoever has hung for as long as it may is asked as well, and says so.
        ready = [p for p in wait([*workers], hangs_s) if isinstance(p, Connection)]
        for pipe in ready or [*workers]:
            worker = workers.pop(pipe)
            yield worker.answer()
            start(worker if worker.process.is_alive() else _Worker(judge, hangs_s))
