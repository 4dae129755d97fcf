"""What all configurations have in common, and the settings that several stages share."""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field

VAE_FACTOR = 8
"""Every supported base model's VAE maps an 8 x 8 pixel block to one latent."""

TaskName = Literal["depth", "normals"]
InitialLatent = Literal["zeros", "gaussian", "pyramid", "none"]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def flag(name: str) -> Any:
    """The field's own name on the command line, without the group it lives in."""
    return tyro.conf.arg(name=name, prefix_name=False)


class Config(BaseModel):
    """Base of every configuration: frozen, strict about unknown fields, JSON round trip exact."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    outside_identity: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """The fields that decide what the artifact contains, nested as the configuration is."""
        fields: dict[str, Any] = {}
        for name in type(self).model_fields:
            if name in self.outside_identity:
                continue
            value = getattr(self, name)
            fields[name] = value.identity() if isinstance(value, Config) else value
        return json.loads(json.dumps(fields))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `identity()`, hexadecimal."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
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

    tracking_uri: Annotated[str | None, flag("tracking-uri")] = None
    """MLflow server or database. Default: the MLFLOW_TRACKING_URI variable, else sqlite:///mlflow.db."""
    experiment: Annotated[str, flag("experiment")] = "e2eft"
    """MLflow experiment."""
    enabled: Annotated[bool, flag("tracking")] = True
    """Log to MLflow at all."""
