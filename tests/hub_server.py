"""A hub on this machine: models as folders, one commit each, by the requests that huggingface_hub
makes."""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


@dataclass
class Hub:
    """url: its endpoint; asked: paths of the files that were fetched from it."""

    url: str
    asked: list[str] = field(default_factory=list)


def commit_of(folder: Path) -> str:
    """The only one that a model's folder has."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


@contextmanager
def hub_of(models: dict[str, Path]) -> Iterator[Hub]:
    """Serves folders by their hub ids."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/[^/?]+.*", self.path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.*)", self.path)
            found = api or file
            folder = models.get(found[1]) if found else None
            if folder is None:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif api:
                self._send(200, json.dumps(_listed(folder, api[1], api[2])).encode(), {})
            elif file and (folder / file[2]).is_file():
                content = (folder / file[2]).read_bytes()
                if self.command == "GET":
                    hub.asked.append(file[2])
                etag = hashlib.sha1(content).hexdigest()
                self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(folder)})
            else:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _listed(folder: Path, name: str, what: str) -> Any:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path.relative_to(folder).as_posix() for path in files]
    if what == "revision":
        siblings = [{"rfilename": path} for path in paths]
        return {"id": name, "sha": commit_of(folder), "siblings": siblings}
    sizes = [path.stat().st_size for path in files]
    return [
        {"type": "file", "path": path, "size": size, "oid": "0" * 40}
        for path, size in zip(paths, sizes, strict=True)
    ]


@contextmanager
def unanswered(*, refusing: bool) -> Iterator[str]:
    """The endpoint of a hub that refuses connections, or accepts them and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        if refusing:
            server.close()
        yield f"http://127.0.0.1:{port}"


def use_hub(url: str, cache: Path, patch: pytest.MonkeyPatch, timeout_s: int = 1) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_ETAG_TIMEOUT would say to a new process."""
    patch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", timeout_s)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
