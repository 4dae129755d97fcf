"""What has happened so far, kept as lines of JSON, and the table of it."""

import json
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.chain import Chain
from tests.chaos.jobs import JOBS
from tests.ray_cluster import REPOSITORY

EACH = 10
"""Kills that shall land at every phase of every job, on disk and on S3."""
PHASES = ("claim", "part", "upload", "register", "prune", "export", "commit", "after")
KILLS = {
    "driver": "SIGKILL to the driver",
    "writer": "SIGKILL to the process that writes",
    "node": "SIGKILL to a node of the cluster",
    "stop": "SIGSTOP to the driver, another one takes over, the first goes on",
}
OTHERS = {"second": "two drivers", "store": "S3 away, 5 to 60 s", "full": "disk full"}
PLACES = {"disk": "disk", "s3": "S3"}


@dataclass(frozen=True)
class Ledger:
    """All that has been done in a folder; every entry tells the commit that it was done at."""

    path: Path
    commit: str

    def add(self, entry: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"commit": self.commit} | entry) + "\n")

    def add_chain(self, chain: Chain) -> None:
        self.add({"what": "chain"} | chain.as_tree())

    def entries(self, what: str) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        trees = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [tree for tree in trees if tree["what"] == what]

    def kills(self, job: str, place: str) -> Counter[str]:
        """How many have landed, by phase."""
        chains = self.entries("chain")
        return _kills(chain for chain in chains if (chain["job"], chain["place"]) == (job, place))

    def chains(self, job: str, place: str) -> int:
        found = self.entries("chain")
        return sum((chain["job"], chain["place"]) == (job, place) for chain in found)


def has_landed(landing: dict[str, Any]) -> bool:
    """Whether a process was seen to be gone, or was stopped, in the midst of its work."""
    return landing["kind"] == "stop" or (landing["kind"] in KILLS and bool(landing["dead"]))


def commit() -> str:
    """The last one that changed the program; marked if the tree differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    program = ("--", "e2eft", "pipelines")
    changed = git("status", "--porcelain", "--untracked-files=no", *program)
    return git("log", "-1", "--format=%h", "--abbrev=10", *program) + ("+" if changed else "")


def table(ledger: Ledger) -> str:
    """The page for people."""
    chains = ledger.entries("chain")
    sections = (
        _summary(chains), _by_phase(ledger, chains), _by_kind(chains), _wrong(chains),
        _mends(ledger.entries("mend")), _log(chains),
    )  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _kills(chains: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many have landed, by phase."""
    return Counter(landing["phase"] for landing in _landed(chains) if has_landed(landing))


def _landed(chains: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [landing for chain in chains for landing in chain["landed"]]


def _by_commit(chains: list[dict[str, Any]]) -> str:
    numbers = Counter(chain["commit"] for chain in chains)
    return ", ".join(f"{number} at {commit}" for commit, number in numbers.items()) or "none"


def _summary(chains: list[dict[str, Any]]) -> list[str]:
    runs = sum(len(chain["codes"]) for chain in chains)
    missed = sum(len(chain["missed"]) for chain in chains)
    return [
        "# Chaos",
        "",
        "Jobs that are killed at a chosen change of their artifact and run again by the same "
        "command, until they are through. Made by `make chaos` (`tests/chaos`), which goes on "
        "where it ended.",
        "",
        f"Python {platform.python_version()}, {platform.machine()}; a Ray cluster of three nodes, "
        "SeaweedFS behind a proxy, an MLflow server. "
        f"Chains by commit of the program: {_by_commit(chains)}.",
        "",
        f"Chains: {len(chains)}, runs: {runs}, attacks that landed: {len(_landed(chains))}, that "
        f"did not: {missed}. Chains that ended with files equal to an undisturbed run's, byte for "
        f"byte, and 0 keys lost or doubled: {sum(chain['wrong'] == [] for chain in chains)}.",
    ]


def _by_phase(ledger: Ledger, chains: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"| job | store | {' | '.join(PHASES)} |",
        "|---" * (2 + len(PHASES)) + "|",
    ]
    wanted: list[int] = []
    for job in JOBS:
        for place, shown in PLACES.items():
            kills = ledger.kills(job.name, place)
            wanted += [kills[phase] for phase in job.phases]
            lines.append(_row(job.name, shown, kills, job.phases))
    summed: list[int] = []
    for stage in dict.fromkeys(job.stage for job in JOBS):
        jobs = [job for job in JOBS if job.stage == stage]
        kills = sum((ledger.kills(job.name, place) for job in jobs for place in PLACES), Counter())
        summed += [kills[phase] for phase in jobs[0].phases]
        lines.append(_row(f"**{stage}**", "both", kills, jobs[0].phases))
    lines.append(_row("**all**", "both", _kills(chains), PHASES))
    return [
        "## Kills that landed, by phase",
        "",
        f"{EACH} are wanted at each of the {len(summed)} phases of a stage, and {_full(summed)} "
        f"have them; of the {len(wanted)} cells of a job and a store {_full(wanted)}.",
        "",
        *lines,
        "",
        "claim: before the claim or the epoch is created. part: before a file of a part or its "
        "record. upload: between two files of a checkpoint. register: before a checkpoint's "
        "registration. prune: before an older one is removed. export: before a file of the model. "
        "commit: before the manifest. after: when the manifest is there, and the rest is not done.",
    ]


def _full(numbers: list[int]) -> int:
    return sum(number >= EACH for number in numbers)


def _row(job: str, store: str, kills: Counter[str], phases: Sequence[str]) -> str:
    cells = (str(kills[phase]) if phase in phases else "" for phase in PHASES)
    return f"| {job} | {store} | {' | '.join(cells)} |"


def _by_kind(chains: list[dict[str, Any]]) -> list[str]:
    kinds = Counter(landing["kind"] for landing in _landed(chains))
    return [
        "| attack | times |",
        "|---|---|",
        *(f"| {shown} | {kinds[kind]} |" for kind, shown in (KILLS | OTHERS).items()),
    ]


def _wrong(chains: list[dict[str, Any]]) -> list[str]:
    said = [f"- {chain['chain']}: {short(each)}" for chain in chains for each in chain["wrong"]]
    return ["## What was not as it should be", "", *(said or ["Nothing."])]


def short(said: str) -> str:
    """What was said first and last, if it is the end of a log; without colours and folders."""
    plain = re.sub(r"\x1b\[\d*m|\^+", "", said).replace("|", "/")
    lines = re.sub(r"(?<![:/\w.])/([\w.-]+/)+", "", plain).splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"


def _mends(mends: list[dict[str, Any]]) -> list[str]:
    """The last turn of each safeguard."""
    rows = []
    for entry in {entry["mend"]: entry for entry in mends}.values():
        said = short(entry["noticed"]) or "**nothing**"
        rows.append(f"| {entry['mend']} | {entry['attacked']} | {entry['commit']} | {said} |")
    heading = ["## With a safeguard taken out", "", "| taken out | attacked | commit | noticed |"]
    return [*heading, "|---|---|---|---|", *rows] if rows else []


def _log(chains: list[dict[str, Any]]) -> list[str]:
    """What each chain went through: where its attacks fell, and how its runs ended."""
    rows = [
        f"| {chain['chain']} | {chain['commit']} | {', '.join(map(str, chain['codes']))} "
        f"| {'; '.join(map(_fell, chain['landed']))} |"
        for chain in chains
    ]
    return [
        "## Log",
        "",
        "Attacks in order, each with the file that was about to be written; of a kill also whether "
        "the process was seen to be gone. Exit codes of the runs; -9 is SIGKILL.",
        "",
        "| chain | commit | exit codes | attacks |",
        "|---|---|---|---|",
        *rows,
    ]


def _fell(landing: dict[str, Any]) -> str:
    said = f"{landing['phase']}: {landing['kind']}, `{landing['path']}`"
    if landing["kind"] == "store":
        return f"{said}, {landing['said']}"
    return said + {True: ", gone", False: ", **not gone**", None: ""}[landing["dead"]]
