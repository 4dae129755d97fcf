"""What a folder of weights does not say by itself."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from e2eft.config import (
    MAX_PROCESSING_PX,
    VAE_FACTOR,
    InitialLatent,
    LabelsAxes,
    SamplingConfig,
    Spacing,
    TaskName,
)
from e2eft.errors import MissingError
from e2eft.model.hub import ModelError
from e2eft.storage import absolute, open_store
from e2eft.targets import LINEAR, DepthTarget

CARD_NAME = "e2eft.json"


def _size(value: int) -> int:
    if value and not VAE_FACTOR <= value <= MAX_PROCESSING_PX:
        raise ValueError(f"0 or from {VAE_FACTOR} to {MAX_PROCESSING_PX}")
    return value


@dataclass(frozen=True)
class ModelCard:
    """What a folder of weights does not say by itself; `e2eft.json` beside `model_index.json`.

    task: its name, or `image` for a model that does not say which, or is no estimator.
    target: what the decoded image stands for, in the task's words.
    initial_latent, steps, spacing: how the model wants to be run.
    prompt_tokens: length of the embedded empty prompt it was trained with.
    processing_size: longest image side in pixels it was trained at; 0: each image's own.
    depth_target: what depth is predicted as; of other tasks, and of cards that do not say, linear.
    axes: of directions, in the decoded image. full_z_range: whether that holds all of z in [-1, 1],
    or its half [0, 1] drawn out to that.
    predicts: of a flow-matching model, what it was trained to give instead of the flow: the clean
    latent (`sample`), or what the image's latent has over that (`residual`).
    """

    task: Literal[TaskName, "image"]
    target: str = ""
    initial_latent: InitialLatent = "gaussian"
    steps: Annotated[int, Field(ge=1)] = 1
    spacing: Spacing = "trailing"
    prompt_tokens: Literal[2, 77] = 2
    processing_size: Annotated[int, AfterValidator(_size)] = 0
    depth_target: Annotated[DepthTarget, Field(discriminator="kind")] = LINEAR
    axes: LabelsAxes = "right-up-viewer"
    full_z_range: bool = True
    predicts: Literal["", "sample", "residual"] = ""

    @classmethod
    def of(cls, content: Any, where: str) -> "ModelCard":
        """A card from JSON.

        Raises:
            ModelError: for a field that is missing, is not known, or whose value is not known; it
                names what would be.
        """
        if not isinstance(content, dict):
            raise ModelError(f"{where} is no card: it must be a JSON object with a task")
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in content if name not in known]:
            raise ModelError(
                f"{where}: {', '.join(map(json.dumps, unknown))} is no field of a card; they are "
                f"{', '.join(known)}"
            )
        try:
            return _READER.validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            raise ModelError(f"{where}: {'; '.join(map(_said, error.errors()))}") from None

    def as_json(self) -> dict[str, Any]:
        """Without a field that came later where it says nothing, so that digests stay."""
        content = asdict(self)
        for name, nothing in (("depth_target", LINEAR), ("predicts", "")):
            if getattr(self, name) == nothing:
                del content[name]
        return content

    def digest(self) -> str:
        """SHA-256 of what it says, however that is written, hexadecimal."""
        canonical = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def filled(self, sampling: SamplingConfig) -> SamplingConfig:
        """As it is asked for; steps and their spacing as the model's own where that is open."""
        steps, spacing = sampling.steps or self.steps, sampling.spacing or self.spacing
        return sampling.model_copy(update={"steps": steps, "spacing": spacing})


_READER = TypeAdapter(ModelCard)


def _said(problem: Any) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{field} is missing"
    wanted = problem["msg"].removeprefix("Input ").replace("Value error,", "should be")
    return f"{field} {json.dumps(problem['input'], default=str)} {wanted}"


def parse_card(text: str, where: str) -> ModelCard:
    """The card that a file's text is.

    Raises:
        ModelError: if it is none.
    """
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except ValueError as error:
        raise ModelError(f"{where} is no JSON ({error})") from None
    return ModelCard.of(content, where)


def given_card(place: str | None) -> tuple[str, str | None]:
    """The text of the card at a place, and the digest of what it says; ("", None) for no place.

    Raises:
        ModelError: if there is none.
        StorageError: if it cannot be read.
    """
    if place is None:
        return "", None
    folder, _, name = absolute(place).rpartition("/")
    try:
        content = open_store(folder or "/").read(name)
    except MissingError:
        raise ModelError(f"--model-card {place} is not there; give a JSON file") from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ModelError(f"--model-card {place} is no JSON; give a JSON file") from None
    return text, parse_card(text, f"--model-card {place}").digest()
