"""The noise schedule and the one-step formulas, against tables and against diffusers.

The tables are computed from the schedule's definition in float64 below, and compared with figures
that were taken from diffusers 0.30.2, whose DDIM code the paper's models were made with.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2eft.config import Spacing
from e2eft.model.backbones.sd_unet import NoiseSchedule, Timesteps
from e2eft.model.blank import stable_diffusion_2_scheduler

SPACINGS: tuple[Spacing, ...] = ("leading", "trailing", "linspace")
PARAMETRIZATIONS = ("v_prediction", "epsilon", "sample")
T = 1000
A_999, S_999 = 0.068265, 0.997667


def schedule_of(**changes: Any) -> NoiseSchedule:
    return NoiseSchedule.of(stable_diffusion_2_scheduler(**changes))


def noise(count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, 3, 5, generator=torch.Generator().manual_seed(seed))


def at(t: int, count: int = 2) -> Tensor:
    """Sigmas of a timestep."""
    return Timesteps(T).sigma(steps_at(t, count))


def steps_at(t: int, count: int = 2) -> Tensor:
    return torch.full((count,), t)


def test_the_schedule_is_stable_diffusion_2s() -> None:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2
    expected = np.cumprod(1 - betas)
    schedule = schedule_of()
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), expected, rtol=2e-5)
    assert schedule.length == T and schedule.alphas_cumprod.dtype == torch.float32
    for t, alpha_bar in {0: 0.999150, 1: 0.998296, 999: 0.0046601}.items():
        assert float(schedule.alphas_cumprod[t]) == pytest.approx(alpha_bar, abs=5e-7)
    a, s = schedule.coefficients(Timesteps(T).sigma(torch.tensor([0, 1, 999])))
    assert a.shape == s.shape == (3, 1, 1, 1)
    assert a.flatten().tolist() == pytest.approx([0.999575, 0.999148, A_999], abs=1e-6)
    assert s.flatten().tolist() == pytest.approx([0.029155, 0.041279, S_999], abs=1e-6)


GRIDS: dict[Spacing, dict[int, list[int]]] = {
    "leading": {
        1: [1],
        2: [501, 1],
        3: [667, 334, 1],
        4: [751, 501, 251, 1],
        10: [901, 801, 701, 601, 501, 401, 301, 201, 101, 1],
        50: [981 - 20 * step for step in range(50)],
    },
    "trailing": {
        1: [999],
        2: [999, 499],
        3: [999, 666, 332],
        4: [999, 749, 499, 249],
        10: [999, 899, 799, 699, 599, 499, 399, 299, 199, 99],
        50: [999 - 20 * step for step in range(50)],
    },
    "linspace": {
        1: [0],
        2: [999, 0],
        3: [999, 500, 0],
        4: [999, 666, 333, 0],
        10: [999, 888, 777, 666, 555, 444, 333, 222, 111, 0],
    },
}


@pytest.mark.parametrize("spacing", SPACINGS)
def test_grids(spacing: Spacing) -> None:
    schedule = schedule_of()
    made = {steps: schedule.timesteps(steps, spacing) for steps in GRIDS[spacing]}
    assert made == GRIDS[spacing]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("offset", [0, 1])
def test_every_grid_is_diffusers_own(spacing: Spacing, offset: int) -> None:
    theirs = stable_diffusion_2_scheduler(timestep_spacing=spacing, steps_offset=offset)
    # The scheduler's own spacing plays no part in ours.
    ours = schedule_of(steps_offset=offset)
    overlong: list[int] = []
    for steps in [*range(1, 120), *range(120, T, 37), 999]:
        theirs.set_timesteps(steps)
        wanted = theirs.timesteps.tolist()
        if len(wanted) > steps:
            # Rounding in their arange: one step too many, at a timestep that does not exist.
            assert wanted.pop() == -1
            overlong.append(steps)
        assert ours.timesteps(steps, spacing) == wanted, steps
    assert bool(overlong) == (spacing == "trailing")


@pytest.mark.parametrize("spacing", SPACINGS)
@given(steps=st.integers(1, T - 1))
def test_grids_descend_within_the_schedule(spacing: Spacing, steps: int) -> None:
    grid = schedule_of().timesteps(steps, spacing)
    assert len(grid) == steps and grid[-1] >= 0 and grid[0] <= T - 1
    assert all(t > t_next for t, t_next in pairwise(grid))
    if spacing == "trailing":
        assert grid[0] == T - 1


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"--steps {steps} must lie in 1 \.\. 1000"):
        schedule_of().timesteps(steps, "trailing")


def test_a_grid_that_leaves_the_schedule_is_refused() -> None:
    # diffusers goes on, and its step() fails with an index error.
    with pytest.raises(ValueError, match="--steps 1000 with --spacing leading starts at t = 1000"):
        schedule_of().timesteps(1000, "leading")


def test_one_step_from_zeros_is_minus_0_9977_v() -> None:
    v = noise()
    clean = schedule_of().clean_latent(v, torch.zeros_like(v), at(999))
    torch.testing.assert_close(clean, -S_999 * v, rtol=1e-6, atol=1e-6)


def test_one_step_formulas() -> None:
    x_t, output = noise(seed=1), noise(seed=2)
    expected = {
        "v_prediction": A_999 * x_t - S_999 * output,
        "epsilon": (x_t - S_999 * output) / A_999,
        "sample": output,
    }
    for parametrization, wanted in expected.items():
        schedule = schedule_of(prediction_type=parametrization)
        made = schedule.clean_latent(output, x_t, at(999))
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=2e-4)
    amplified = schedule_of(prediction_type="epsilon").clean_latent(output, 0 * x_t, at(999))
    torch.testing.assert_close(amplified, -14.61 * output, rtol=1e-3, atol=1e-4)


def test_the_leading_flaw_returns_the_noise() -> None:
    """Told t = 1 about pure noise, DDIM hands the noise back: 0.9991 of it."""
    schedule = schedule_of()
    (t,) = schedule.timesteps(1, "leading")
    x_t, v = noise(seed=1), noise(seed=2)
    clean = schedule.clean_latent(v, x_t, at(t))
    torch.testing.assert_close(clean, 0.999148 * x_t - 0.041279 * v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@given(t=st.integers(0, T - 1))
def test_a_perfect_denoiser_recovers_the_clean_latent(parametrization: str, t: int) -> None:
    schedule = schedule_of(prediction_type=parametrization)
    clean, eps = noise(seed=1), noise(seed=2)
    x_t = schedule.add_noise(clean, eps, at(t))
    perfect = schedule.training_target(clean, eps, at(t))
    torch.testing.assert_close(
        schedule.clean_latent(perfect, x_t, at(t)), clean, rtol=1e-4, atol=1e-4
    )


@given(t=st.integers(1, T - 1), data=st.data())
def test_a_ddim_step_on_the_true_path_stays_on_it(t: int, data: st.DataObject) -> None:
    t_next = data.draw(st.integers(0, t - 1))
    schedule = schedule_of()
    clean, eps = noise(seed=1), noise(seed=2)
    x_t = schedule.add_noise(clean, eps, at(t))
    moved = schedule.ddim_step(clean, x_t, at(t), at(t_next))
    wanted = schedule.add_noise(clean, eps, at(t_next))
    torch.testing.assert_close(moved, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_the_forward_process_is_diffusers_own(t: int) -> None:
    theirs, ours = stable_diffusion_2_scheduler(), schedule_of()
    clean, eps = noise(seed=1), noise(seed=2)
    torch.testing.assert_close(
        ours.add_noise(clean, eps, at(t)),
        theirs.add_noise(clean, eps, steps_at(t)),  # type: ignore[arg-type]
    )
    torch.testing.assert_close(
        ours.training_target(clean, eps, at(t)),
        theirs.get_velocity(clean, eps, steps_at(t)),  # type: ignore[arg-type]
    )


def stepped(scheduler: DDIMScheduler, output: Tensor, t: int, x_t: Tensor) -> Any:
    return scheduler.step(output, t, x_t)  # type: ignore[arg-type]


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize(
    ("spacing", "steps"),
    [("trailing", 2), ("trailing", 4), ("trailing", 10), ("trailing", 50), ("leading", 10)],
)
def test_inner_steps_are_diffusers_prev_sample(
    parametrization: str, spacing: Spacing, steps: int
) -> None:
    theirs = stable_diffusion_2_scheduler(prediction_type=parametrization, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = schedule_of(prediction_type=parametrization)
    x_t = noise(seed=1)
    grid = ours.timesteps(steps, spacing)
    for number, t in enumerate(grid):
        output = noise(seed=number + 2)
        step = stepped(theirs, output, t, x_t)
        clean = ours.clean_latent(output, x_t, at(t))
        torch.testing.assert_close(clean, step.pred_original_sample, rtol=1e-5, atol=1e-5)
        if number + 1 < steps:
            x_t = ours.ddim_step(clean, x_t, at(t), at(grid[number + 1]))
            # At t = 999 of epsilon, predicted noise is the difference of numbers 15 times as large.
            torch.testing.assert_close(x_t, step.prev_sample, rtol=1e-4, atol=1e-4)
            x_t = x_t / x_t.std()


def test_where_the_grid_is_uneven_ours_goes_on_to_the_next_timestep_of_it() -> None:
    """diffusers steps back by 1000 // 3 = 333 always: to 333, where the grid goes on at 332."""
    theirs, ours = stable_diffusion_2_scheduler(timestep_spacing="trailing"), schedule_of()
    theirs.set_timesteps(3)
    x_t, v = noise(seed=1), noise(seed=2)
    prev_sample = stepped(theirs, v, 666, x_t).prev_sample
    clean = ours.clean_latent(v, x_t, at(666))
    torch.testing.assert_close(ours.ddim_step(clean, x_t, at(666), at(333)), prev_sample)
    onward = ours.ddim_step(clean, x_t, at(666), at(ours.timesteps(3, "trailing")[2]))
    assert 1e-4 < float((onward - prev_sample).abs().max()) < 1e-2


def test_the_last_step_differs_from_prev_sample_by_a_trace_of_noise() -> None:
    """With `set_alpha_to_one` false the coefficient on v is -0.99525 instead of -0.99767."""
    v = noise()
    zeros = torch.zeros_like(v)
    clean = schedule_of().clean_latent(v, zeros, at(999))
    for set_alpha_to_one, coefficient in ((False, -0.99525), (True, -S_999)):
        theirs = stable_diffusion_2_scheduler(
            timestep_spacing="trailing", set_alpha_to_one=set_alpha_to_one
        )
        theirs.set_timesteps(1)
        step = stepped(theirs, v, 999, zeros)
        torch.testing.assert_close(step.pred_original_sample, clean)
        torch.testing.assert_close(step.prev_sample, coefficient * v, rtol=1e-5, atol=1e-5)
    a_0, s_0 = schedule_of().coefficients(at(0, 1))
    # The predicted noise at t = 999 from zeros is a v.
    torch.testing.assert_close(a_0 * clean + s_0 * A_999 * v, -0.99525 * v, rtol=1e-5, atol=1e-5)


def test_zero_terminal_snr_only_where_the_configuration_says_so() -> None:
    assert float(schedule_of().alphas_cumprod[-1]) > 0.004
    rescaled = schedule_of(rescale_betas_zero_snr=True)
    assert float(rescaled.alphas_cumprod[-1]) == 0
    assert float(rescaled.alphas_cumprod[-2]) == pytest.approx(1.97e-7, rel=0.02)
    assert float(rescaled.alphas_cumprod[0]) == pytest.approx(0.999150, abs=5e-7)
    v, x_t = noise(seed=1), noise(seed=2)
    torch.testing.assert_close(rescaled.clean_latent(v, x_t, at(999)), -v)
    theirs = stable_diffusion_2_scheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    theirs.set_timesteps(4)
    torch.testing.assert_close(
        rescaled.ddim_step(-v, x_t, at(999), at(749)), stepped(theirs, v, 999, x_t).prev_sample
    )


def test_epsilon_is_refused_on_a_zero_snr_schedule() -> None:
    with pytest.raises(ValueError, match="epsilon prediction is undefined"):
        schedule_of(rescale_betas_zero_snr=True, prediction_type="epsilon")


def test_an_unknown_parametrization_is_refused() -> None:
    scheduler = stable_diffusion_2_scheduler()
    scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(ValueError, match="'flow_prediction' is not supported; expected v_pred"):
        NoiseSchedule.of(scheduler)


def test_the_formulas_are_fp32_whatever_comes_out_of_the_denoiser() -> None:
    v, x_t = noise(seed=1), noise(seed=2)
    for parametrization in PARAMETRIZATIONS:
        schedule = schedule_of(prediction_type=parametrization)
        made = schedule.clean_latent(v.bfloat16(), x_t.bfloat16(), at(999))
        assert made.dtype == torch.float32
        exact = schedule.clean_latent(v.bfloat16().float(), x_t.bfloat16().float(), at(999))
        torch.testing.assert_close(made, exact)
