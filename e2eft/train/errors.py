"""How a training run can fail, for loop, worker and driver alike."""

from e2eft.errors import E2eftError


class TrainingError(E2eftError):
    """Training cannot go on, and would fail in the same way if it were tried again."""


class StalledError(E2eftError):
    """A rank that has waited too long.

    for_peers: what it waited for takes all ranks, so that another one may be the cause.
    """

    def __init__(self, message: str, *, for_peers: bool = False) -> None:
        super().__init__(message)
        self.for_peers = for_peers


class CrashedError(E2eftError):
    """What nobody foresaw on a rank; `trace` is its traceback as text."""

    def __init__(self, message: str, *, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace
