"""Models of the hub, as its cache has them on a machine that it does not answer."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from e2eft.artifacts import ArtifactError, Parent, look
from e2eft.config import ModelConfig, TrainConfig
from e2eft.model.hub import ModelError, commit_of, hub_id, pinned
from e2eft.model.pinned import as_input, pin_model
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model, recognized
from e2eft.storage import LocalStore
from e2eft.train.driver import OWNED, _base, _for_workers
from tests.tiny_models import blank_source, edit_json

NAME = "owner/name"
FIRST, SECOND = "1" * 40, "2" * 40


def fetch(cache: Path, commit: str, seed: int) -> Path:
    """What fetching NAME leaves: blobs by their hashes, a folder of links for the commit, and that
    it was the branch's."""
    repository = cache / "models--owner--name"
    made = cache / f"made-{seed}"
    blank_source(made, seed)
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        blob = (
            repository / "blobs" / f"{seed}-{path.relative_to(made).as_posix().replace('/', '-')}"
        )
        blob.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blob)
        link = repository / "snapshots" / commit / path.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    move(cache, commit)
    return repository / "snapshots" / commit


def move(cache: Path, commit: str) -> None:
    ref = cache / "models--owner--name" / "refs" / "main"
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(cache, FIRST, 0)
    return cache


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("owner/name", ("owner/name", "")),
        ("owner/name@v1-0", ("owner/name", "v1-0")),
        ("owner/name@refs/pr/1", ("owner/name", "refs/pr/1")),
        *((name, None) for name in ("word", "a/b/c", "./a", "/a/b", "~/a", "s3://a/b")),
        ("models:/name@champion", None),
        *((name, None) for name in ("owner/", "/name", "$HOME/x", "a--b/c", "a/b..c", "a/b.git")),
        *((name, None) for name in ("a/-b", "a./b", "é/b", "a/" + "b" * 97, "runs:/x", "dbfs:/x")),
        ("1/_b.c-d_", ("1/_b.c-d_", "")),
    ],
)
def test_what_a_hub_id_is(name: str, found: tuple[str, str] | None) -> None:
    assert hub_id(name) == found


def test_a_hub_id_means_the_commit_that_is_cached_where_nobody_answers(cache: Path) -> None:
    assert commit_of(NAME) == FIRST
    assert commit_of(f"{NAME}@{SECOND}") == SECOND
    assert as_input(NAME, "base") == Parent("base", NAME, FIRST)
    fetch(cache, SECOND, 1)
    assert as_input(NAME, "base") == Parent("base", NAME, SECOND)
    with pytest.raises(ModelError, match=r"'owner/other@v1'.*not in this machine's cache"):
        commit_of("owner/other@v1")
    assert as_input("owner/other", "base") == Parent("base", "owner/other", "")
    move(cache, "3" * 40)  # It was looked up, and never fetched.
    with pytest.raises(ModelError, match="HF_HOME"):
        commit_of(NAME)


def test_a_hub_that_answers_is_believed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(_: Any, repository: str, *, revision: str, timeout: float) -> Any:
        asked.append((repository, revision))
        return SimpleNamespace(sha=SECOND, siblings=[])

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    assert (commit_of(NAME), commit_of(f"{NAME}@dev")) == (SECOND, SECOND)
    assert commit_of(pinned(NAME, FIRST)) == FIRST
    assert asked == [(NAME, "main"), (NAME, "dev")]


def test_a_pinned_model_stays_what_it_was(cache: Path, tmp_path: Path) -> None:
    begun = pin_model(NAME, NAME, NAME, tmp_path)
    assert (begun.name, begun.uri) == (NAME, f"{NAME}@{FIRST}")
    fetch(cache, SECOND, 1)
    again = pin_model(NAME, begun.uri, begun.uri, tmp_path)
    newest = pin_model(NAME, NAME, NAME, tmp_path)
    assert (again.uri, again.digest) == (begun.uri, begun.digest)
    assert newest.uri == f"{NAME}@{SECOND}" and newest.digest != begun.digest


def test_every_component_is_of_the_commit_that_is_named(cache: Path) -> None:
    second = fetch(cache, SECOND, 1)
    edit_json(second / "model_index.json", after="Marigold")
    wanted = load_estimator(find_model(str(second.with_name(FIRST))), ModelConfig())
    for name, is_same in ((f"{NAME}@{FIRST}", True), (NAME, False)):
        source = find_model(name)
        made = load_estimator(source, ModelConfig())
        for ours, theirs in (
            (made.denoiser, wanted.denoiser), (made.codec.vae, wanted.codec.vae)
        ):  # fmt: skip
            pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
            assert all(bool((a == b).all()) for a, b in pairs) == is_same
        assert ("Marigold" in (source.text("model_index.json") or "")) != is_same
    assert recognized(find_model(f"{NAME}@{FIRST}")).card.task == "image"


def train_config(out: Path, **fields: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"base": NAME, "out": str(out), "task": "depth", "objective": {"kind": "end-to-end"},
         "data": {"uris": ["x"]}} | fields
    )  # fmt: skip


def begin(config: TrainConfig, *inputs: Parent) -> None:
    with look(LocalStore(Path(config.out)), "model", config, inputs, OWNED).take() as claim:
        claim.writer.create("checkpoints/12ab/step-00000001.json", b"{}")


def test_a_run_goes_on_with_the_commit_that_it_was_begun_with(cache: Path, tmp_path: Path) -> None:
    config = train_config(tmp_path / "run")
    base = _base(config)
    assert _for_workers(config, base)["config"]["base"] == f"{NAME}@{FIRST}"
    begin(config, base)
    fetch(cache, SECOND, 1)
    assert _base(config) == base
    for same in (NAME, f"{NAME}@{FIRST}"):
        again = train_config(tmp_path / "run", base=same)
        now = _base(again)
        assert now.digest == FIRST
        assert look(LocalStore(tmp_path / "run"), "model", again, (now,), OWNED).record
    newest = train_config(tmp_path / "run", overwrite=True)
    assert _base(newest).digest == SECOND
    other = train_config(tmp_path / "run", base=f"{NAME}@{SECOND}")
    with pytest.raises(ArtifactError, match=f"base .* digest {FIRST[:12]} -> {SECOND[:12]}"):
        look(LocalStore(tmp_path / "run"), "model", other, (_base(other),), OWNED)


def test_a_run_that_recorded_no_commit_is_the_same_run(cache: Path, tmp_path: Path) -> None:
    config = train_config(tmp_path / "run")
    begin(config, Parent("base", NAME, ""))
    store, base = LocalStore(tmp_path / "run"), _base(config)
    assert base.digest == FIRST
    place = look(store, "model", config, (base,), OWNED)
    assert place.record and not place.replaces
    move(cache, "3" * 40)  # Neither the hub nor the cache knows it: still the same run.
    assert look(store, "model", config, (_base(config),), OWNED).record
