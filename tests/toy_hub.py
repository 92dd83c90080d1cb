"""A hub for models on loopback, as much of it as huggingface_hub asks, which fails in the ways that the real one does.

    hub = Hub({"config.json": b"…", "model.safetensors": b"…"})      serves them as org/toy
    hub.fault = "gated"                                              until it is set to "" again

Large files (safetensors) have a SHA-256 as LFS files do, small ones are Git blobs.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "org/toy"
_REFUSALS = {  # status, what else the hub says
    "bad_token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/toy is restricted."}),
    "gated_unknown": (401, {"X-Error-Code": "GatedRepo"}),
    "missing": (404, {"X-Error-Code": "RepoNotFound"}),
    "private": (401, {"X-Error-Code": "RepoNotFound"}),
    "forbidden": (403, {}),
    "too_many": (429, {"Retry-After": "1"}),
    "error_500": (500, {}),
    "error_503": (503, {}),
}


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Hub:
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.fault, self.commit = files, "", "c" * 40
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.sent: dict[str, int] = {}  # file: bytes of it that were sent
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked_for(self, name: str) -> bool:
        return any(path.endswith(f"/{name}") for _, path, _ in self.requests)

    def listing(self) -> list[dict[str, Any]]:
        """As in the answer of /tree; `lie` lies about sizes."""
        found = []
        for name, data in sorted(self.files.items()):
            size = 10**15 if self.fault == "huge" and name.endswith(".safetensors") else len(data)
            blob = {"type": "file", "path": name, "size": size, "oid": _git_oid(data)}
            if _is_large(name):
                blob["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
            found.append(blob)
        return found


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub, fault = self.hub, self.hub.fault
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if fault == "hangs":
            time.sleep(4)
            self.close_connection = True
            return
        if fault in _REFUSALS:
            status, said = _REFUSALS[fault]
            self._answer(status, b"", said)
        elif fault == "login_page":
            self._answer(200, b"<html><body>Welcome to the hotel. Log in.</body></html>", {"Content-Type": "text/html"})
        elif path.startswith(f"/api/models/{NAME}"):
            self._api(path.removeprefix(f"/api/models/{NAME}"))
        elif path.startswith(f"/{NAME}/resolve/"):
            self._file(path.split("/resolve/", 1)[1].partition("/")[2])
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

    def _api(self, what: str) -> None:
        listing = self.hub.listing()
        if what.startswith("/tree/"):
            self._json(listing)
        elif (
            what == ""
            or what == f"/revision/{self.hub.commit}"
            or (what == "/revision/main" and self.hub.fault != "empty")
        ):
            siblings = [
                {
                    "rfilename": each["path"],
                    "size": each["size"],
                    "blobId": each["oid"],
                    **({"lfs": {"sha256": each["lfs"]["oid"], "size": each["size"], "pointerSize": 134}}
                       if "lfs" in each else {}),
                }
                for each in listing
            ]  # fmt: skip
            self._json({"id": NAME, "modelId": NAME, "sha": self.hub.commit, "siblings": siblings, "private": False})
        else:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def _file(self, name: str) -> None:
        hub, fault = self.hub, self.hub.fault
        data = hub.files.get(name)
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        says = {
            "X-Repo-Commit": hub.commit,
            "X-Linked-Size": str(len(data)),
            "ETag": f'"{_git_oid(data)}"',
            "Accept-Ranges": "bytes",
        }
        if _is_large(name):
            says["X-Linked-ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        if self.command == "HEAD":
            self._answer(200, data, says)
            return
        if fault == "damaged_weights" and _is_large(name):
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "damaged_config" and name == "config.json":
            data = data.replace(b'"', b"'")
        if fault == "short" and _is_large(name):
            data = data[: len(data) // 2]
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if first:
            says["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        # The connection breaks: in the middle of what is asked for, or at one place, again and again.
        rest = data[first:]
        end = len(rest)
        if _is_large(name) and fault == "breaks_once" and not first:
            end = len(rest) // 2
        if _is_large(name) and fault == "breaks":
            end = max(0, len(data) // 2 - first)
        self.send_response(206 if first else 200)
        for key, value in (says | {"Content-Length": str(len(rest))}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(rest[:end])
        hub.sent[name] = hub.sent.get(name, 0) + end
        self.close_connection = end < len(rest)

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
