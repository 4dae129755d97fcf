"""What differs between the configuration that an artifact was begun with and another one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from pydantic.fields import FieldInfo

from e2eft.config.base import (
    RESULT,
    ROUNDING,
    BeforeIt,
    ChosenBy,
    Config,
    Role,
    configs_of,
    is_input,
    role_of,
)
from e2eft.config.choices import written
from e2eft.config.flags import flag_of, typed
from e2eft.config.label import SamplingConfig

IDENTITY_VERSION = 3
"""Of what `Config.identity()` gives. Version 1 told results from the rest by whole groups of
settings, and inputs by their URIs. Version 2 did not tell steps and spacing that were left to the
model from those that were asked for: left open they were `DEFAULT_SAMPLING`."""
DEFAULT_SAMPLING = {"steps": 1, "spacing": "trailing"}

Names = tuple[str, ...]
_RANGES: Names = ("data", "max_depth_m")
_NOT_ALWAYS_SAID: tuple[Names, ...] = (("processing_px",),)
"""What the stage sets, and records before it did say nothing of: their jobs go on as they began."""
UNRECORDED, UNKNOWN = "not recorded", "unknown to this e2eft"


@dataclass(frozen=True)
class Difference:
    """A field that an artifact was begun with and that is asked for with another value.

    field: its dotted name. recorded, asked: the two values, as JSON; of inputs, how many there are.
    said: both, as the command line calls them. accepted: what has to be given instead.
    """

    field: str
    recorded: Any
    asked: Any
    said: str
    accepted: str

    def __str__(self) -> str:
        return self.said


def differences(
    old: dict[str, Any], new: Config, version: int = IDENTITY_VERSION
) -> list[Difference]:
    """Where a recorded identity and a configuration would give different artifacts.

    A field that a record of this version lacks is newer than the record, which then had the field's
    default, or what the field says was `BeforeIt`. Of version 1 only what it holds is compared, and
    what was before a field; and of that only what is a result, or an input: its URI, since no
    digest was recorded of what it held.

    Args:
        old: `identity()` of the configuration that the artifact was begun with.
        version: of `old`.
    """
    recorded = dict(_flat(old))
    leaves = {leaf.names: leaf for leaf in _leaves(new)}
    if version == 1:
        _translate(recorded, leaves)
    if version < 3:
        _leave_open(recorded, leaves)
    for names in _NOT_ALWAYS_SAID:
        if names in leaves:
            recorded.setdefault(names, leaves[names].value)
    replaced = {
        names[:-1]
        for names, leaf in leaves.items()
        if names[-1] == "kind" and recorded.get(names, leaf.value) != leaf.value
    }
    found: list[Difference] = []
    for names, leaf in leaves.items():
        # The fields of another kind of source or objective say nothing about this one's.
        if (names[:-1] in replaced and names[-1] != "kind") or not leaf.is_compared(version):
            continue
        if names not in recorded and version == 1 and leaf.before is None:
            continue
        asked = leaf.identity(leaf.value, version)
        if names not in recorded and leaf.info.is_required():
            found.append(_incomparable(names, UNRECORDED, asked))
            continue
        then = recorded[names] if names in recorded else leaf.identity(leaf.unrecorded, version)
        if then != asked:
            found.append(leaf.difference(then, asked))
    for names in recorded:
        if names not in leaves and names[:-1] not in replaced:
            found.append(_incomparable(names, recorded[names], UNKNOWN))
    return found


def rounding_differences(old: dict[str, Any], new: Config) -> list[Difference]:
    """Settings that an artifact was begun with and that are now such that its last bits may differ.

    Args:
        old: `rounding()` of that configuration, or its identity of version 1. What it does not hold
            is not known to differ.
    """
    recorded = dict(_flat(old))
    return [
        leaf.difference(recorded[leaf.names], leaf.value)
        for leaf in _leaves(new)
        if leaf.role is ROUNDING and recorded.get(leaf.names, leaf.value) != leaf.value
    ]


def refusal(found: list[Difference]) -> str:
    """The differences and, to be pasted, what would be accepted, in one line."""
    flags = [one.accepted for one in found if one.accepted.startswith("--")]
    others = [one.accepted for one in found if not one.accepted.startswith("--")]
    accepted = ", ".join([" ".join(flags), *others] if flags else others)
    return f"{'; '.join(map(str, found))}; accepted: {accepted}"


def _translate(recorded: dict[Names, Any], leaves: "dict[Names, _Leaf]") -> None:
    """What version 1 said in another form: one range of depth for all datasets. Asked for none, a
    run that is resumed keeps its own."""
    leaf = leaves.get(_RANGES)
    if leaf is not None and isinstance(recorded.get(_RANGES), int | float):
        single = recorded.pop(_RANGES)
        if leaf.value:
            recorded[_RANGES] = [single] * len(leaf.value)


def as_begun(sampling: SamplingConfig, version: int) -> SamplingConfig:
    """How a job samples that was begun with an identity of this version, if this is asked for."""
    if version >= 3:
        return sampling
    asked = sampling.model_dump()
    update = {name: value for name, value in DEFAULT_SAMPLING.items() if asked[name] is None}
    return sampling.model_copy(update=update)


def _leave_open(recorded: dict[Names, Any], leaves: "dict[Names, _Leaf]") -> None:
    """What versions 1 and 2 said of sampling that was left open."""
    for name, default in DEFAULT_SAMPLING.items():
        names = ("sampling", name)
        leaf = leaves.get(names)
        if leaf is not None and leaf.value is None and recorded.get(names) == default:
            recorded[names] = None
    if ("card_digest",) in leaves:
        recorded[("card_digest",)] = None  # There was no other card than the model's.


@dataclass(frozen=True)
class _Leaf:
    """A field of a configuration that is no configuration itself; values are of JSON."""

    names: Names
    flag: str
    info: FieldInfo
    role: Role
    value: Any

    @property
    def default(self) -> Any:
        return _json(self.info.get_default(call_default_factory=True, validated_data={}))

    @property
    def before(self) -> BeforeIt | None:
        return next((entry for entry in self.info.metadata if isinstance(entry, BeforeIt)), None)

    @property
    def unrecorded(self) -> Any:
        """What a record means that is older than the field."""
        return self.default if self.before is None else self.before.value

    @property
    def is_counted(self) -> bool:
        """Whether this is a number of inputs."""
        return is_input(self.info) and isinstance(self.value, list)

    def is_compared(self, version: int) -> bool:
        if self.role is RESULT or self.is_counted:
            return True
        return version == 1 and is_input(self.info)

    def identity(self, value: Any, version: int) -> Any:
        """What an identity of this version holds of a value of this field."""
        return len(value) if self.is_counted and version > 1 else value

    def difference(self, recorded: Any, asked: Any) -> Difference:
        dotted = ".".join(self.names)
        for entry in self.info.metadata:
            if isinstance(entry, ChosenBy):
                said = f"{dotted} {recorded} -> {asked}"
                accepted = f"another {entry.what} ({dotted} {recorded})"
                if recorded is None:
                    accepted = f"no {entry.what}"
                return Difference(dotted, recorded, asked, said, accepted)
        if self.is_counted and isinstance(recorded, int):
            said = f"{self.flag} {recorded} times -> {asked} times"
            return Difference(dotted, recorded, asked, said, f"{recorded} times {self.flag}")
        then, now = typed(self.flag, recorded), typed(self.flag, asked)
        if not isinstance(asked, bool | list):
            now = now.removeprefix(f"{self.flag} ")
        is_left_out = recorded is None and not self.info.is_required() and self.default is None
        accepted = f"without {self.flag}" if is_left_out else then
        return Difference(dotted, recorded, asked, f"{then} -> {now}", accepted)


def _leaves(config: Config) -> Iterator[_Leaf]:
    def below(part: Config, names: Names, path: Names) -> Iterator[_Leaf]:
        for name, info in type(part).model_fields.items():
            value, role = getattr(part, name), role_of(info)
            if role is None:
                # Of a field that holds one of several configurations, which one it is.
                kind = (str(value.kind),) if len(configs_of(info)) > 1 else ()
                yield from below(value, (*names, name), (*path, name, *kind))
            else:
                flag = flag_of(type(config), (*path, name))
                yield _Leaf((*names, name), flag, info, role, _json(value))

    return below(config, (), ())


def _incomparable(names: Names, recorded: Any, asked: Any) -> Difference:
    """Of a field that either the record or this program does not have."""
    field = ".".join(names)
    said = f"{field} {recorded} -> {asked}"
    return Difference(field, recorded, asked, said, "the e2eft that began it")


def _flat(tree: dict[str, Any], names: Names = ()) -> Iterator[tuple[Names, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), (*names, name))
        else:
            yield (*names, name), value


def _json(value: Any) -> Any:
    """As it is when it was written and read again."""
    return json.loads(json.dumps(value, default=written))
