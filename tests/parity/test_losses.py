"""The losses against arXiv 2409.11355's formulas, restated here as literally as float64 allows.

The restatement shares no code with the library: it loops over images and valid pixels, fits by the
determinant of the normal equations, and takes the arccos. Values and gradients must agree.
"""

import math

import pytest
import torch
from torch import Tensor

from e2eft.tasks.depth.task import AffineInvariantDepth
from e2eft.tasks.normals.task import AngularNormals
from tests.unit.tasks.batches import batch_of

HEIGHT, WIDTH = 12, 16
FAR_M = 80.0

GOLDEN_DEPTH_LOSS_M = 2.7044296407069583
GOLDEN_ANGLE_RAD = 0.6582945064639741
"""Of the cases below, from numpy alone (`linalg.lstsq`, `quantile`, `arccos`)."""


def wave(shape: tuple[int, ...], frequency: float) -> Tensor:
    """Numbers in [-1, 1] without order, the same on every machine and in every release."""
    index = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    return torch.sin(frequency * index * index + index)


def depth_case() -> tuple[Tensor, Tensor]:
    """Model images and depth in metres: a room with holes, a street with sky, and a blank image."""
    relief = wave((3, HEIGHT, WIDTH), 0.37)
    depth_m = torch.stack([3 + 2 * relief[0], 30 + 28 * relief[1], relief[2]])
    image = 0.4 * wave((3, 3, HEIGHT, WIDTH), 0.11) + 0.5 * relief[:, None]
    depth_m[0, 3:5, 2:9] = torch.nan
    depth_m[1, :4] = torch.inf
    depth_m[1, 5, :6] = 130.0
    depth_m[2] = torch.nan
    return image, depth_m


def normals_case() -> tuple[Tensor, Tensor]:
    """Model images (right, up, viewer) and normals (right, down, forward) with holes."""
    normals_cam = wave((2, 3, HEIGHT, WIDTH), 0.53)
    normals_cam[:, 2] = -normals_cam[:, 2].abs() - 0.2
    normals_cam = normals_cam / normals_cam.square().sum(1, keepdim=True).sqrt()
    image = normals_cam * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    image = image + 0.7 * wave((2, 3, HEIGHT, WIDTH), 0.29)
    normals_cam[0, :, 2:4, 3:9] = torch.nan
    return image, normals_cam


def paper_depth_loss(image: Tensor, depth_m: Tensor) -> Tensor:
    """L_D: s, t = argmin sum (s d + t - g)^2 for each image; mean |s d + t - g| over all pixels."""
    residuals = []
    for image_channels, image_depth_m in zip(image, depth_m, strict=True):
        mask = (image_depth_m > 1e-5) & (image_depth_m < FAR_M)
        if not mask.any():
            continue
        d = image_channels.mean(0).clamp(-1, 1)[mask]
        g = image_depth_m[mask]
        g = g.clamp(torch.quantile(g, 0.02), torch.quantile(g, 0.98))
        a00, a01, a11 = (d * d).sum(), d.sum(), len(d)
        b0, b1 = (d * g).sum(), g.sum()
        determinant = a00 * a11 - a01 * a01
        s = (a11 * b0 - a01 * b1) / determinant
        t = (a00 * b1 - a01 * b0) / determinant
        residuals.append((s * d + t - g).abs())
    return torch.cat(residuals).mean()


def paper_normals_loss(image: Tensor, normals_cam: Tensor, eps: float = 1e-5) -> Tensor:
    """L_N: mean arccos of n . n*, with n = x / (|x| + eps)."""
    angles = []
    for x, target in zip(image, normals_cam, strict=True):
        mask = target.isfinite().all(0)
        right_up_viewer = target[:, mask] * torch.tensor([1.0, -1.0, -1.0])[:, None]
        n = x[:, mask] / (x[:, mask].square().sum(0).sqrt() + eps)
        angles.append(torch.acos((n * right_up_viewer).sum(0).clamp(-1, 1)))
    return torch.cat(angles).mean()


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.double() - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_depth_loss_and_gradient_are_the_papers(dtype: torch.dtype, tolerance: float) -> None:
    image, depth_m = depth_case()
    image.requires_grad_()
    paper = paper_depth_loss(image, depth_m)
    (paper_gradient,) = torch.autograd.grad(paper, image)

    task = AffineInvariantDepth(max_depth_m=FAR_M)
    ours_image = image.detach().to(dtype).requires_grad_()
    ours = task.loss(task.decode(ours_image), batch_of(depth_m.to(dtype)))
    (gradient,) = torch.autograd.grad(ours, ours_image)
    assert ours.item() == pytest.approx(paper.item(), rel=tolerance)
    assert relative_difference(gradient, paper_gradient) < tolerance


@pytest.mark.parametrize(
    ("dtype", "eps", "loss_tolerance", "gradient_tolerance"),
    [
        (torch.float64, 0.0, 1e-12, 1e-12),
        (torch.float32, 0.0, 1e-6, 1e-5),
        # The paper's epsilon shortens its vectors, which arccos takes for an angle: 4.5e-3 rad at
        # 0, 1e-5 cot(angle) elsewhere; the angles here are 0.037 and more.
        (torch.float64, 1e-5, 5e-5, 2e-4),
    ],
)
def test_normals_loss_and_gradient_are_the_papers(
    dtype: torch.dtype, eps: float, loss_tolerance: float, gradient_tolerance: float
) -> None:
    image, normals_cam = normals_case()
    image.requires_grad_()
    paper = paper_normals_loss(image, normals_cam, eps)
    (paper_gradient,) = torch.autograd.grad(paper, image)

    task = AngularNormals()
    ours_image = image.detach().to(dtype).requires_grad_()
    ours = task.loss(task.decode(ours_image), batch_of(normals_cam=normals_cam.to(dtype)))
    (gradient,) = torch.autograd.grad(ours, ours_image)
    assert ours.item() == pytest.approx(paper.item(), rel=loss_tolerance)
    assert relative_difference(gradient, paper_gradient) < gradient_tolerance


def test_the_restatements_are_right() -> None:
    assert paper_depth_loss(*depth_case()).item() == pytest.approx(GOLDEN_DEPTH_LOSS_M, rel=1e-9)
    assert paper_normals_loss(*normals_case()).item() == pytest.approx(GOLDEN_ANGLE_RAD, rel=1e-9)


def test_arccos_of_the_papers_vectors_cannot_reach_zero_and_ours_can() -> None:
    _, normals_cam = normals_case()
    image = normals_cam * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    paper = paper_normals_loss(image, normals_cam)
    assert paper.item() == pytest.approx(math.acos(1 - 1e-5), rel=1e-4)
    task = AngularNormals()
    assert task.loss(task.decode(image), batch_of(normals_cam=normals_cam)).item() < 1e-12
