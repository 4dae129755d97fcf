"""Who is champion: compared on equal terms only, moved under a check, and rolled back."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2eft import cli
from e2eft.config import TrackingConfig
from e2eft.tracking import (
    Promotion,
    TrackingError,
    promote_if_better,
    record_score,
    roll_back,
    standing_of,
)
from e2eft.tracking import champion as champion_module
from e2eft.tracking.champion import MOVE, Move, Standing, move_champion
from e2eft.tracking.connection import client_of, resolve_uri
from e2eft.tracking.promotion import _judged
from e2eft.tracking.records import RECORD, Score
from tests.registered import OTHER_DATA, PROTOCOL, champion, registered, score

LEADING = {"spacing": "leading"}


@pytest.fixture
def name(tracking: TrackingConfig, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registered model of four versions."""
    registered(tracking, request.node.name, 4, tmp_path)
    return request.node.name


@pytest.fixture
def promote(tracking: TrackingConfig, name: str) -> Callable[[str, Score], Promotion]:
    return lambda version, found: promote_if_better(tracking, name, version, found)


def records(tracking: TrackingConfig, name: str, version: str) -> list[dict[str, Any]]:
    tags = client_of(resolve_uri(tracking)).get_model_version(name, version).tags
    return [json.loads(text) for tag, text in tags.items() if tag.startswith(RECORD)]


def test_only_a_better_version_becomes_champion(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    first = promote("1", score(0.10))
    assert first and "first champion" in first.reason and champion(tracking, name) == "1"
    worse = promote("2", score(0.11))
    assert not worse and "0.1," in worse.reason and "0.11" in worse.reason
    assert not promote("2", score(0.10)) and champion(tracking, name) == "1"
    assert promote("2", score(0.09)) and champion(tracking, name) == "2"
    assert "champion already" in promote("2", score(0.05)).reason


def test_where_more_is_better_more_wins(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    assert promote("1", score(0.9, metric="delta1"))
    assert not promote("2", score(0.8, metric="delta1"))
    assert promote("2", score(0.95, metric="delta1"))


@pytest.mark.parametrize(
    "terms",
    [
        {"data_digest": OTHER_DATA},
        {"protocol": "least-squares-depth to 20 m"},
        {"sampling": LEADING},
        {"processing_size": 1024},
        {"metric": "rmse"},
    ],
    ids=["data", "protocol", "sampling", "size", "metric"],
)
def test_scores_on_other_terms_are_never_compared(
    terms: dict[str, Any], tracking: TrackingConfig, name: str,
    promote: Callable[[str, Score], Promotion],
) -> None:  # fmt: skip
    assert promote("1", score(0.5))
    other = score(0.01, **terms)
    answer = promote("2", replace(other, lower_is_better=True))
    assert not answer and "version 1 stays champion: it has no " in answer.reason
    assert f"models:/{name}@champion" in answer.reason and other.terms["protocol"] in answer.reason
    assert champion(tracking, name) == "1"
    record_score(tracking, name, "1", replace(score(0.4, **terms), lower_is_better=True))
    assert promote("2", replace(score(0.01, **terms, scores="again"), lower_is_better=True))


def test_scoring_the_champion_again_changes_nothing_of_what_it_was_judged_by(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    """With leading timesteps a model of 0.10 scores 0.45, which one of 0.30 would beat."""
    assert promote("1", score(0.10))
    record_score(tracking, name, "1", score(0.45, sampling=LEADING))
    record_score(tracking, name, "1", score(0.45, scores="another machine"))
    assert not promote("2", score(0.30)) and champion(tracking, name) == "1"
    assert sorted(record["value"] for record in records(tracking, name, "1")) == [0.10, 0.45, 0.45]
    first = next(r for r in records(tracking, name, "1") if r["value"] == 0.10)
    assert first["terms"] == score(0.1).terms and first["model_digest"] == "m" and first["by"]
    assert first["digest"] == score(0.1).digest != score(0.1, "other model").digest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_not_recorded(
    value: float, tracking: TrackingConfig, name: str,
    promote: Callable[[str, Score], Promotion],
) -> None:  # fmt: skip
    answer = promote("1", score(value))
    assert not answer and "no finite abs_rel" in answer.reason
    with pytest.raises(TrackingError, match="no finite abs_rel"):
        record_score(tracking, name, "1", score(value))
    assert records(tracking, name, "1") == [] and champion(tracking, name) is None


def test_a_champion_of_an_earlier_release_is_scored_again_before_it_is_judged(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    client = client_of(resolve_uri(tracking))
    client.set_registered_model_alias(name, "champion", "1")
    old = f"score.abs_rel.{PROTOCOL}.{'a' * 16}"
    client.set_model_version_tag(name, "1", old, "0.2")
    answer = promote("2", score(0.1))
    assert not answer and "an earlier release noted it without the sampling" in answer.reason
    assert "champion already" in promote("1", score(0.2)).reason
    assert promote("2", score(0.1)) and champion(tracking, name) == "2"
    assert client.get_model_version(name, "1").tags[old] == "0.2"


def test_of_two_that_are_judged_at_once_the_better_one_stays(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    """The other one wins while the first has decided and has not moved yet."""
    assert promote("1", score(0.10))
    record_score(tracking, name, "2", score(0.09))
    seen: list[str | None] = []

    def decide(client: Any, standing: Standing) -> Move | Promotion:
        decided = _judged(client, name, "2", score(0.09), standing)
        seen.append(standing.champion)
        if len(seen) == 1:
            assert promote("3", score(0.08))
        return decided

    answer = move_champion(tracking, name, decide)
    assert seen == ["1", "3"] and not answer and "version 3 stays champion" in answer.reason
    assert champion(tracking, name) == "3"


@pytest.mark.parametrize("when", ["it has decided", "it has announced"])
def test_an_alias_that_was_moved_by_hand_meanwhile_is_not_overwritten(
    when: str, tracking: TrackingConfig, name: str, monkeypatch: pytest.MonkeyPatch,
    promote: Callable[[str, Score], Promotion],
) -> None:  # fmt: skip
    assert promote("1", score(0.10))
    client = client_of(resolve_uri(tracking))

    def by_hand() -> None:
        client.set_registered_model_alias(name, "champion", "4")

    step = {"it has decided": "_announced", "it has announced": "_only_mine"}[when]
    whole = getattr(champion_module, step)

    def moved_before(*given: Any) -> Any:
        if champion(tracking, name) == "1":
            by_hand()
            if step == "_only_mine":
                given = (standing_of(tracking, name), *given[1:])
        return whole(*given)

    monkeypatch.setattr(champion_module, step, moved_before)
    answer = promote("2", score(0.05))
    assert not answer and "version 4 stays champion: it has no" in answer.reason
    assert champion(tracking, name) == "4"
    assert [move.to for move in standing_of(tracking, name).moves] == ["1"]


def test_of_many_at_once_the_best_is_champion_and_every_move_is_on_record(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    values = {"1": 0.13, "2": 0.11, "3": 0.10, "4": 0.12}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda version: promote(version, score(values[version])), values))
    assert champion(tracking, name) == "3"
    moves = standing_of(tracking, name).moves
    assert all(move.done for move in moves) and len(moves) == sum(map(bool, answers))
    led = [None, *(move.to for move in moves)]
    assert [move.was for move in moves] == led[:-1] and led[-1] == "3"


@pytest.mark.parametrize("had_moved", [False, True])
def test_a_move_that_its_process_left_unfinished_holds_nobody_up(
    had_moved: bool, tracking: TrackingConfig, name: str, monkeypatch: pytest.MonkeyPatch,
    promote: Callable[[str, Score], Promotion],
) -> None:  # fmt: skip
    monkeypatch.setattr(champion_module, "UNFINISHED_S", 0.5)
    assert promote("1", score(0.10))
    client = client_of(resolve_uri(tracking))
    left = Move(was="1", to="2", why="killed", key=f"{MOVE}000002.aaaa")
    record_score(tracking, name, "2", score(0.09))
    client.set_registered_model_tag(name, left.key, left.as_json())
    if had_moved:
        client.set_registered_model_alias(name, "champion", "2")
    assert promote("3", score(0.095)) is not None
    assert champion(tracking, name) == ("2" if had_moved else "3")
    moves = {move.key: move for move in standing_of(tracking, name).moves}
    assert all(move.done for move in moves.values()) and (left.key in moves) == had_moved


def test_a_move_that_comes_too_late_is_put_back(
    tracking: TrackingConfig, name: str, monkeypatch: pytest.MonkeyPatch,
    promote: Callable[[str, Score], Promotion],
) -> None:  # fmt: skip
    """It stood still between its check and its move, was taken for dead, and others went on."""
    monkeypatch.setattr(champion_module, "UNFINISHED_S", 0.3)
    assert promote("1", score(0.10))
    whole, others = champion_module._set, list[Promotion]()

    def late(ask: Any, model: str, version: str | None) -> None:
        if version == "2" and not others:
            monkeypatch.setattr(champion_module, "_set", whole)
            others.append(promote("3", score(0.08)))
        whole(ask, model, version)

    monkeypatch.setattr(champion_module, "_set", late)
    answer = promote("2", score(0.09))
    assert others[0] and not answer and "version 3 stays champion" in answer.reason
    assert champion(tracking, name) == "3"


def test_a_roll_back_undoes_the_move_and_its_evidence(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for version, value in (("1", 0.10), ("2", 0.09), ("3", 0.08)):
        assert promote(version, score(value))
    argv = [f"models:/{name}@champion", "--tracking-uri", str(tracking.tracking_uri)]
    assert cli.rollback(argv) == 0 and champion(tracking, name) == "2"
    said = capsys.readouterr().out
    assert "version 3 is rolled back to version 2" in said and "0.08" in said
    # The same scores, and others of the same version, do not bring it back.
    for found in (score(0.08), score(0.07, scores="new")):
        answer = promote("3", found)
        assert not answer and "was rolled back" in answer.reason
    assert promote("4", score(0.085)) and champion(tracking, name) == "4"
    for before in ("2", "1", None):
        assert roll_back(tracking, name) and champion(tracking, name) == before
    assert cli.rollback(argv) == 1
    assert "no move of the alias champion" in capsys.readouterr().err
    assert cli.rollback([*argv, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and ": 2 -> 3  " in lines[2] and ": 3 -> 2  " in lines[3]
    move = standing_of(tracking, name).moves[1]
    assert move.evidence["winner"]["value"] == 0.09 and move.evidence["loser"]["value"] == 0.10


def test_what_was_moved_by_hand_is_not_rolled_back(
    tracking: TrackingConfig, name: str, promote: Callable[[str, Score], Promotion]
) -> None:
    assert promote("1", score(0.10)) and promote("2", score(0.09))
    client = client_of(resolve_uri(tracking))
    client.set_registered_model_alias(name, "champion", "4")
    with pytest.raises(TrackingError, match=r"leads to version 4, .*version 2.*moved by hand"):
        roll_back(tracking, name)
    with pytest.raises(TrackingError, match="nobody"):
        roll_back(tracking, "nobody")


@pytest.fixture
def client(tracking: TrackingConfig, name: str) -> Any:
    """Of a model whose alias was moved from version 1 to 2, to 3 and to 4; its first moves."""
    client = client_of(resolve_uri(tracking))
    for number in (1, 2, 3):
        move = Move(was=str(number), to=str(number + 1), why="better", done=True)
        client.set_registered_model_tag(name, f"{MOVE}{number:06d}.aaaa", move.as_json())
    client.set_registered_model_alias(name, "champion", "4")
    return client


def test_a_roll_back_goes_past_versions_that_have_been_deleted(
    tracking: TrackingConfig, name: str, client: Any
) -> None:
    for version in ("3", "4"):  # and with version 4 its alias
        client.delete_model_version(name, version)
    answer = roll_back(tracking, name)
    assert "version 4 is rolled back to version 2 (version 3: deleted); it had" in answer.reason
    assert champion(tracking, name) == "2"
    client.delete_model_version(name, "1")
    with pytest.raises(TrackingError, match=r"led to version 1 before, which has .*; set it with"):
        roll_back(tracking, name)
    assert champion(tracking, name) == "2"


def test_a_move_that_cannot_be_read_is_said_to_be_there(
    tracking: TrackingConfig, name: str, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, damaged = [name, "--tracking-uri", str(tracking.tracking_uri)], f"{MOVE}000003.aaaa"
    for text in ("{", "{}", '{"was": 3, "to": "4", "why": ""}'):
        client.set_registered_model_tag(name, damaged, text)
        assert cli.rollback([*argv, "--list"]) == 0
        said = capsys.readouterr()
        assert said.out.count(" -> ") == 2
        assert f"the tag {damaged} of models:/{name} is damaged: no move can be read" in said.err
    assert cli.rollback(argv) == 1
    assert "it was moved by a move whose tag cannot be read; set it" in capsys.readouterr().err


def test_no_database_is_made_for_a_roll_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.rollback(["n", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]) == 1
    assert "mlflow.db is not there; give another" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
