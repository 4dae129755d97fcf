import pickle

import pytest
import torch

from e2eft.tasks import AffineInvariantDepth, AngularNormals, GeometryTask, get_task
from tests.unit.tasks.batches import batch_of


def test_names_find_their_tasks() -> None:
    assert get_task("depth", max_depth_m=65.0) == AffineInvariantDepth(max_depth_m=65.0)
    assert get_task("normals") == AngularNormals()


def test_an_unknown_name_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(ValueError, match="'albedo': expected one of 'depth', 'normals'"):
        get_task("albedo")


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_every_task_keeps_the_protocol(name: str) -> None:
    task = get_task(name)
    assert isinstance(task, GeometryTask)
    assert task.name == name
    assert task.target
    assert pickle.loads(pickle.dumps(task)) == task
    batch = batch_of(depth_m=torch.rand(2, 4, 5) + 1, normals_cam=torch.rand(2, 3, 4, 5) - 0.5)
    prediction = task.decode(torch.rand(2, task.target_channels, 4, 5))
    baseline = task.constant_prediction(batch)
    assert baseline.shape == prediction.shape
    for values in task.errors(prediction, batch).values():
        assert values.shape == (2,)
        assert not values.requires_grad
    for column in task.label(prediction).values():
        assert column.shape[:3] == (2, 4, 5)
        assert column.dtype == "float32"


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_half_precision_images_are_decoded_in_float32(name: str) -> None:
    image = torch.rand(1, 3, 2, 2)
    decoded = get_task(name).decode(image.bfloat16())
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, get_task(name).decode(image), rtol=0.02, atol=0.01)
