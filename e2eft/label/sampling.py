"""How a job runs its model: what its configuration asks for, and what it leaves to the model."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from e2eft.artifacts import Artifact, Place
from e2eft.config import LabelConfig, as_begun
from e2eft.errors import E2eftError
from e2eft.tasks import get_task, label_codec

if TYPE_CHECKING:
    from e2eft.model.card import ModelCard
    from e2eft.model.pinned import PinnedModel

log = logging.getLogger(__name__)

RIGHT_UP = "right-up-viewer"


class LabelError(E2eftError):
    """A labelling job that cannot go on or be committed; the message says why and what to do."""


def filled_in(
    config: LabelConfig, model: PinnedModel, place: Place
) -> tuple[LabelConfig, PinnedModel]:
    """Configuration and model with everything that is left to the model filled in; of a job that is
    resumed, as it was when that began.

    Raises:
        LabelError: if it began to write directions in other axes than the model's.
    """
    from e2eft.model.card import CARD_NAME

    record = None if place.replaces else place.record
    card, sampling = model.card, config.sampling
    if record is not None and record.identity_version < 3:
        sampling = as_begun(sampling, record.identity_version)
        if model.source.text(CARD_NAME) is None:
            is_right_up = card.axes == RIGHT_UP and card.full_z_range
            if label_codec(config.task).has_directions and not is_right_up:
                raise LabelError(
                    f"{config.out} was begun when the {config.task} of {model.name} were taken for "
                    f"{RIGHT_UP}, which they are not; use another --out"
                )
            card = replace(card, processing_size=0)  # An index was not asked for a size.
    config = config.model_copy(update={"sampling": card.filled(sampling)})
    return config, replace(model, card=card)


def target_of(card: ModelCard, task: str) -> str:
    """What the labels' values mean: in the card's words, or the task's, with which torch comes."""
    if card.target:
        return card.target
    meant = get_task(task, depth_target=card.depth_target)
    return meant.read_from(card.axes, card.full_z_range).target


def tell_if_mirrored(labels: Artifact) -> Artifact:
    """The same; warns of directions that were written before it was known which way they point."""
    task = labels.details["task"]
    card = labels.details["model"].get("card", {})
    unread = "axes" not in card and card.get("task") == "image"
    is_e2e_ft = unread and card.get("initial_latent") == "zeros"
    if is_e2e_ft and label_codec(task).has_directions:
        log.warning(
            "%s: these %s are of a released E2E-FT model and were taken for %s, but have x to "
            "the left; label anew with another --out",
            labels.uri,
            task,
            RIGHT_UP,
        )
    return labels
