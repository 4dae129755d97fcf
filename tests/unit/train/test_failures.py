"""What Ray Train is told of a failure, and what a person is."""

import pickle
from typing import Any

import pytest
from ray.train import ControllerError, WorkerGroupError

from e2eft.errors import MissingError, UnreachableError, as_json
from e2eft.train.errors import CrashedError, StalledError, TrainingError
from e2eft.train.failures import EndOrRestart, HandedBackError, as_error, handing_back


def handed_back(error: BaseException, rank: int = 0) -> HandedBackError:
    """As the driver gets it."""
    with pytest.raises(HandedBackError) as caught, handing_back(rank):
        raise error
    assert caught.value.__suppress_context__
    return pickle.loads(pickle.dumps(caught.value))


BAD_LOSS = TrainingError("the loss is nan")
GONE = MissingError("s3://b/part is not there")
AWAY = UnreachableError("s3://b does not answer")
STUCK = StalledError("rank 1 has waited 600 s for frame 7")
WAITING = StalledError("rank 0 has waited 900 s for step 3", for_peers=True)


@pytest.mark.parametrize("error", [BAD_LOSS, GONE])
def test_what_would_come_again_ends_the_run_at_once(error: Exception) -> None:
    """Also if other ranks failed too."""
    failures: dict[int, Exception] = {0: handed_back(OSError("reset")), 1: handed_back(error)}
    with pytest.raises(ControllerError) as ended:
        EndOrRestart(3).after_exception(None, failures)
    told = as_error(pickle.loads(pickle.dumps(ended.value)))
    assert type(told) is type(error) and str(told) == str(error)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ({0: handed_back(AWAY)}, "s3://b does not answer"),
        ({0: handed_back(WAITING), 1: handed_back(STUCK)}, "rank 1 has waited 600 s for frame 7"),
        ({2: handed_back(KeyError("x"), 2)}, "rank 2: KeyError: 'x'"),
        ({1: RuntimeError("the actor died\nat length")}, "rank 1: the actor died"),
    ],
    ids=["away", "stuck", "unforeseen", "killed"],
)
def test_what_may_be_gone_is_tried_again_and_said(
    failures: dict[int, Exception], told: str, capsys: Any
) -> None:
    callback = EndOrRestart(max_failures=1)
    callback.after_exception(None, failures)
    said = capsys.readouterr().out
    assert said.rstrip().endswith(
        f"training failed: {told}; restart 1 of 1 from the last checkpoint"
    )
    callback.after_exception(None, failures)
    assert "Traceback" not in capsys.readouterr().out, "once is enough"
    error = as_error(WorkerGroupError("a long story", failures))
    assert isinstance(error, TrainingError) and "\n" not in str(error)
    assert (
        str(error) == f"training failed: {told}; the same command goes on from the last checkpoint"
    )


def test_the_traceback_of_what_nobody_foresaw_is_kept(capsys: Any) -> None:
    error = handed_back(KeyError("x"))
    EndOrRestart(3).after_exception(None, {0: error})
    said = capsys.readouterr().out
    assert (
        said.startswith("Traceback") and "test_failures.py" in said and said.count("KeyError") == 2
    )
    assert CrashedError("rank 0: KeyError: 'x'").args == tuple(error.data["args"])


def test_a_controller_that_failed_by_itself_is_one_line() -> None:
    error = as_error(ControllerError(RuntimeError("no room\nfor 3 workers")))
    assert str(error) == "training failed: no room"
    assert as_json(error)["kind"].endswith("TrainingError")
