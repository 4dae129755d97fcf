"""The alias `champion`: every move of it is an entry of its model, and can be rolled back.

MLflow sets aliases without asking what they were. So who moves one says so first, in a tag of the
registered model with a name of its own, and goes on only if nothing else has come or moved since it
was decided; who finds another's move waits for it. Of two that begin at once, each sees the other's
entry, and both decide anew. What was decided on an alias that has moved meanwhile is put back by
who set it: the newest finished entry is what counts.
"""

import json
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import TypeAdapter

from e2eft.config import TrackingConfig
from e2eft.secrets import shown_in
from e2eft.tracking.connection import TrackingError, client_of, resolve_uri, unavailable, within
from e2eft.tracking.origin import user

CHAMPION = "champion"
MOVE = "e2eft.champion."
"""Prefix of a registered model's tags, each of which holds a `Move` as JSON."""
ATTEMPTS = 20
WAIT_S = 0.2
UNFINISHED_S = 20.0
"""How long a move that was begun may take; then it is one of a process that has died."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move of the alias, and why.

    was, to: versions; None: no champion. undoes: the key of the move that this one rolled back.
    evidence: the records that were compared. key: the tag's name.
    """

    was: str | None
    to: str | None
    why: str
    evidence: dict[str, Any] = field(default_factory=dict)
    undoes: str = ""
    by: str = ""
    at: str = ""
    done: bool = False
    key: str = ""

    @property
    def number(self) -> str:
        """Digits, by which moves are in order."""
        return self.key[len(MOVE) :].partition(".")[0]

    def as_json(self) -> str:
        content = {name: value for name, value in asdict(self).items() if name != "key"}
        return json.dumps(shown_in(content))

    @classmethod
    def read(cls, key: str, text: str) -> Self | None:
        """None for what is no move."""
        try:
            move = cls(**json.loads(text), key=key)
            TypeAdapter(cls).validate_python(asdict(move))
        except (ValueError, TypeError):
            return None
        return move if move.number.isdigit() else None


@dataclass(frozen=True)
class Standing:
    """A model as it is: whom the alias leads to, and the moves so far, in their order.

    damaged: the keys of tags that should hold a move, and of which none can be read.
    """

    champion: str | None
    moves: tuple[Move, ...]
    damaged: tuple[str, ...] = ()

    @property
    def unfinished(self) -> tuple[Move, ...]:
        return tuple(move for move in self.moves if not move.done)

    @property
    def rolled_back(self) -> tuple[Move, ...]:
        undone = {move.undoes for move in self.moves if move.done}
        return tuple(move for move in self.moves if move.key in undone)


@dataclass(frozen=True)
class Promotion:
    """Whether the alias `champion` moved, and why; true if it did."""

    promoted: bool
    reason: str

    def __bool__(self) -> bool:
        return self.promoted


Decide = Callable[[Any, Standing], Move | Promotion]
"""What to do on seeing (client, how things stand): a move, or why there is none."""


def move_champion(config: TrackingConfig, name: str, decide: Decide) -> Promotion:
    """Moves the alias as `decide` says, under a check that it still is where that saw it.

    Raises:
        TrackingError: if there is no such model, no answer within seconds, or others move it all
            the time.
    """
    uri = resolve_uri(config)

    def ask(request: Callable[[Any], Any]) -> Any:
        try:
            return within(uri, lambda: request(client_of(uri)))
        except TrackingError:
            raise
        except Exception as error:
            raise unavailable(uri, error) from None

    for attempt in range(ATTEMPTS):
        before = _settled(ask, name)
        decided = ask(lambda client, before=before: decide(client, before))
        if isinstance(decided, Promotion):
            return decided
        mine = _announced(decided, before)
        _write(ask, name, mine)
        if _only_mine(ask(lambda client: _standing(client, name)), before, mine):
            _set(ask, name, mine.to)
            if _finished(ask, name, before, mine):
                return Promotion(True, mine.why)
        else:
            ask(lambda client, mine=mine: client.delete_registered_model_tag(name, mine.key))
        time.sleep(random.uniform(0, WAIT_S * min(attempt + 1, 10)))
    raise TrackingError(
        f"models:/{name}@{CHAMPION} is being moved by others all the time; run the same command "
        "again"
    )


def standing_of(config: TrackingConfig, name: str) -> Standing:
    """How the champion of a registered model stands.

    Raises:
        TrackingError: if there is no such model, or no answer within seconds.
    """
    uri = resolve_uri(config)
    try:
        return within(uri, lambda: _standing(client_of(uri), name))
    except Exception as error:
        raise unavailable(uri, error) from None


def roll_back(config: TrackingConfig, name: str) -> Promotion:
    """Undoes the newest move that is not undone yet: the alias leads where it led before, or, where
    that version has been deleted, where it led before that.

    The version that it led to does not win again by scores; a person may set the alias.

    Raises:
        TrackingError: if there is none, or the alias has been moved by hand since.
    """
    return move_champion(config, name, lambda client, standing: _undo(client, name, standing))


def _undo(client: Any, name: str, standing: Standing) -> Move:
    undone = {move.key for move in standing.rolled_back}
    done = [move for move in standing.moves if move.done]
    led = standing.champion
    if led is None and done and not _is_there(client, name, done[-1].to):
        led = done[-1].to  # MLflow deletes a version's aliases with it
    left = [move for move in done if not move.undoes and move.key not in undone]
    while left and left[-1].to != led and not _is_there(client, name, left[-1].to):
        left.pop()  # an earlier roll back went past it
    if not left:
        raise TrackingError(
            f"models:/{name} has no move of the alias {CHAMPION} that could be rolled back; "
            "set it with MLflow"
        )
    last, gone = left.pop(), list[str]()
    if led != last.to:
        how = "by a move whose tag cannot be read" if standing.damaged else "by hand"
        raise TrackingError(
            f"models:/{name}@{CHAMPION} leads to {_version(standing.champion)}, not where its "
            f"last move led ({_version(last.to)}): it was moved {how}; set it with MLflow"
        )
    to = last.was
    while to is not None and not _is_there(client, name, to):
        gone.append(to)
        before = [move for move in left if move.to == to]
        if not before:
            raise TrackingError(
                f"models:/{name}@{CHAMPION} led to {_version(to)} before, which has been deleted, "
                "and no move says where before that; set it with MLflow"
            )
        left = left[: left.index(before[-1])]
        to = before[-1].was
    past = f" ({', '.join(map(_version, gone))}: deleted)" if gone else ""
    why = f"{_version(last.to)} is rolled back to {_version(to)}{past}; it had moved because: "
    return Move(was=led, to=to, why=why + last.why, undoes=last.key)


def _is_there(client: Any, name: str, version: str | None) -> bool:
    """Whether an alias can lead there; no version is always there."""
    from mlflow.exceptions import MlflowException

    try:
        return version is None or bool(client.get_model_version(name, version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _version(number: str | None) -> str:
    return "no version" if number is None else f"version {number}"


def _standing(client: Any, name: str) -> Standing:
    model = client.get_registered_model(name)
    champion = model.aliases.get(CHAMPION)
    read = {key: Move.read(key, text) for key, text in model.tags.items() if key.startswith(MOVE)}
    moves = sorted((move for move in read.values() if move), key=lambda move: (move.key, move.at))
    damaged = sorted(key for key, move in read.items() if move is None)
    return Standing(None if champion is None else str(champion), tuple(moves), tuple(damaged))


def _settled(ask: Callable[..., Any], name: str) -> Standing:
    """The standing once no move is under way; one that its process has left is ended for it."""
    seen: dict[str, float] = {}
    while True:
        standing = ask(lambda client: _standing(client, name))
        now = time.monotonic()
        late = [m for m in standing.unfinished if now - seen.setdefault(m.key, now) > UNFINISHED_S]
        for one in late:
            if standing.champion == one.to != one.was:
                _write(ask, name, replace(one, done=True))
            else:
                ask(lambda client, one=one: client.delete_registered_model_tag(name, one.key))
        if not standing.unfinished:
            return standing
        if not late:
            time.sleep(WAIT_S)


def _announced(decided: Move, before: Standing) -> Move:
    numbers = [int(move.number) for move in before.moves]
    return replace(
        decided,
        by=user(),
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        key=f"{MOVE}{max(numbers, default=0) + 1:06d}.{secrets.token_hex(4)}",
    )


def _only_mine(now: Standing, before: Standing, mine: Move) -> bool:
    new = {move.key for move in now.moves} - {move.key for move in before.moves}
    return now.champion == before.champion and new == {mine.key}


def _set(ask: Callable[..., Any], name: str, version: str | None) -> None:
    if version is None:
        ask(lambda client: client.delete_registered_model_alias(name, CHAMPION))
    else:
        ask(lambda client: client.set_registered_model_alias(name, CHAMPION, version))


def _write(ask: Callable[..., Any], name: str, move: Move) -> None:
    ask(lambda client: client.set_registered_model_tag(name, move.key, move.as_json()))


def _finished(ask: Callable[..., Any], name: str, before: Standing, mine: Move) -> bool:
    """Ends a move that is made; False if it came too late, which is then made good."""
    now = ask(lambda client: _standing(client, name))
    known = {move.key for move in before.moves} | {mine.key}
    ended = [move for move in now.moves if move.done]
    is_there = any(move.key == mine.key for move in now.moves)
    if is_there and not any(move.key not in known for move in ended):
        _write(ask, name, replace(mine, done=True))
        return True
    _set(ask, name, ended[-1].to if ended else before.champion)
    return False
