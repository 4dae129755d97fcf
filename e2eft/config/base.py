"""What all configurations have in common, and the settings that several stages share."""

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_args

import tyro
from pydantic import BaseModel, ConfigDict, Field, field_serializer
from pydantic.fields import FieldInfo

from e2eft.config.choices import written
from e2eft.secrets import shown

VAE_FACTOR = 8
"""The smallest factor of the supported backbones' VAEs, for what a configuration alone must tell;
which sizes a model takes, its codec says."""

MAX_PROCESSING_PX = 4096
"""Longest side at which a model is to see an image, whoever asks for it."""

TaskName = Literal["depth", "normals"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
"""Those of `e2eft.tasks`, in its order."""
InitialLatent = Literal["zeros", "gaussian", "pyramid", "none"]
INT64_MAX = 2**63 - 1
"""Beyond it integers are none of tables, seeds and sizes of arrays."""
Positive = Annotated[int, Field(gt=0, le=INT64_MAX)]
Count = Annotated[int, Field(ge=0, le=INT64_MAX)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Role(Enum):
    """What it means for an artifact that a field was one thing and is another now."""

    RESULT = "result"
    """Decides which samples, loss, weights or bytes there are: another one, another artifact."""
    ROUNDING = "rounding"
    """May change the last bits: sums in another order, by another kernel, in another precision."""
    PLACEMENT = "placement"
    """Where, how often and before whose eyes the same work is done."""


RESULT, ROUNDING, PLACEMENT = Role.RESULT, Role.ROUNDING, Role.PLACEMENT


@dataclass(frozen=True)
class Input:
    """Marks URIs whose content an artifact's claim records by digest: the place may change, what is
    there may not, nor how many of them there are."""


INPUT = Input()


@dataclass(frozen=True)
class BeforeIt:
    """What a field stood at before there was the field, if that is not its default: what it means
    of a record that lacks it."""

    value: Any


@dataclass(frozen=True)
class ChosenBy:
    """What decides a field that has no flag: a recipe, or another flag."""

    what: str


T = TypeVar("T")
ByRecipe = Annotated[T, tyro.conf.Suppress, ChosenBy("recipe")]
"""A field that is no flag because the recipe's name says it."""


def flag(name: str) -> Any:
    """The field's own name on the command line, without the group it lives in."""
    return tyro.conf.arg(name=name, prefix_name=False)


class Config(BaseModel):
    """Base of every configuration: frozen, strict about unknown fields, JSON round trip exact.

    Every field has one `Role` in its annotation, or is a configuration whose fields have theirs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            roles = [entry for entry in field.metadata if isinstance(entry, Role)]
            if len(roles) != (0 if configs_of(field) else 1):
                raise TypeError(
                    f"{cls.__name__}.{name} has the roles {roles}: a field needs one, a nested "
                    "configuration none"
                )

    def identity(self) -> dict[str, Any]:
        """The fields that decide what the artifact contains, nested as the configuration is. Of
        inputs, whose content is no part of a configuration, how many there are."""
        return self._fields(RESULT)

    def rounding(self) -> dict[str, Any]:
        """The fields that may change the artifact's last bits, nested as the configuration is."""
        return self._fields(ROUNDING)

    def parameters(self) -> dict[str, Any]:
        """For people who compare runs: all but placement, and inputs by their URIs."""
        return self._fields(RESULT, ROUNDING, uris=True)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `identity()`, hexadecimal."""
        return digest_of(self.identity())

    def _fields(self, *roles: Role, uris: bool = False) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                if nested := value._fields(*roles, uris=uris):
                    chosen[name] = nested
            elif role_of(field) in roles or (uris and is_input(field)):
                chosen[name] = value
            elif RESULT in roles and is_input(field) and isinstance(value, tuple):
                chosen[name] = len(cast("tuple[str, ...]", value))
        return json.loads(json.dumps(chosen, default=written))


def configs_of(field: FieldInfo) -> tuple[type[Config], ...]:
    """The kinds of configuration that a field may hold; none: it holds a plain value."""
    kinds: tuple[Any, ...] = get_args(field.annotation) or (field.annotation,)
    configs = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config))
    return configs if len(configs) == len(kinds) else ()


def role_of(field: FieldInfo) -> Role | None:
    """None: of a nested configuration."""
    return next((entry for entry in field.metadata if isinstance(entry, Role)), None)


def is_input(field: FieldInfo) -> bool:
    """Whether a field names what the claim records by digest."""
    return INPUT in field.metadata


def digest_of(identity: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of an identity, hexadecimal."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def require_multiple(name: str, value: int, factor: int = VAE_FACTOR) -> None:
    """Raises ValueError if `value` pixels cannot be encoded by a VAE of this factor."""
    if value % factor:
        low, high = value // factor * factor, -(-value // factor) * factor
        raise ValueError(
            f"--{name} {value} is not a multiple of the VAE's factor {factor}; use {low} or {high}"
        )


class TrackingConfig(Config):
    """MLflow: where runs go and under which experiment."""

    tracking_uri: Annotated[str | None, PLACEMENT, flag("tracking-uri"), Field(repr=False)] = None
    """MLflow server or database. Default: the MLFLOW_TRACKING_URI variable, else sqlite:///mlflow.db."""
    experiment: Annotated[str, PLACEMENT, flag("experiment")] = "e2eft"
    """MLflow experiment."""
    enabled: Annotated[bool, PLACEMENT, flag("tracking")] = True
    """Log to MLflow at all."""

    @field_serializer("tracking_uri", when_used="json")
    def _without_userinfo(self, uri: str | None) -> str | None:
        """What is stored, logged or sent to workers holds no password."""
        return None if uri is None else shown(uri)


class StageConfig(Config):
    """Base of the stages' configurations. Each has these fields, with a help of its own."""

    if TYPE_CHECKING:
        out: str
        overwrite: bool
        take_over: bool
        single_writer: bool
        tracking: TrackingConfig
