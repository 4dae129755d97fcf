"""What is counted between two log lines, and of late."""

import time
from collections import deque

import torch
from torch import Tensor

from e2eft.train.errors import TrainingError

SKIP_WINDOW_STEPS, MAX_SKIPPED_STEPS = 100, 20
"""More than so many of the last steps skipped, and the run ends."""


class WindowStatistics:
    """Losses and timings since the last log line, kept on the device until then."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.keys: list[list[str]] = []
        self.started = time.perf_counter()
        self.steps = 0
        self.waited_s = 0.0

    def totals(self) -> Tensor:
        """Sum and number of this rank's losses, in float64: additive over ranks."""
        losses = torch.stack(self.losses).double()
        return torch.stack([losses.sum(), losses.new_tensor(len(losses))])

    def bad_micro_batch(self) -> str | None:
        """Of the first loss that is not finite: its value, and its micro-batch's keys."""
        losses = torch.stack(self.losses).cpu()
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if not bad:
            return None
        return f"{losses[bad[0]]:g} on the micro-batch of frames {', '.join(self.keys[bad[0]])}"


class SkippedSteps:
    """Optimizer steps that were skipped of late: now and then one may be, however long a run is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._steps: deque[int] = deque()

    def count(self, step: int, total: int) -> None:
        """Takes note of the run's `total` of skipped steps after `step`.

        Raises:
            TrainingError: if more than MAX_SKIPPED_STEPS of the last SKIP_WINDOW_STEPS were.
        """
        self._steps.extend([step] * (total - self._total))
        self._total = total
        while self._steps and self._steps[0] <= step - SKIP_WINDOW_STEPS:
            self._steps.popleft()
        if len(self._steps) > MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"{len(self._steps)} of the last {min(step, SKIP_WINDOW_STEPS)} optimizer steps "
                "were skipped because of non-finite gradients; lower --lr or use --precision fp32"
            )
