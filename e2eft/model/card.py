"""What a folder of weights does not say by itself."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from e2eft.config import InitialLatent, Spacing

CARD_NAME = "e2eft.json"


@dataclass(frozen=True)
class ModelCard:
    """What a folder of weights does not say by itself; `e2eft.json` beside `model_index.json`.

    task: `depth`, `normals`, or `image` for a model that is not an estimator yet.
    target: what the decoded image stands for, in the task's words.
    initial_latent, steps, spacing: how the model wants to be run.
    prompt_tokens: length of the embedded empty prompt it was trained with.
    processing_size: longest image side in pixels it was trained at; 0 if unknown.
    """

    task: str
    target: str = ""
    initial_latent: InitialLatent = "gaussian"
    steps: int = 1
    spacing: Spacing = "trailing"
    prompt_tokens: int = 2
    processing_size: int = 0

    @classmethod
    def of(cls, content: dict[str, Any]) -> "ModelCard":
        """A card from JSON; unknown fields of newer versions are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
