"""Safeguards that can be taken out of a copy of the program, to see that chains notice."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.chain import Attack, Chain
from tests.chaos.field import field
from tests.chaos.jobs import Job, Place
from tests.ray_cluster import REPOSITORY


@dataclass(frozen=True)
class Mend:
    """before, after: the program's text with the safeguard and without; job, place, attack: where
    that is noticed."""

    name: str
    file: str
    before: str
    after: str
    job: Job
    place: Place
    attack: Attack

    @property
    def attacked(self) -> str:
        return f"{self.job.name} on {self.place}: {self.attack.kind} at {self.attack.phase}"


UPLOAD = (
    "        mine = _outcome(lambda: [asdict(e) for e in upload(self.store, folder, target)])\n"
)
MENDS = (
    Mend(
        "a checkpoint is registered after its upload",
        "e2eft/train/rank_checkpoints.py",
        UPLOAD,
        f"        _of_rank_0(lambda: self._register(step, target, ()))\n{UPLOAD}",
        Job("train", 2), "disk", Attack("upload", 2, "driver"),
    ),
    Mend(
        "files and registrations are created exclusively",
        "e2eft/artifacts/writing.py",
        "            return store.create(path, content)\n",
        "            store.write(path, content)\n            return True\n",
        Job("prepare"), "disk", Attack("commit", 1, "stop"),
    ),
    Mend(
        "a newcomer that sees the heartbeat move is refused",
        "e2eft/artifacts/ownership.py",
        "            if now != first:\n",
        "            if now != first:\n                return\n",
        Job("label"), "disk", Attack("part", 2, "second"),
    ),
    Mend(
        "patience with a store that has answered",
        "e2eft/storage/patience.py",
        "    return seconds\n",
        "    return 0.0\n",
        Job("prepare"), "s3", Attack("part", 3, "store"),
    ),
    Mend(
        "what is left after the commit is done by the next run",
        "e2eft/train/driver.py",
        "    else:\n        use_gpu = _require_possible(config, place)\n",
        "        return artifact\n    else:\n        use_gpu = _require_possible(config, place)\n",
        Job("train", 1), "disk", Attack("after", 1, "driver"),
    ),
)  # fmt: skip


@contextmanager
def without(mend: Mend, folder: Path) -> Iterator[Path]:
    """A copy of the program that lacks the safeguard.

    Raises:
        ValueError: if its text is not there exactly once: the program has changed.
    """
    code = folder / "without"
    shutil.rmtree(code, ignore_errors=True)
    for name in ("e2eft", "pipelines"):
        shutil.copytree(
            REPOSITORY / name, code / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    file = code / mend.file
    text = file.read_text()
    if text.count(mend.before) != 1:
        raise ValueError(f"{mend.name}: its text is {text.count(mend.before)} times in {mend.file}")
    file.write_text(text.replace(mend.before, mend.after))
    try:
        yield code
    finally:
        shutil.rmtree(code, ignore_errors=True)


def noticed(mend: Mend, folder: Path, number: int) -> str:
    """What one chain finds wrong without the safeguard; "" if it finds nothing."""
    with without(mend, folder) as code, field(folder, code) as there:
        undisturbed = Chain(there, mend.job, "disk", f"mend-{number}-undisturbed", [])
        expected = undisturbed.run(None)
        if undisturbed.wrong or expected is None:
            return f"not even an undisturbed run ends: {undisturbed.wrong}"
        chain = Chain(there, mend.job, mend.place, f"mend-{number}", [mend.attack])
        chain.run(expected)
        assert chain.landed, f"{mend.attacked}: the attack did not land"
        for done in (undisturbed, chain):
            there.delete(done.out)
    return "\n".join(chain.wrong)
