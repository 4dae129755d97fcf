"""How the command line calls a field of a configuration, and how its values are typed there."""

import shlex
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


def typed(flag: str, value: Any) -> str:
    """What is typed, for a shell, to give a flag this value (of JSON)."""
    if isinstance(value, bool):
        group, dot, name = flag.removeprefix("--").rpartition(".")
        return flag if value else f"--{group}{dot}no-{name}"
    if isinstance(value, list):
        given = [f"{flag} {shlex.quote(str(one))}" for one in cast("list[object]", value)]
        return " ".join(given) or f"no {flag}"
    return f"{flag} {shlex.quote(str(value))}"
