import pickle

import numpy as np
import pytest
import torch

from e2eft.tasks import TASKS, get_task, label_codec, label_codecs
from e2eft.tasks.base import GeometryTask
from e2eft.tasks.depth.task import AffineInvariantDepth
from e2eft.tasks.labels import LabelCodec
from e2eft.tasks.normals.task import AngularNormals
from tests.unit.tasks.batches import batch_of


def test_names_find_their_tasks() -> None:
    assert get_task("depth", max_depth_m=65.0) == AffineInvariantDepth(max_depth_m=65.0)
    assert get_task("normals") == AngularNormals()


def test_an_unknown_name_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(ValueError, match="'flow': expected one of 'depth', 'normals'"):
        get_task("flow")
    with pytest.raises(ValueError, match="'flow': expected one of 'depth', 'normals'"):
        label_codec("flow")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_the_protocol(name: str) -> None:
    task = get_task(name)
    assert isinstance(task, GeometryTask)
    assert task.name == name
    assert task.target
    assert pickle.loads(pickle.dumps(task)) == task
    batch = batch_of(depth_m=torch.rand(2, 4, 5) + 1, normals_cam=torch.rand(2, 3, 4, 5) - 0.5)
    prediction = task.decode(torch.rand(2, 3, 4, 5))
    baseline = task.constant_prediction(batch)
    assert baseline.shape == prediction.shape
    for values in task.errors(prediction, batch).values():
        assert values.shape == (2,)
        assert not values.requires_grad
    for column in task.label(prediction).values():
        assert column.shape[:3] == (2, 4, 5)
        assert column.dtype == "float32"


@pytest.mark.parametrize("name", TASKS)
def test_half_precision_images_are_decoded_in_float32(name: str) -> None:
    image = torch.rand(1, 3, 2, 2)
    decoded = get_task(name).decode(image.bfloat16())
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, get_task(name).decode(image), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_labels_are_what_its_model_half_makes(name: str) -> None:
    codec, task = label_codec(name), get_task(name)
    assert isinstance(codec, LabelCodec) and codec.name == name
    (made,) = task.label(task.decode(torch.rand(1, 3, 12, 16))).values()
    assert codec.is_label(made[0]) and not codec.is_label(made)
    label = codec.resize(made[0], (24, 32))
    assert label.shape[:2] == (24, 32) and label.dtype == np.float32
    back = codec.decode(codec.encode(label, {"key": "a"}))
    assert codec.is_label(back) and back.shape == label.shape
    np.testing.assert_allclose(back, label, atol=1 / 127)
    figure = codec.figure(label)
    assert figure.label == name and figure.picture.shape == (24, 32, 3)
    assert all(isinstance(fact, float) for fact in codec.facts(label).values())
    assert {"kind", "encoding", "convention"} <= codec.conventions.keys()


@pytest.mark.parametrize("name", TASKS)
def test_labels_of_other_programs_become_labels(name: str) -> None:
    codec, task = label_codec(name), get_task(name)
    (made,) = task.label(task.decode(torch.rand(1, 3, 12, 16))).values()
    read = codec.from_others(made[0].astype(np.float64), "a.npy", "opencv")
    assert codec.is_label(read)
    np.testing.assert_allclose(read, made[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"a\.npy has shape \(3,\), expected"):
        codec.from_others(np.zeros(3), "a.npy", "opencv")
    with pytest.raises(ValueError, match=r"a\.png is uint8 \(4,\), expected"):
        codec.from_others_png(np.zeros(4, np.uint8), "a.png")


def test_no_two_tasks_write_the_same_file() -> None:
    codecs = label_codecs()
    paths = {path for codec in codecs for path in (codec.path("a"), codec.npy_path("a"))}
    assert len(paths) == 2 * len(codecs)
