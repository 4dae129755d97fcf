"""What attacks jobs is itself right: phases by path, every phase's turn, texts of safeguards."""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos import chain as chain_module
from tests.chaos.chain import ONCE, Attack, Chain, attacks_of
from tests.chaos.field import HOOK
from tests.chaos.hook.sitecustomize import MARK
from tests.chaos.jobs import JOBS, Content, Job
from tests.chaos.mends import MENDS, without
from tests.chaos.report import KILLS, short
from tests.chaos.watch import Change, Watch, moment


@pytest.mark.parametrize(
    ("operation", "path", "phase"),
    [
        ("link", "_claim.json", "claim"),
        ("PUT", "_epochs/0123abcd/000002.json", "claim"),
        ("rename", "_epochs/0123abcd/000002.beat", None),
        ("remove", "_epochs/0123abcd/000002.beat", None),
        ("link", "data/part-000001.parquet", "part"),
        ("link", "parts/0123abcd/part-000001.0.json", "part"),
        ("rename", "checkpoints/0123abcd/epoch-000001/step-00000001-ab/rank.pt", "upload"),
        ("link", "checkpoints/0123abcd/step-00000001.json", "register"),
        ("remove", "checkpoints/0123abcd/step-00000001.json", "prune"),
        ("link", "checkpoints/0123abcd/export.json", "export"),
        ("POST", "model/unet/diffusion_pytorch_model.safetensors", "export"),
        ("PUT", "manifest.json", "commit"),
        ("after", "manifest.json", "after"),
    ],
)
def test_a_phase_is_told_by_what_is_about_to_change(
    operation: str, path: str, phase: str | None
) -> None:
    assert Change(1, operation, path).phase == phase


def test_attacks_cover_every_phase_and_are_the_same_for_a_seed() -> None:
    for job, place, seed in itertools.product(JOBS, ("disk", "s3"), range(20)):
        attacks = attacks_of(job, place, seed)
        assert attacks == attacks_of(job, place, seed)
        assert list(dict.fromkeys(attack.phase for attack in attacks)) == list(job.phases)
        assert {attack.kind for attack in attacks} >= {
            "second",
            {"disk": "full", "s3": "store"}[place],
        }
        not_killed = {attack.phase for attack in attacks} - {
            attack.phase for attack in attacks if attack.kind in KILLS
        }
        assert not_killed <= (ONCE if place == "s3" else set())


def test_a_kill_falls_on_the_change_that_a_second_driver_was_refused_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of commits there is only one."""
    attacks = [Attack("commit", 1, "second"), Attack("commit", 1, "writer"),
               Attack("after", 1, "driver")]  # fmt: skip
    chain, armed = chain_of(attacks)
    monkeypatch.setattr(chain, "_second", lambda: "refused")
    monkeypatch.setattr(chain_module, "killed", lambda pid: True)
    armed[0][2](Change(2, "link", "manifest.json"))
    assert [(each.attack, each.path) for each in chain.landed] == [
        (attack, "manifest.json") for attack in attacks[:2]
    ]
    assert not chain.wrong and armed[1][0] == "after"


def chain_of(attacks: list[Attack]) -> tuple[Chain, list[Any]]:
    """One without a field, and what it has armed."""
    armed: list[Any] = []
    nowhere = SimpleNamespace(
        out=lambda place, name: name, watch=SimpleNamespace(arm=lambda *said: armed.append(said))
    )
    chain = Chain(cast(Any, nowhere), Job("label"), "disk", "x", attacks)
    chain.driver, chain._since = cast(Any, SimpleNamespace(pid=1)), 0.0
    chain._arm(list(chain.attacks))
    return chain, armed


def test_an_attack_that_fails_is_noted_and_the_job_goes_on() -> None:
    chain, armed = chain_of([Attack("part", 1, "node")])
    ((phase, number, strike, _),) = armed
    assert (phase, number) == ("part", 1)
    assert strike(Change(2, "link", "data/part-000000.parquet")) == "go"
    (said,) = chain.wrong
    assert "failed: AttributeError" in said


def test_every_safeguard_can_be_taken_out(tmp_path: Path) -> None:
    assert len(MENDS) == 5
    for mend in MENDS:
        with without(mend, tmp_path) as code:
            file = code / mend.file
            compile(file.read_text(), str(file), "exec")


def test_what_differs_is_named() -> None:
    expected = Content({"a": "1", "b": "2"}, ("k1", "k2"))
    assert expected.difference(expected) == ""
    found = Content({"a": "1", "b": "3"}, ("k1", "k1"))
    assert found.difference(expected) == "b differs; 1 keys lost, 1 doubled"


SCRIPT = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
out = Path(sys.argv[1])
(out / "staged.tmp").write_text("x")
os.link(out / "staged.tmp", out / "_claim.json")
try:
    os.replace(out / "staged.tmp", out / "data")
except OSError as error:
    print(error.strerror)
(out / "staged.tmp").write_text("x")
os.link(out / "staged.tmp", out / "manifest.json")
os.listdir(out)
"""


def test_a_process_asks_before_each_change_and_is_told(tmp_path: Path) -> None:
    """The hook in a process of its own, and a watch that answers."""
    name = "artifact"
    out = tmp_path / MARK.strip("/") / name
    out.mkdir(parents=True)
    place = Path("/tmp") / f"watch-{os.getpid()}"
    watch = Watch(place)
    seen: list[tuple[str, bool]] = []

    def full(change: Change) -> str:
        seen.append((change.path, (out / change.path).exists()))
        watch.arm("after", 1, after, since)
        return "full"

    def after(change: Change) -> str:
        seen.append((change.path, (out / change.path).exists()))
        return "go"

    try:
        watch.follow(name, (out / "manifest.json").exists)
        since = moment()
        watch.arm("part", 1, full, since)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(out)],
            env=os.environ | {"PYTHONPATH": str(HOOK), "E2EFT_CHAOS_SOCKET": str(place)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        watch.close()
        place.unlink()
    assert done.stdout == "No space left on device\n"
    assert seen == [("data", False), ("manifest.json", True)]
    assert watch.heard == {"claim": 1, "part": 1, "commit": 1, "after": 1}


def test_a_request_that_changes_an_object_is_a_change(tmp_path: Path) -> None:
    place = Path("/tmp") / f"watch-http-{os.getpid()}"
    code = (
        "import http.client, sys\n"
        "c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=5)\n"
        f"c.request('PUT', '/bucket{MARK}x/_claim.json?partNumber=1', body=b'PUT {MARK}x/data')\n"
        f"c.getresponse().read(); c.request('GET', '/bucket{MARK}x/_claim.json')\n"
    )
    watch = Watch(place)
    watch.follow("x", lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(listener.getsockname()[1])],
            env=os.environ | {"PYTHONPATH": str(HOOK), "E2EFT_CHAOS_SOCKET": str(place)},
        )
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert process.wait(timeout=30) == 0
    watch.close()
    place.unlink()
    assert json.dumps(watch.heard) == '{"claim": 1}'


def test_a_log_is_shown_by_its_first_and_last_line() -> None:
    log = "ended with 1:\n\x1b[36m(Worker)\x1b[0m ^^^^\ntrain: /tmp/some/out at s3://b/c/d | x"
    assert short(log) == "ended with 1: … train: out at s3://b/c/d / x"
    assert short("one line") == "one line" and short("") == ""


def test_what_a_killed_drivers_workers_still_do_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a chain that is over strikes nobody, though it may have been about to."""
    attacks = [Attack("part", 1, "driver"), Attack("commit", 1, "writer")]
    chain, armed = chain_of(attacks)
    before = chain._since
    monkeypatch.setattr(chain_module, "killed", lambda pid: True)
    armed[0][2](Change(2, "link", "data/part-000000.parquet"))
    assert armed[1][0] == "commit" and armed[1][3] == chain._since > before
    chain._is_over = True
    armed[1][2](Change(2, "link", "manifest.json"))
    assert len(chain.landed) == 1 and len(armed) == 2
