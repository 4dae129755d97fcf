"""What has happened so far, kept as lines of JSON, and the table of it."""

import json
import platform
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.chain import Chain
from tests.chaos.jobs import JOBS
from tests.ray_cluster import REPOSITORY

EACH = 10
"""Kills that shall land at every phase of every job, on disk and on S3."""
KILLS = ("driver", "writer", "node", "stop")
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
        return Counter(
            landing["phase"]
            for chain in self.entries("chain")
            if (chain["job"], chain["place"]) == (job, place)
            for landing in chain["landed"]
            if has_landed(landing)
        )

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


def _by_commit(chains: list[dict[str, Any]]) -> str:
    numbers = Counter(chain["commit"] for chain in chains)
    return ", ".join(f"{number} at {commit}" for commit, number in numbers.items()) or "none"


def table(ledger: Ledger) -> str:
    """The page for people."""
    chains = ledger.entries("chain")
    landed = [landing for chain in chains for landing in chain["landed"]]
    kinds = Counter(landing["kind"] for landing in landed)
    wrong = [(chain["chain"], said) for chain in chains for said in chain["wrong"]]
    runs = sum(len(chain["codes"]) for chain in chains)
    wanted = [
        ledger.kills(job.name, place)[phase]
        for job in JOBS
        for place in PLACES
        for phase in job.phases
    ]
    lines = [
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
        f"Chains: {len(chains)}, runs: {runs}, attacks that landed: {len(landed)}. "
        f"Chains that ended with files equal to an "
        "undisturbed run's, byte for byte, and 0 keys lost or doubled: "
        f"{sum(chain['wrong'] == [] for chain in chains)}.",
        "",
        "## Kills that landed, by phase",
        "",
        f"{EACH} are wanted in each of {len(wanted)} cells; {sum(n >= EACH for n in wanted)} have "
        "them.",
        "",
        "| job | store | claim | part | upload | register | prune | export | commit | after |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    phases = ("claim", "part", "upload", "register", "prune", "export", "commit", "after")
    for job in JOBS:
        for place, shown in PLACES.items():
            kills = ledger.kills(job.name, place)
            cells = [str(kills[p]) if p in job.phases else "" for p in phases]
            lines.append(f"| {job.name} | {shown} | {' | '.join(cells)} |")
    sums = Counter(
        landing["phase"] for chain in chains for landing in chain["landed"] if has_landed(landing)
    )
    lines.append(f"| all | both | {' | '.join(str(sums[phase]) for phase in phases)} |")
    lines += [
        "",
        "claim: before the claim or the epoch is created. part: before a file of a part or its "
        "record. upload: between two files of a checkpoint. register: before a checkpoint's "
        "registration. prune: before an older one is removed. export: before a file of the model. "
        "commit: before the manifest. after: when the manifest is there, and the rest is not done.",
        "",
        "| attack | times |",
        "|---|---|",
        f"| SIGKILL to the driver | {kinds['driver']} |",
        f"| SIGKILL to the process that writes | {kinds['writer']} |",
        f"| SIGKILL to a node of the cluster | {kinds['node']} |",
        f"| SIGSTOP to the driver, another one takes over, the first goes on | {kinds['stop']} |",
        *(f"| {shown} | {kinds[kind]} |" for kind, shown in OTHERS.items()),
        "",
    ]
    lines += ["## What was not as it should be", ""]
    lines += [f"- {name}: {' '.join(said.split())[:300]}" for name, said in wrong] or ["Nothing."]
    if mends := ledger.entries("mend"):
        lines += ["", "## With a safeguard taken out", ""]
        lines += ["| taken out | attacked | noticed |", "|---|---|---|"]
        for entry in {entry["mend"]: entry for entry in mends}.values():
            said = entry["noticed"].partition("\n")[0][:160].replace("|", "/")
            lines.append(f"| {entry['mend']} | {entry['attacked']} | {said or '**nothing**'} |")
    return "\n".join(lines) + "\n"
