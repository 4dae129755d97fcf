"""Standard error with some lines left out."""

import os
import subprocess

import pytest

from e2eft.stderr import STDERR, without_lines


def test_only_lines_that_say_it_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(STDERR, b"before: noise\n")
    with without_lines(b"noise"):
        os.write(STDERR, b"one\ntwo no")
        os.write(STDERR, b"ise\nthree\n")
        os.write(STDERR, b"a last one without its end")
    os.write(STDERR, b"\nafter: noise\n")
    told = "before: noise\none\nthree\na last one without its end\nafter: noise\n"
    assert capfd.readouterr().err == told


def test_a_child_that_goes_on_writing_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    with without_lines(b"noise"):
        child = subprocess.Popen(["sh", "-c", "read go; echo noise >&2; echo said >&2"],
                                 stdin=subprocess.PIPE)  # fmt: skip
    os.write(STDERR, b"first\n")
    child.communicate(b"go\n")
    assert child.returncode == 0
    assert capfd.readouterr().err.startswith("first\n")


def test_a_terminal_that_is_gone_stops_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    reading, gone = os.pipe()
    os.close(reading)
    own = os.dup(STDERR)
    os.dup2(gone, STDERR)
    try:
        with without_lines(b"noise"):
            for _ in range(100):
                os.write(STDERR, b"x" * 4000 + b"\n")  # more than a pipe holds
    finally:
        os.dup2(own, STDERR)
    os.write(STDERR, b"after\n")
    assert capfd.readouterr().err == "after\n"
