"""What is left to label, and the driver's books of what has come of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from e2eft.artifacts import Claim
from e2eft.corpora.corpus import Corpus
from e2eft.images.reasons import MAY_MEND
from e2eft.label.chunks import Work
from e2eft.labels.index import encode_index, index_schema, part_path


@dataclass(frozen=True)
class Portion:
    """Images that go through the graph together: of a corpus, those of its plan from `start` up to
    `stop`."""

    corpus: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class Ledger:
    """The parts of a corpus that are not committed: takes index rows in any order, and commits
    every part whose rows are all there."""

    claim: Claim
    corpus: Corpus
    work: Work
    parts: Sequence[int]
    images_per_part: int
    waiting: dict[int, list[pa.Table]] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)

    @property
    def portions(self) -> list[Portion]:
        return [self._portion(part) for part in self.parts]

    @property
    def images(self) -> int:
        return sum(map(len, self.portions))

    def _portion(self, part: int) -> Portion:
        start = part * self.images_per_part
        stop = min(start + self.images_per_part, len(self.corpus))
        return Portion(self.work.corpus, start, stop)

    def add(self, rows: pa.Table) -> None:
        for part in rows["part"].unique().to_pylist():
            there = self.waiting.setdefault(part, [])
            there.append(rows.filter(pc.field("part") == part))
            if sum(map(len, there)) == len(self._portion(part)):
                self._commit(part, pa.concat_tables(self.waiting.pop(part)))

    def _commit(self, part: int, rows: pa.Table) -> None:
        content = encode_index(rows, self.claim.digest)
        self.claim.require_owner(fresh=True)
        self.claim.writer.create(part_path(part), content)
        self.committed.add(part)

    def lost(self) -> Iterator[int]:
        """The images, by their index in the plan, of which no row has come."""
        for part in self.parts:
            if part not in self.committed:
                portion, there = self._portion(part), _indices(self.waiting.get(part, []))
                yield from (i for i in range(portion.start, portion.stop) if i not in there)


@dataclass
class Retried:
    """Images of a finished corpus that are tried again, by their index in the plan: keeps the rows
    that come of them."""

    corpus: Corpus
    work: Work
    indices: Sequence[int]
    images_per_part: int
    kept: list[pa.Table] = field(default_factory=list)

    @property
    def portions(self) -> list[Portion]:
        """Those that follow each other in a part, together."""
        numbered = enumerate(sorted(self.indices))
        runs = groupby(numbered, lambda e: (e[1] - e[0], e[1] // self.images_per_part))
        found = [[index for _, index in run] for _, run in runs]
        return [Portion(self.work.corpus, run[0], run[-1] + 1) for run in found]

    @property
    def images(self) -> int:
        return len(self.indices)

    def add(self, rows: pa.Table) -> None:
        self.kept.append(rows)

    def lost(self) -> Iterator[int]:
        """As of a `Ledger`."""
        there = _indices(self.kept)
        yield from (index for index in self.indices if index not in there)

    @property
    def rows(self) -> pa.Table:
        """All that came, by index."""
        return pa.concat_tables([index_schema().empty_table(), *self.kept]).sort_by("index")


Books = Ledger | Retried


def may_mend(index: pa.Table) -> list[int]:
    """Images of an index that were rejected for something that may be gone, by their index."""
    return index.filter(pc.field("reason").isin(sorted(MAY_MEND)))["index"].to_pylist()


def _indices(tables: Sequence[pa.Table]) -> set[int]:
    return {index for rows in tables for index in rows["index"].to_pylist()}
