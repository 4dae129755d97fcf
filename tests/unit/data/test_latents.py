"""Cached latents: their rounding, their place beside the rows, and what a batch makes of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2eft.artifacts import ArtifactError, verify
from e2eft.data.batches import FrameReader, PlannedFrame
from e2eft.data.latents import (
    DETAIL,
    RgbLatents,
    encode_latents,
    encode_latents_part,
    latents_path,
    require_encodable,
)
from e2eft.data.shards import ROWS_PER_GROUP, open_shards
from e2eft.model.codec import Codec
from e2eft.model.pretrained import load_codec
from e2eft.storage import open_store
from tests.frames import analytic_frame, write_shards
from tests.tiny_models import blank_source

HEIGHT, WIDTH, COUNT = 16, 24, 11
DESCRIPTION = RgbLatents("abc", "some-model", channels=4, factor=8)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return load_codec(blank_source(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, codec: Codec) -> str:
    """Eleven frames with latents, in parts of nine and two."""
    frames = [analytic_frame(number, HEIGHT, WIDTH) for number in range(COUNT)]
    uri = str(tmp_path_factory.mktemp("data") / "shards")
    return write_shards(uri, frames, frames_per_part=ROWS_PER_GROUP + 1, codec=codec).uri


@given(st.lists(st.floats(-6e4, 6e4, width=32), min_size=48, max_size=48))
def test_rounding_is_as_stated(values: list[float]) -> None:
    latents = np.array(values, np.float32).reshape(2, 4, 2, 3)
    decoded = DESCRIPTION.decode(encode_latents(latents), 16, 24)
    assert decoded.dtype == np.float16 and decoded.shape == latents.shape
    error = np.abs(decoded.astype(np.float64) - latents)
    assert (error <= np.maximum(2.0**-11 * np.abs(latents), 3.0e-8)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_what_float16_does_not_hold_is_refused(value: float) -> None:
    latents = np.zeros((2, 4, 2, 3), np.float32)
    latents[0, 1, 1, 2] = value
    with pytest.raises(ValueError, match="not finite in float16"):
        encode_latents(latents)


def test_only_multiples_of_the_factor_can_be_encoded() -> None:
    require_encodable(["480 x 640", "352 x 1216"])
    with pytest.raises(ValueError, match=r"--latents-of: frames of 375 x 1242 .*multiples of 8"):
        require_encodable(["480 x 640", "375 x 1242"])


def test_the_artifact_says_whose_latents_it_has(uri: str, codec: Codec, tmp_path: Path) -> None:
    shards = open_shards(uri)
    assert shards.latents == RgbLatents(codec.digest(), "some-model", 4, 8)
    assert verify(shards.artifact) == []
    assert latents_path(1) in {file.path for file in shards.artifact.files}
    without = write_shards(str(tmp_path / "a"), [analytic_frame(0, HEIGHT, WIDTH)])
    assert DETAIL not in without.details and open_shards(without.uri).latents is None


@pytest.mark.parametrize("row", [0, ROWS_PER_GROUP, ROWS_PER_GROUP + 1, COUNT - 1])
def test_a_frame_comes_with_its_own_latent_mirrored_if_it_is(
    row: int, uri: str, codec: Codec
) -> None:
    """Read from the last row group of one part, or the first of another."""
    shards = [open_shards(uri)]
    live, cached = FrameReader(shards), FrameReader(shards, latents=True)
    for flip in (False, True):
        frames = [PlannedFrame(0, row, flip, seed=0)]
        wanted, made = live.batch(frames, 80.0), cached.batch(frames, 80.0)
        assert made.keys == wanted.keys and wanted.rgb_latents is None
        assert made.rgb_latents is not None and made.rgb_latents.dtype == torch.float32
        with torch.no_grad():
            latent = codec.encode(wanted.rgb)
        error = (made.rgb_latents - latent).abs()
        assert (error <= 2.0**-11 * latent.abs() + 1e-5).all()
        mirrored = (made.rgb_latents.flip(-1) - latent).abs()
        assert mirrored.max() > 20 * error.max(), "the test would not notice the mirror"
        torch.testing.assert_close(made.depth_m, wanted.depth_m, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(made.valid, wanted.valid)
        torch.testing.assert_close(
            made.normals_cam, wanted.normals_cam, rtol=0, atol=0, equal_nan=True
        )
        assert made.rgb.shape == wanted.rgb.shape and made.rgb.isnan().all()
        assert made.to("cpu").rgb_latents is not None


def test_latents_of_other_rows_are_not_taken(uri: str, codec: Codec, tmp_path: Path) -> None:
    frames = [analytic_frame(number, HEIGHT, WIDTH) for number in range(3)]
    artifact = write_shards(str(tmp_path / "a"), frames, codec=codec)
    packed = encode_latents(np.zeros((2, 4, 2, 3), np.float32))
    keys = [frame.key for frame in reversed(frames)]
    content = encode_latents_part(keys, [packed] * 3, ROWS_PER_GROUP)
    open_store(artifact.uri).write(latents_path(0), content)
    with pytest.raises(ArtifactError, match="has other rows"):
        open_shards(artifact.uri).read_group_with_latents(0, 0)
