"""How the command line calls a field of a configuration, and how its values are typed there."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from pydantic.fields import FieldInfo

from e2eft.config.base import Config, configs_of


def _own_name(field: FieldInfo) -> str | None:
    """The name that a field has whatever group it lives in, without dashes; None: it has none."""
    for setting in field.metadata:
        if getattr(setting, "prefix_name", None) is False:
            return setting.name
    return None


def flag_of(kind: type[Config], path: tuple[int | str, ...]) -> str:
    """The flag of the field at `path`, e.g. ("optimizer", "lr"), as pydantic's errors give it.

    After a field that holds one of several configurations comes the `kind` of the one it holds.
    What follows the field itself, an index for example, is not looked at.
    """
    owner, choices = kind, tuple[type[Config], ...]()
    names: list[str] = []
    for part in map(str, path):
        if len(choices) > 1:
            (owner,) = (c for c in choices if c.model_fields["kind"].default == part)
            choices = ()
            continue
        field = owner.model_fields[part]
        if name := _own_name(field):
            return f"--{name}"
        names.append(part.replace("_", "-"))
        choices = configs_of(field)
        if not choices:
            break
        owner = choices[0]
    return "--" + ".".join(names)


def of_lists(config: Config, group: str = "--") -> set[str]:
    """The flags of a configuration that may be given several times, since what they give is a
    list."""
    found: set[str] = set()
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        own = _own_name(field)
        if isinstance(value, Config):
            found |= of_lists(value, f"{group}{name}.".replace("_", "-"))
        elif isinstance(value, tuple):
            found.add(f"--{own}" if own else f"{group}{name}".replace("_", "-"))
    return found


def repeated(argv: Sequence[str]) -> list[str]:
    """The flags that are given more than once; one and its negation are the same."""
    named = [word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    counts = Counter(re.sub(r"(^--|\.)no-", r"\1", name) for name in named)
    return [name for name, count in counts.items() if count > 1]


def typed(flag: str, value: Any) -> str:
    """What is typed, for a shell, to give a flag this value (of JSON)."""
    if isinstance(value, bool):
        group, dot, name = flag.removeprefix("--").rpartition(".")
        return flag if value else f"--{group}{dot}no-{name}"
    if isinstance(value, list):
        given = [f"{flag} {shlex.quote(str(one))}" for one in cast("list[object]", value)]
        return " ".join(given) or f"no {flag}"
    return f"{flag} {shlex.quote(str(value))}"
