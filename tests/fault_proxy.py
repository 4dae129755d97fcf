"""An HTTP proxy before a real server that loses, delays, cuts and refuses as it is told to.

Requests pass unchanged, the signed Host header too. What it is told holds from the next request or
connection on, and can be changed at any time by any thread.
"""

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal, Self
from urllib.parse import urlsplit

from tests.services import free_ports

State = Literal["up", "refusing", "hanging", "cutting", "busy"]
"""up: passes everything. refusing: nothing listens. hanging: takes requests and never answers them,
not afterwards either. cutting: ends every body early. busy: answers 503 SlowDown."""


@dataclass
class Request:
    """One request as it came. `operation` is S3's name for it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def operation(self) -> str:
        query = self.target.partition("?")[2]
        if self.method == "GET":
            return "ListObjectsV2" if "list-type=2" in query else "GetObject"
        if self.method == "HEAD":
            return "HeadObject"
        if self.method == "DELETE":
            return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
        if self.method == "PUT":
            return "UploadPart" if "uploadId" in query else "PutObject"
        if "uploadId" in query:
            return "CompleteMultipartUpload"
        return "DeleteObjects" if "delete" in query else "CreateMultipartUpload"

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    stands_still: bool = False


Fault = Callable[[Answer], Answer | None]
"""What becomes of an answer; None: it never arrives, and the connection is closed."""


@dataclass
class _Planned:
    operation: str
    fault: Fault
    forwards: bool
    left: int


@dataclass
class FaultProxy:
    """Listens on a loopback port before `target` (http://host:port); with `tls`, for https.

    gate: what it answers itself, None to let a request pass; may be set at any time.
    """

    target: str
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.port,) = free_ports(1)
        scheme, name = ("https", "localhost") if self.tls else ("http", "127.0.0.1")
        self.endpoint = f"{scheme}://{name}:{self.port}"
        self.cut_after = 0
        self.gate: Callable[[Request], Answer | None] = lambda request: None
        self._state: State = "up"
        self._planned: list[_Planned] = []
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self._timers: list[threading.Timer] = []
        self._over = threading.Event()
        self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        self._over.set()
        self._close()

    def be(self, state: State, seconds: float | None = None) -> None:
        """Changes state, for good or for a while, after which everything passes again."""
        with self._lock:
            before, self._state = self._state, state
            if state == "refusing":
                self._close()
            elif before == "refusing":
                self._listen()
        if seconds is not None:
            timer = threading.Timer(seconds, self.be, ["up"])
            timer.daemon = True
            self._timers.append(timer)
            timer.start()

    def once(self, operation: str, fault: Fault, *, forwards: bool = True, times: int = 1) -> None:
        """Of the next `times` requests of an operation ("" for any), what becomes of the answer.

        Args:
            forwards: whether the server sees the request; else the fault gets an empty 200.
        """
        with self._lock:
            self._planned.append(_Planned(operation, fault, forwards, times))

    def count(self, operation: str = "") -> int:
        """How many requests have come, of one operation or of all."""
        return sum(operation in ("", request.operation) for request in list(self.requests))

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _close(self) -> None:
        with self._lock:
            for each in [self._listener, *self._connections]:
                with suppress(OSError):  # shutdown wakes the threads that wait on it
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._connections.clear()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, http.client.HTTPException, ValueError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with self._lock:
                if self._state == "refusing":
                    return
                self._connections.add(connection)
            with connection, connection.makefile("rwb") as stream:
                while self._pass(stream):
                    pass

    def _pass(self, stream: io.BufferedRWPair) -> bool:
        """One request and its answer; whether the connection goes on."""
        request = _read_request(stream)
        if request is None:
            return False
        with self._lock:
            self.requests.append(request)
            state, cut_after = self._state, self.cut_after
            planned = next(
                (p for p in self._planned if p.operation in ("", request.operation)), None
            )
            if planned is not None:
                planned.left -= 1
                self._planned = [p for p in self._planned if p.left]
        if state == "hanging":
            self._over.wait()
            return False
        if state == "busy":
            answer: Answer | None = refused(503, "SlowDown")(EMPTY)
        elif shut := self.gate(request):
            answer = shut
        elif planned is not None:
            answer = planned.fault(self._forward(request) if planned.forwards else EMPTY)
        else:
            answer = self._forward(request)
        if answer is None:
            return False
        if state == "cutting":
            answer.body = answer.body[:cut_after]
        return self._send(stream, request, answer)

    def _forward(self, request: Request) -> Answer:
        host = urlsplit(self.target)
        server = http.client.HTTPConnection(str(host.hostname), host.port, timeout=60)
        try:
            server.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers:
                server.putheader(name, value)
            server.endheaders(request.body or None)
            answer = server.getresponse()
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() != "transfer-encoding"]
            body = answer.read()
            if request.method != "HEAD" and not answer.getheader("content-length"):
                headers.append(("Content-Length", str(len(body))))
            return Answer(answer.status, answer.reason, headers, body)
        finally:
            server.close()

    def _send(self, stream: BinaryIO | io.BufferedRWPair, request: Request, answer: Answer) -> bool:
        head = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        head += [f"{name}: {value}" for name, value in answer.headers]
        stream.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        body = b"" if request.method == "HEAD" else answer.body
        stream.write(body)
        stream.flush()
        if answer.stands_still:
            self._over.wait()
        promised = next((v for n, v in answer.headers if n.lower() == "content-length"), "0")
        return request.method == "HEAD" or len(body) == int(promised)


EMPTY = Answer(200, "OK", [("Content-Length", "0")], b"")


def lost(_: Answer) -> None:
    """The answer never arrives."""
    return None


def cut(size: int) -> Fault:
    """The body ends after `size` bytes, though its header promises all of it."""
    return lambda answer: Answer(answer.status, answer.reason, answer.headers, answer.body[:size])


def stalled(size: int) -> Fault:
    """After `size` bytes of the body its sender stands still; nothing is closed."""
    return lambda answer: replace(answer, body=answer.body[:size], stands_still=True)


def refused(status: int, code: str) -> Fault:
    """S3's own words for a refusal."""
    body = f"<Error><Code>{code}</Code><Message>{code}, it says</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    return lambda _: Answer(status, "Refused", headers, body)


def said(body: bytes, kind: str = "application/xml") -> Fault:
    """Another body with status 200."""
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    return lambda _: Answer(200, "OK", headers, body)


def _read_request(stream: io.BufferedRWPair) -> Request | None:
    line = stream.readline().split()
    if len(line) != 3:
        return None
    headers = http.client.parse_headers(stream).items()  # type: ignore[arg-type]
    request = Request(line[0].decode(), line[1].decode(), [], b"")
    # The proxy asks for the body itself, so the server need not.
    request.headers = [(name, value) for name, value in headers if name.lower() != "expect"]
    if len(request.headers) < len(headers):
        stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        stream.flush()
    if request.header("transfer-encoding").lower() == "chunked":
        request.body = _read_chunks(stream)
        request.headers = [
            *((n, v) for n, v in request.headers if n.lower() != "transfer-encoding"),
            ("Content-Length", str(len(request.body))),
        ]
    else:
        request.body = stream.read(int(request.header("content-length") or 0))
    return request


def _read_chunks(stream: io.BufferedRWPair) -> bytes:
    chunks: list[bytes] = []
    while size := int(stream.readline().split(b";")[0], 16):
        chunks.append(stream.read(size))
        stream.readline()
    while stream.readline().strip():
        pass
    return b"".join(chunks)
