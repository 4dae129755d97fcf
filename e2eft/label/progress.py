"""How far labelling is, in lines that a log can keep."""

import time
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from e2eft.labels.index import DEGRADED, OK, REJECTED

PROGRESS_EVERY_S = 10.0


@dataclass
class Progress:
    """Counts of each corpus, their sum and its rate, as lines that a log can keep."""

    planned: int
    before: int
    corpora: list[Counter[str]]
    started: float = field(default_factory=time.monotonic)
    reported: float = float("-inf")

    @property
    def outcomes(self) -> Counter[str]:
        return sum(self.corpora, Counter())

    @property
    def images_per_s(self) -> float:
        return self.outcomes.total() / max(time.monotonic() - self.started, 1e-6)

    def add(self, corpus: int, rows: pa.Table) -> bool:
        """Whether it is time for a line."""
        self.corpora[corpus].update(rows["status"].to_pylist())
        done = self.before + self.outcomes.total()
        due = time.monotonic() - self.reported > PROGRESS_EVERY_S or done == self.planned
        if due:
            self.reported = time.monotonic()
        return due

    def line(self) -> str:
        outcomes, rate = self.outcomes, self.images_per_s
        done = self.before + outcomes.total()
        return (
            f"{done}/{self.planned} images  {rate:.2f}/s  {outcomes[OK]} ok  "
            f"{outcomes[DEGRADED]} degraded  {outcomes[REJECTED]} rejected  "
            f"{(self.planned - done) / rate:.0f} s left"
        )
