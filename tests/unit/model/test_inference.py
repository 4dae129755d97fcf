from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2eft.config import SamplingConfig
from e2eft.corpora.reading import content_seed
from e2eft.model.estimator import Estimator
from e2eft.model.inference import PreparedImage, pad_to_multiple, predict
from e2eft.tasks import get_task
from tests.corpora import coloured
from tests.tiny_models import lively

SIZES = [(40, 56), (37, 53), (40, 56), (8, 8), (37, 53), (40, 56)]
GAUSSIAN = SamplingConfig(initial_latent="gaussian")


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Estimator:
    return lively(tmp_path_factory.mktemp("model") / "blank")[1]


def prepared(number: int, height: int, width: int) -> PreparedImage:
    rgb = np.asarray(coloured(number, height, width))
    return PreparedImage(rgb, (height, width), content_seed(rgb.tobytes(), 0))


@pytest.fixture(scope="module")
def corpus() -> list[PreparedImage]:
    return [prepared(number, *size) for number, size in enumerate(SIZES)]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_results_are_in_the_images_order_whatever_their_sizes(
    estimator: Estimator, corpus: list[PreparedImage], batch_size: int
) -> None:
    task = get_task("depth")
    results = predict(estimator, task, corpus, GAUSSIAN, batch_size)
    assert [result.shape for result in results] == SIZES
    for image, result in zip(corpus, results, strict=True):
        (alone,) = predict(estimator, task, [image], GAUSSIAN, 8)
        np.testing.assert_allclose(result, alone, atol=1e-5)
    assert np.abs(results[0] - results[2]).mean() > 0.01


def test_normals_come_channels_last_in_unit_length(
    estimator: Estimator, corpus: list[PreparedImage]
) -> None:
    results = predict(estimator, get_task("normals"), corpus[:2], SamplingConfig())
    assert [result.shape for result in results] == [(*size, 3) for size in SIZES[:2]]
    np.testing.assert_allclose(np.linalg.norm(results[1], axis=-1), 1, atol=1e-5)


def test_no_images_no_results(estimator: Estimator) -> None:
    assert predict(estimator, get_task("depth"), [], SamplingConfig()) == []


def test_predictions_need_no_graph(estimator: Estimator, corpus: list[PreparedImage]) -> None:
    seen: list[Any] = []
    handle = estimator.denoiser.register_forward_hook(
        lambda _, args, out: seen.append(out[0].requires_grad)
    )
    predict(estimator, get_task("depth"), corpus[:1], SamplingConfig())
    handle.remove()
    assert seen == [False]


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_padding_replicates_the_edge_and_keeps_the_image(height: int, width: int) -> None:
    image = torch.arange(3 * height * width, dtype=torch.float32).view(1, 3, height, width)
    padded = pad_to_multiple(image, 8)
    assert padded.shape[-2] % 8 == 0 and padded.shape[-1] % 8 == 0
    assert padded.shape[-2] - height < 8 and padded.shape[-1] - width < 8
    assert torch.equal(padded[..., :height, :width], image)
    assert torch.equal(
        padded[..., height:, :width], image[..., -1:, :].expand_as(padded[..., height:, :width])
    )
    assert torch.equal(
        padded[..., :, width:], padded[..., :, width - 1 : width].expand_as(padded[..., :, width:])
    )
