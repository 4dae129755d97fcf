"""Whether a Ray cluster answers at an address, asked for seconds where Ray would wait minutes."""

import re
import socket
from concurrent.futures import Future
from contextlib import closing
from importlib import import_module
from threading import Thread
from typing import Any

from e2eft.errors import E2eftError

HEAD_ANSWERS_S = 8.0
SPARE_S = 1.0
"""Of HEAD_ANSWERS_S: left for saying what is wrong."""
CORRECT = "correct it, or unset it to work on this machine alone"
GCS_PORT, CLIENT_PORT = "6379", "10001"
"""The head's own defaults."""
LAST_PORT = 65535
_PLACE = re.compile(r"(\[[^\]\s]+\]|[^\s:/@?#\[\]]+):([0-9]+)")


class ClusterError(E2eftError):
    """A cluster that cannot be worked on."""


def require_head(address: str) -> None:
    """Raises ClusterError if no cluster answers at a RAY_ADDRESS: Ray itself would find that out in
    minutes, or never.

    Args:
        address: host:port, with or without ray://, or auto. Of one that a module named before ://
            knows, nothing is said.
    """
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        raise ClusterError(
            f"RAY_ADDRESS {address} is where jobs are submitted (ray job submit --address), a "
            f"program joins HOST:PORT of the head, whose port is usually {GCS_PORT}; {CORRECT}"
        )
    if scheme not in ("", "ray") and _is_client(scheme):
        return
    if address == "auto":
        rest = _running_here()
    if scheme == "ray" and rest and ":" not in rest:
        rest = f"{rest}:{CLIENT_PORT}"
    place = _PLACE.fullmatch(rest)
    if place is None or scheme not in ("", "ray"):
        raise ClusterError(
            f"RAY_ADDRESS {address} is no address of a cluster: write HOST:PORT of the head, whose "
            f"port is usually {GCS_PORT}, ray://HOST:PORT of its client server, or auto; {CORRECT}"
        )
    host, port = place.groups()
    if int(port) > LAST_PORT:  # Some resolvers take it for another one.
        raise ClusterError(
            f"RAY_ADDRESS {address}: no Ray cluster answers there (ports end at {LAST_PORT}); "
            f"{CORRECT}"
        )
    asked: Future[None] = Future()

    def ask() -> None:
        try:
            asked.set_result(_ask_head(host.strip("[]"), int(port), is_client=scheme == "ray"))
        except BaseException as error:
            asked.set_exception(error)

    # In a thread: neither the look-up of a name nor a socket's several addresses keep to a time.
    Thread(target=ask, name="e2eft-ray-head", daemon=True).start()
    try:
        asked.result(HEAD_ANSWERS_S)
    except ClusterError as error:
        raise ClusterError(f"RAY_ADDRESS {address}: {error}; {CORRECT}") from None
    except (OSError, OverflowError, TimeoutError) as error:
        said = str(error) or f"nothing within {HEAD_ANSWERS_S:.0f} s"
        raise ClusterError(
            f"RAY_ADDRESS {address}: no Ray cluster answers there ({said}); start or {CORRECT}"
        ) from None
    except Exception as error:  # of Ray's own making, such as a token that is nowhere
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ClusterError(f"RAY_ADDRESS {address}: {said[0]}; {CORRECT}") from None


def _is_client(scheme: str) -> bool:
    """Whether Ray would find a client of another kind in a module of this name."""
    try:
        return hasattr(import_module(scheme), "ClientBuilder")
    except Exception:  # whatever a module of that name does
        return False


def _running_here() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto") or ""
    except ConnectionError:
        raise ClusterError(
            "RAY_ADDRESS auto: no Ray cluster runs on this machine; start one (ray start --head), "
            f"or {CORRECT}"
        ) from None


def _ask_head(host: str, port: int, *, is_client: bool) -> None:
    """Returns once Ray has answered.

    Raises:
        OSError: if nobody listens. ClusterError: if it is somebody else, or Ray refuses.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    with closing(socket.create_connection((host, port), HEAD_ANSWERS_S)) as connection:
        name = connection.getpeername()[0]
    target = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    channel: Any = init_grpc_channel(target, [("grpc.enable_http_proxy", 0)])
    with closing(channel):
        try:
            grpc.channel_ready_future(channel).result(HEAD_ANSWERS_S - SPARE_S)
            (_ask_client_server if is_client else _ask_gcs)(channel)
        except grpc.FutureTimeoutError:
            raise ClusterError("what listens there is no Ray cluster") from None
        except grpc.RpcError as error:
            raise ClusterError(_said_by_head(error)) from None


def _ask_gcs(channel: Any) -> None:
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    request = vars(gcs_service_pb2)["CheckAliveRequest"]()
    gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).CheckAlive(request, timeout=HEAD_ANSWERS_S)


def _ask_client_server(channel: Any) -> None:
    """Whatever it says of a client that it does not know, it is there."""
    import grpc
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    request = vars(ray_client_pb2)["ClusterInfoRequest"]()
    elsewhere = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED)
    try:
        ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(request, timeout=HEAD_ANSWERS_S)
    except grpc.RpcError as error:
        answer: Any = error
        if answer.code() in elsewhere:
            raise


def _said_by_head(error: Any) -> str:
    import grpc

    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"another part of Ray listens there; HOST:PORT is of the head (usually {GCS_PORT}), "
            f"ray://HOST:PORT of its client server (usually {CLIENT_PORT})"
        )
    if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return f"it asks for a token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN ({error.details()})"
    return f"Ray's head does not answer ({error.details()})"
