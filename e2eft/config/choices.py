"""Fields that hold one of several small classes, written in one word on the command line.

`--target log` is the class of that `kind` with its defaults, `--target log:eps_m=0.01,high=0.99`
has others.
"""

from dataclasses import fields
from typing import Any, get_args

import tyro
from pydantic import Field, TypeAdapter, ValidationError


def chosen_from(union: Any) -> tuple[Any, Any]:
    """What to put, unpacked, into the annotation of a field: of dataclasses whose `kind` tells them
    apart."""
    kinds = {kind.kind: kind for kind in get_args(union)}

    def parse(words: list[str]) -> Any:
        kind, _, settings = words[0].partition(":")
        if kind not in kinds:
            raise ValueError(f"{kind!r} is none of {', '.join(kinds)}")
        pairs = [setting.partition("=") for setting in settings.split(",") if setting]
        known = [field.name for field in fields(kinds[kind]) if field.name != "kind"]
        for name, is_given, _ in pairs:
            if name not in known or not is_given:
                raise ValueError(
                    f"{kind} has no setting {name!r}; they are {', '.join(known)}, given as "
                    f"{kind}:{known[0]}=VALUE"
                )
        try:
            return TypeAdapter(kinds[kind]).validate_python({n: value for n, _, value in pairs})
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors())
            raise ValueError(f"{words[0]}: {said.strip()}") from None

    return (
        Field(discriminator="kind"),
        tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(kinds) + "}[:NAME=VALUE,...]",
            instance_from_str=parse,
            is_instance=lambda value: isinstance(value, get_args(union)),
            str_from_instance=lambda value: [written(value)],
        ),
    )


def written(value: Any) -> str:
    """As the command line takes it, and as identities have it: what is not the default is said. So
    a default, once released, stays what it is."""
    changed = [
        f"{field.name}={getattr(value, field.name)}"
        for field in fields(value)
        if field.name != "kind" and getattr(value, field.name) != field.default
    ]
    return value.kind + (":" + ",".join(changed) if changed else "")
