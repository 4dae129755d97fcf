"""From a configuration to a job that may begin: everything is resolved and checked, and nothing is
written yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2eft.artifacts import Artifact, Claim, Owned, Parent, Place, look, read_json
from e2eft.cluster import connect
from e2eft.config import MAX_PROCESSING_PX, VAE_FACTOR, LabelConfig
from e2eft.corpora.corpus import (
    PLAN,
    Corpus,
    check_apart,
    encode_plan,
    is_artifact,
    read_plan,
    survey,
)
from e2eft.data.shards import open_shards
from e2eft.errors import ConflictError, DamagedError, MissingError
from e2eft.images.reasons import MAY_MEND
from e2eft.label.graph import reserved
from e2eft.label.sampling import LabelError, filled_in, target_of, tell_if_mirrored
from e2eft.labels.index import KIND
from e2eft.storage import Store, absolute, on_this_disk, open_store
from e2eft.tasks import label_codec, label_codecs
from e2eft.tasks.labels import LabelCodec
from e2eft.tracking import check_tracking, download_model, is_registry_uri

if TYPE_CHECKING:
    from e2eft.model.pinned import PinnedModel

MODEL_PIN = "plan/model.json"
GALLERY = "gallery.html"


@dataclass(frozen=True)
class Opened:
    """A job that may begin.

    corpus: as it is now, or as it was when the job was begun. pinned: the model that it was begun
    with, if it was.
    """

    config: LabelConfig
    place: Place
    model: PinnedModel
    corpus: Corpus
    target: str

    @property
    def codec(self) -> LabelCodec:
        """What its labels are."""
        return label_codec(self.config.task, self.model.card.depth_target)

    @property
    def is_retry(self) -> bool:
        """Whether its labels are finished, and some images are tried again."""
        return self.place.finished is not None


def located(config: LabelConfig) -> LabelConfig:
    """The configuration with local paths resolved, so that they mean the same everywhere, and with
    what its --model-card says.

    Raises:
        ModelError, StorageError: if that is no card.
    """
    from e2eft.model.card import given_card

    here = None if is_registry_uri(config.model) else on_this_disk(config.model)
    return config.model_copy(
        update={
            "out": absolute(config.out),
            "images": absolute(config.images),
            "model": str(here) if here and here.is_dir() else config.model,
            "card_digest": given_card(config.model_card)[1],
        }
    )


def open_job(config: LabelConfig, scratch: Path) -> Opened | Artifact:
    """The job, or what it has made.

    Args:
        scratch: a local folder for a model that must be fetched.

    Raises:
        ValueError: (and its subclasses) for what the user can correct: no such model or images, an
            output made with another configuration.
    """
    from e2eft.model.card import given_card
    from e2eft.model.pinned import require_task

    card, digest = given_card(config.model_card)
    config = config.model_copy(update={"card_digest": digest})  # Of this very text.
    check_apart(config.images, config.out)
    store = open_store(config.out)
    images = _shards(config.images)
    pin = None if config.overwrite else _read_pin(store)
    if pin and pin.name not in (config.model, _absolute_path(config.model)):
        pin = None
    if pin:
        begun_with = Parent("model", pin.uri, _digest_now(pin))
        place = look(store, KIND, config, (begun_with, *images), owned_by(store))
        if place.finished and not _is_retry(config, place):
            return tell_if_mirrored(place.finished)
    scratch.mkdir()
    model = _pinned(config, pin.uri if pin else config.model, scratch, card)
    require_task(model, config.task)
    _require_fitting(model, config)
    now = Parent("model", model.uri, model.digest)
    place = look(store, KIND, config, (now, *images), owned_by(store))
    if place.finished and not _is_retry(config, place):
        return tell_if_mirrored(place.finished)
    if pin and pin.digest != model.digest and not place.replaces:
        raise LabelError(  # of version 1, whose claim does not tell
            f"the model {pin.uri} has changed since this job began (digest {pin.digest[:16]}, now "
            f"{model.digest[:16]}); put it back, or --overwrite to label anew"
        )
    if config.overwrite:
        # It takes seconds to tell, and is worth them where something may be deleted, perhaps by a
        # job that this is a part of.
        from e2eft.model.pretrained import require_tensors

        require_tensors(model.source)
    config, model = filled_in(config, model, place)
    return Opened(config, place, model, _corpus(place, config), target_of(model.card, config.task))


def _is_retry(config: LabelConfig, place: Place) -> bool:
    """Whether finished labels have images that shall be tried again."""
    reasons = place.finished.details["reject_reasons"] if place.finished else {}
    return config.retry and not MAY_MEND.isdisjoint(reasons)


def _require_fitting(model: PinnedModel, config: LabelConfig) -> None:
    """Raises LabelError if the model does not take what --initial-latent gives it, knows fewer
    timesteps than --steps, or is to see images of a size that no model sees."""
    size = config.processing_size
    if size and not VAE_FACTOR <= size <= MAX_PROCESSING_PX:
        raise LabelError(
            f"--processing-size {size}: choose from {VAE_FACTOR} to {MAX_PROCESSING_PX} pixels"
        )
    steps = config.sampling.steps or model.card.steps
    if steps > model.timesteps:
        raise LabelError(
            f"--steps {steps}: the model {model.name} has {model.timesteps} timesteps; choose as "
            "many or fewer"
        )
    initial = config.sampling.initial_latent or model.card.initial_latent
    if (initial != "none") != model.sees_image:
        takes, choices = ("a", "gaussian or zeros") if model.sees_image else ("no", "none")
        raise LabelError(
            f"--initial-latent {initial}: the model {model.name} takes {takes} latent beside the "
            f"image's; leave it out, or choose {choices}"
        )


def _absolute_path(name: str) -> str:
    """As `located` has the name of a model's folder, were it still there."""
    return name if "://" in name or is_registry_uri(name) else absolute(name)


def _shards(uri: str) -> tuple[Parent, ...]:
    """The shards that are labelled; nothing for a folder of images, which may grow."""
    return (open_shards(uri).artifact.as_parent("images"),) if is_artifact(open_store(uri)) else ()


@dataclass(frozen=True)
class _Pin:
    """The model that a job was begun with; see `PinnedModel`."""

    name: str
    uri: str
    digest: str


def _read_pin(store: Store) -> _Pin | None:
    where = f"{store.uri}/{MODEL_PIN}"
    try:
        tree = read_json(store.read(MODEL_PIN), where)
        return _Pin(*(str(tree[name]) for name in ("name", "uri", "digest")))
    except MissingError:
        return None
    except KeyError as error:
        raise DamagedError(
            f"{where} does not say {error}; put back what was there, or --overwrite"
        ) from None


def _digest_now(pin: _Pin) -> str:
    """Of the pinned model, which may hold something else meanwhile; of one that is gone, as it was.
    A registered version and a commit of the hub stay what they are."""
    from e2eft.model.hub import ModelError, hub_id
    from e2eft.model.pinned import files_digest

    if not is_registry_uri(pin.uri) and hub_id(pin.uri) is None:
        with suppress(ModelError, MissingError):
            return files_digest(pin.uri)
    return pin.digest


def _pinned(config: LabelConfig, uri: str, scratch: Path, card: str) -> PinnedModel:
    """The model at `uri`, fixed to what is there now."""
    from e2eft.model.pinned import pin_model

    location = uri
    if is_registry_uri(uri):
        registered = download_model(config.tracking, uri, scratch / "registered")
        uri, location = registered.uri, str(registered.folder)
    return pin_model(config.model, uri, location, scratch, card)


def _corpus(place: Place, config: LabelConfig) -> Corpus:
    if place.record is not None and not place.replaces:
        try:
            return read_plan(place.store, config.images)
        except MissingError:
            pass
    return survey(config.images, config.images_per_part)


def require_possible(jobs: Sequence[Opened]) -> None:
    """Raises ValueError if the cluster has no room, MLflow does not answer, or the jobs have not
    the same model."""
    if not jobs:
        return
    if len({job.model.digest for job in jobs}) > 1:
        raise LabelError(f"the model {jobs[0].config.model} changed meanwhile; run it again")
    check_tracking(jobs[0].config.tracking)
    connect()
    reserved(jobs[0].config)


def freeze(opened: Opened, claim: Claim) -> Corpus:
    """Writes plan and model of a job that begins; returns the plan that counts, which is that of
    the claim's first run.

    Raises:
        ConflictError: if a job that was replaced has left its own meanwhile.
    """
    model = opened.model
    pin = {"name": model.name, "uri": model.uri, "digest": model.digest}
    for path, content in (
        (MODEL_PIN, json.dumps(pin, indent=1).encode()),
        (PLAN, encode_plan(opened.corpus)),
    ):
        is_new = claim.writer.create(path, content)
        if not is_new and not claim.is_resumed and claim.store.read(path) != content:
            raise ConflictError(f"{claim.store.uri}/{path} was written by another job; run again")
    return read_plan(claim.store, opened.config.images)


def owned_by(store: Store) -> Owned:
    """What this stage writes there: of folders that a user may use too, only the plan's names."""
    return Owned(
        patterns=(r"gallery\.html",),
        results=(r"index/part-\d{6}\.parquet", r"retried/\d{6}\.parquet"),
        last=(r"plan/images\.parquet", r"plan/model\.json"),
        also=_labels_of(store),
    )


def _labels_of(store: Store) -> Callable[[str], bool]:
    """Whether a path is that of a label of an image that is in the plan, of any task."""
    patterns = [
        pattern.partition("*")
        for codec in label_codecs()
        for pattern in (codec.path("*"), codec.npy_path("*"))
    ]
    patterns.append(("preview/", "*", ".jpg"))
    names: set[str] | None = None

    def is_label(path: str) -> bool:
        nonlocal names
        between = [
            path.removeprefix(start).removesuffix(end)
            for start, _, end in patterns
            if path.startswith(start) and path.endswith(end)
        ]
        if not between:
            return False
        if names is None:
            names = _planned_names(store)
        return not names.isdisjoint(between)

    return is_label


def _planned_names(store: Store) -> set[str]:
    import io

    import pyarrow.parquet as pq

    try:
        content = store.read(PLAN)
    except MissingError:
        return set()
    return set(pq.read_table(io.BytesIO(content), columns=["name"])["name"].to_pylist())
