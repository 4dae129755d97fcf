import threading

import pytest

from e2eft.train import watch as module
from e2eft.train.errors import StalledError
from e2eft.train.watch import PEER_PATIENCE, Watch, run_watched


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_who_waits_for_others_waits_longer(clock: Clock) -> None:
    watch = Watch(3, 100)
    watch.alone(lambda: "frame 7")
    clock.now = 100.0
    watch.require_progress()
    clock.now = 101.0
    with pytest.raises(StalledError, match="rank 3 has waited 101 s for frame 7; ") as alone:
        watch.require_progress()
    watch.together("step 8")
    clock.now += 100 * PEER_PATIENCE
    watch.require_progress()
    clock.now += 1
    with pytest.raises(StalledError, match="151 s for step 8, in which all ranks") as together:
        watch.require_progress()
    assert (alone.value.for_peers, together.value.for_peers) == (False, True)


def test_work_under_watch_gives_what_it_gives() -> None:
    watch = Watch(0, 100)
    assert run_watched(lambda: 7, watch) == 7
    with pytest.raises(KeyError, match="gone"):
        run_watched(lambda: {}["gone"], watch)


def test_work_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    watch, forever = Watch(1, 0.05), threading.Event()

    def work() -> None:
        watch.alone("an event")
        forever.wait()

    with pytest.raises(StalledError, match=r"rank 1 .* for an event"):
        run_watched(work, watch)
    forever.set()
