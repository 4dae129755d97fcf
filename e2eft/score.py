"""Scoring a model: labelling with it, scoring the labels, and perhaps registering it.

It meets the stages that it is made of in their artifacts, as everything does; but everything that
either can refuse is checked before anything of the other's is written.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from e2eft import evaluate, label
from e2eft.artifacts import Artifact
from e2eft.config import EvaluateConfig, LabelConfig
from e2eft.extras import require_extra
from e2eft.labels.index import LabelIndex
from e2eft.model.card import given_card
from e2eft.model.hub import ModelError, hub_id
from e2eft.model.pinned import pin_model
from e2eft.storage import join
from e2eft.tracking import download_model, is_registry_uri, registering


def run(config: EvaluateConfig) -> Artifact:
    """Scores a model, or labels that are there, or finds them scored; registers the model if that
    is asked for.

    Raises:
        ValueError: (and its subclasses) for what the user can correct, or if nothing can be scored.
    """
    require_extra("datasets", "scoring")
    if config.model is None:
        return evaluate.run(config, config.labels)
    scores = _label_and_score(config)
    if config.register_as:
        with registering(scores.uri):
            register(config, scores)
    return scores


def _label_and_score(config: EvaluateConfig) -> Artifact:
    """Everything is checked before --out is claimed: a model that is not there deletes nothing."""
    place = evaluate.look_at(config)
    config = evaluate.as_found(place)
    if place.finished:
        evaluate.say_finished(config, place.finished)
        return place.finished
    with tempfile.TemporaryDirectory(prefix="e2eft-label-") as scratch:
        jobs = label.open_all(labelling(config), Path(scratch))
        for job in jobs:
            evaluate.require_scored(
                config, job.codec.kind if isinstance(job, label.Opened) else LabelIndex(job).kind
            )
        with place.take() as claim:
            if claim.finished:
                return claim.finished
            labels = [artifact.uri for artifact in label.run_opened(jobs)]
            return evaluate.score(config, claim, labels)


def labelling(config: EvaluateConfig) -> list[LabelConfig]:
    """How every --data is labelled with the model, below --out."""
    assert config.model is not None
    seen = evaluate.processing_of(config)
    return [
        LabelConfig(
            model=config.model,
            model_card=config.model_card,
            images=data,
            out=join(config.out, "labels", f"{number:02d}"),
            task=config.task,
            sampling=config.sampling,
            save_npy=True,
            save_previews=False,
            gallery_images=0,
            batch_size=config.batch_size,
            actors=config.actors,
            overwrite=config.overwrite,
            take_over=config.take_over,
            single_writer=config.single_writer,
            tracking=config.tracking.model_copy(update={"enabled": False}),
            **seen[number],
        )
        for number, data in enumerate(config.data)
    ]


def register(config: EvaluateConfig, scores: Artifact) -> None:
    """Registers the scored model under `config.register_as`, and says what became of the alias.

    Raises:
        ModelError: if the model is no longer what was scored.
    """
    from e2eft.model.pretrained import export_source

    assert config.model is not None
    uri, digest = evaluate.scored_model(scores)
    with tempfile.TemporaryDirectory(prefix="e2eft-register-") as scratch:
        place = config.model
        if is_registry_uri(place):
            # Not where an alias leads now, but what was scored.
            place = str(download_model(config.tracking, uri, Path(scratch, "registered")).folder)
        elif hub_id(uri):
            place = uri
        text, _ = given_card(config.model_card)
        model = pin_model(config.model, uri, place, Path(scratch), text)
        if model.digest != digest:
            raise ModelError(
                f"model {config.model!r} is not what {scores.uri} scored (digest {digest[:16]}, "
                f"now {model.digest[:16]}); put it back, or evaluate it with another --out"
            )
        card = replace(model.card, task=config.task)
        folder = export_source(model.source, Path(scratch, "model"), card)
        outcome = evaluate.register(config, scores, folder, card.as_json())
    print(f"models:/{config.register_as}: {outcome.reason}")
