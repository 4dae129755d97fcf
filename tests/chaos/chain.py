"""One command that is run until it is through, under one attack after another."""

import os
import random
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil
from mlflow import MlflowClient

from e2eft.errors import E2eftError
from e2eft.storage import Stored, open_store
from tests.chaos.field import Field
from tests.chaos.jobs import Content, Job, Place, content_of
from tests.chaos.watch import Change, Phase, moment
from tests.services import ServiceProcess

Kind = Literal["driver", "writer", "node", "stop", "second", "store", "full"]
"""driver, writer, node: SIGKILL to the driver, to the process that makes the change, to a node of
the cluster. stop: SIGSTOP to the driver, whose place another one takes; it goes on at the end.
second: the same command again, meanwhile. store: S3 away. full: a full disk."""
NUMBERS: dict[Phase, int] = {"claim": 2, "part": 3, "upload": 3, "register": 2, "export": 3}
"""Before which change of a phase an attack falls, at most; elsewhere the first."""
ONCE: set[Phase] = {"claim", "commit", "after"}
"""Of which a run makes no second change, or none for sure."""
AWAY_S = (5, 8, 12, 20, 60)
DEADLY: set[Kind] = {"driver", "writer", "node", "stop", "full"}
"""After which a run may fail."""
RUN_S = 400.0
SECOND_S = 90.0


@dataclass(frozen=True)
class Attack:
    phase: Phase
    number: int
    kind: Kind


@dataclass
class Landing:
    """An attack that has fallen. path: what was about to be changed. dead: of a kill, whether the
    process was seen to be gone."""

    attack: Attack
    path: str
    by_driver: bool
    dead: bool | None = None
    said: str = ""

    def as_tree(self) -> dict[str, Any]:
        tree = vars(self.attack) | {"path": self.path, "by_driver": self.by_driver}
        return tree | {"dead": self.dead, "said": self.said}


def attacks_of(job: Job, place: Place, seed: int) -> list[Attack]:
    """At every phase a kill; at some also one of what the command should survive.

    A store that comes back goes on with the change that met it gone: where a run makes one change
    of a phase only, no kill is left of it, so that it is seldom attacked there.
    """
    rng = random.Random(f"{job.name} {place} {seed}")
    kinds: dict[Phase, list[Kind]] = {
        phase: rng.choices(["driver", "writer", "node"], [6, 3, 1]) for phase in job.phases
    }
    if rng.random() < 0.5:
        kinds[rng.choice(job.phases[1:])][-1] = "stop"
    phase = rng.choice([each for each in job.phases if each not in ONCE or rng.random() < 0.2])
    if place == "disk":
        kinds[phase].insert(0, "full")
    else:
        kinds[phase] = ["store", *([] if phase in ONCE else kinds[phase])]
    kinds[rng.choice(job.phases[1:-1])].insert(0, "second")
    return [
        Attack(phase, rng.randint(1, NUMBERS.get(phase, 1)) if number == 0 else 1, kind)
        for phase in job.phases
        for number, kind in enumerate(kinds[phase])
    ]


@dataclass
class Chain:
    """away_s: how long S3 is away, 5 to 60 s if 0. wrong: what was not as it should be."""

    field: Field
    job: Job
    place: Place
    name: str
    attacks: list[Attack]
    away_s: float = 0.0
    landed: list[Landing] = field(default_factory=list)
    missed: list[Attack] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out = self.field.out(self.place, self.name)
        self._seed = random.Random(self.name)
        self.driver: ServiceProcess | None = None
        self._paused: ServiceProcess | None = None
        self._goes_on = threading.Event()
        self._ending, self._is_over = threading.Lock(), False
        self._lost: deque[ServiceProcess] = deque()

    def run(self, expected: Content | None) -> Content | None:
        """What the artifact holds at the end; compared with `expected`."""
        self.field.watch.follow(self.name, self._is_committed)
        try:
            self._until_done()
            self._continue_paused()
            self._once_more()
            self._require_told()
            content = content_of(self.job, self.out)
        except (AssertionError, E2eftError) as error:
            self.wrong.append(str(error))
            return None
        finally:
            with self._ending:  # A strike that takes its time must not hit the next chain.
                self._is_over = True
                self.field.watch.disarm()
            self._goes_on.set()
            self.field.proxy.be("up")
            for process in (self.driver, self._paused):
                if process:
                    process.kill()
        if expected and (difference := content.difference(expected)):
            self.wrong.append(difference)
        return content

    def _until_done(self) -> None:
        left = list(self.attacks)
        for _ in range(len(left) + 4):
            self._since = moment()
            self._arm(left)
            self.driver = self.field.start(self.job, self.out)
            before = len(self.landed)
            code = self._wait()
            self.codes.append(code)
            kinds = {landing.attack.kind for landing in self.landed[before:]}
            if code != 0 and kinds.isdisjoint(DEADLY):
                raise AssertionError(
                    f"ended with {code} under {', '.join(kinds) or 'nothing'}:\n{self._tail()}"
                )
            if code == 0:
                self.field.watch.disarm()
                fallen = {id(landing.attack) for landing in self.landed}
                self.missed = [attack for attack in self.attacks if id(attack) not in fallen]
                return
        raise AssertionError(f"not through after {len(self.codes)} runs:\n{self._tail()}")

    def _arm(self, left: list[Attack]) -> None:
        """Arms what is left of the attacks, one after another."""
        fallen = {id(landing.attack) for landing in self.landed}
        left[:] = [attack for attack in left if id(attack) not in fallen]
        if not left:
            return
        falling = left[:1]
        if falling[0].kind == "second":
            # It is refused, and the first one's change is still to be made.
            falling += [attack for attack in left[1:2] if attack.phase == falling[0].phase]

        def strike(change: Change) -> str:
            driver = self.driver
            told = "go"
            for attack in falling:
                if self._is_over:
                    return told
                landing = Landing(attack, change.path, change.pid == driver.pid)
                self.landed.append(landing)
                try:
                    told = self._strike(landing, change, driver)
                except Exception as error:  # nobody else would hear of it in this thread
                    self.wrong.append(f"attack {attack} failed: {error!r}")
            with self._ending:
                if not self._is_over:
                    self._arm(left)
            if falling[-1].kind == "stop":
                self._goes_on.wait()
            return told

        self.field.watch.arm(falling[0].phase, falling[0].number, strike, self._since)

    def _strike(self, landing: Landing, change: Change, driver: ServiceProcess) -> str:
        kind = landing.attack.kind
        if kind in ("driver", "writer"):
            landing.dead = killed(pid := driver.pid if kind == "driver" else change.pid)
            if pid == driver.pid:
                self._since = moment()  # What its workers still do before Ray ends them is no step.
        elif kind == "node":
            node = self.field.node_of(change.pid)
            node.kill()
            landing.dead = not node.is_running
            self._lost.append(node)
        elif kind == "stop":
            os.kill(driver.pid, signal.SIGSTOP)
            self._paused, self._since = driver, moment()
            self.driver = self.field.start(self.job, self.out)
        elif kind == "second":
            landing.said = self._second()
        elif kind == "store":
            seconds = self.away_s or self._seed.choice(AWAY_S)
            landing.said = f"away for {seconds} s"
            self.field.proxy.be("refusing", seconds)
        else:
            return "full"
        return "go"

    def _replace_lost(self) -> None:
        """Starts a node for each that was killed. Not in the thread of the attack: what it starts
        ends with it, and the others may go on without that node, into the next attack."""
        while self._lost:
            cluster = self.field.cluster
            assert cluster
            cluster.kill_worker(self._lost.popleft())
            cluster.add_worker(3)

    def _second(self) -> str:
        """What the same command says meanwhile: that the folder is somebody's."""
        second = self.field.start(self.job, self.out)
        code = ended(second, SECOND_S)
        second.kill()
        said = second.log_tail(1)
        refused = code not in (0, None) and "is being written by" in said
        if not refused:
            self.wrong.append(f"a second driver ended with {code}: {second.log_tail(5)}")
        return said

    def _wait(self) -> int:
        """How the driver ended, which may be replaced meanwhile."""
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            self._replace_lost()
            driver = self.driver
            if not driver.is_running and driver is self.driver:
                return driver.exit_code
            time.sleep(0.05)
        raise AssertionError(f"no end after {RUN_S:.0f} s:\n{self._tail()}")

    def _continue_paused(self) -> None:
        """The driver that was stopped goes on, and finds that it has been replaced."""
        if self._paused is None:
            return
        before = self._contents()
        self._goes_on.set()
        with suppress(ProcessLookupError):
            os.kill(self._paused.pid, signal.SIGCONT)
        code = ended(self._paused, RUN_S)
        if code is None:
            self.wrong.append(
                f"a driver that was stopped does not end:\n{self._paused.log_tail(5)}"
            )
        after = self._contents()
        if changed := [path for path, stored in before.items() if after.get(path) != stored]:
            self.wrong.append(f"a driver that was stopped, and went on, changed {changed}")

    def _once_more(self) -> None:
        """A finished job is found finished."""
        self.driver = self.field.start(self.job, self.out)
        code = self._wait()
        said = self.driver.log_path.read_text(errors="replace")
        if code != 0 or "nothing to do" not in said:
            self.wrong.append(f"once more, it ended with {code}: {self.driver.log_tail(5)}")

    def _require_told(self) -> None:
        """MLflow has one run of it, however often it was run, which has ended well."""
        client = MlflowClient(self.field.tracking_uri)
        (experiment,) = client.search_experiments(filter_string="name = 'e2eft'")
        runs = client.search_runs([experiment.experiment_id], f"tags.`e2eft.out` = '{self.out}'")
        found = [run.info.status for run in runs]
        if found != ["FINISHED"]:
            self.wrong.append(f"MLflow has {found} of it, not one FINISHED run")

    def _contents(self) -> dict[str, Stored]:
        """What is there, but for who works there."""
        store = open_store(self.out)
        paths = [path for path, _ in store.list() if not path.startswith("_epochs/")]
        return {path: store.digest(path) for path in paths}

    def _is_committed(self) -> bool:
        return open_store(self.out).exists("manifest.json")

    def _tail(self) -> str:
        return self.driver.log_tail(12)

    def as_tree(self) -> dict[str, Any]:
        return {
            "chain": self.name, "job": self.job.name, "place": self.place, "codes": self.codes,
            "landed": [landing.as_tree() for landing in self.landed],
            "missed": [vars(attack) for attack in self.missed], "wrong": self.wrong,
        }  # fmt: skip


def killed(pid: int) -> bool:
    """Whether it was there, and was then seen to be gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False  # it had gone by itself
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def ended(process: ServiceProcess, timeout_s: float) -> int | None:
    """How it ended; None if it has not."""
    deadline = time.monotonic() + timeout_s
    while process.is_running:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    return process.exit_code
