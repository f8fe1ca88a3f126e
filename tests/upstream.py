"""The hub, GitHub and Google Cloud Storage on loopback, with their paths; and servers that fail in their ways."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Asked:
    """One request."""

    path: str
    headers: Mapping[str, str]


@dataclass
class Upstream:
    """What the server has, and what it was asked.

    Attributes:
        files: Decoded path -> content.
        listings: Decoded path -> JSON, or a function of the query that makes it, with headers.
        faults: Decoded path -> what goes wrong, first to last: a status, `("cut", n)` and
            `("hang", n)` after n bytes, `("to", url)`, `("refused", status, headers)`.
        ranges: Whether `Range` is honoured.
        etags: Decoded path -> ETag, where it is not made of the content.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    listings: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    asked: list[Asked] = field(default_factory=list)

    def bodies(self) -> list[Asked]:
        """Requests for files."""
        return [one for one in self.asked if one.path in self.files]

    def hub(self, repo: str, commit: str, files: Mapping[str, bytes], *, branch: str = "", page: int = 100) -> None:
        """A dataset of the hub, its listing in pages."""
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "a-folder"}]
        for path, content in files.items():
            self.files[f"/datasets/{repo}/resolve/{commit}/{path}"] = content
            entry: dict[str, Any] = {"type": "file", "oid": git_id(content), "size": len(content), "path": path}
            if not path.endswith((".md", ".txt")):
                entry |= {"oid": "1" * 40, "lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 131}}
            entries.append(entry)

        def listing(query: Mapping[str, list[str]]) -> tuple[Any, dict[str, str]]:
            assert query["recursive"] == ["true"]
            start = int(query.get("cursor", ["0"])[0])
            following = f"{self.url}/elsewhere?recursive=true&cursor={start + page}"
            more = start + page < len(entries)
            return entries[start : start + page], {"Link": f'<{following}>; rel="next"'} if more else {}

        self.listings[f"/api/datasets/{repo}/tree/{commit}"] = listing
        if branch:
            self.listings[f"/api/datasets/{repo}/revision/{branch}"] = {"sha": commit}

    def github(self, repo: str, commit: str, files: Mapping[str, bytes]) -> None:
        """A repository of GitHub."""
        tree: list[dict[str, Any]] = [
            {"path": "results", "mode": "040000", "type": "tree", "sha": "2" * 40},
            {"path": "link.csv", "mode": "120000", "type": "blob", "sha": "3" * 40, "size": 3},
        ]
        for path, content in files.items():
            self.files[f"/{repo}/{commit}/{path}"] = content
            tree.append({"path": path, "mode": "100644", "type": "blob", "sha": git_id(content), "size": len(content)})
        self.listings[f"/repos/{repo}/git/trees/{commit}"] = {"sha": commit, "tree": tree, "truncated": False}

    def gcs(self, bucket: str, objects: Mapping[str, bytes], *, page: int = 3) -> None:
        """A public bucket, its listing in pages."""
        for name, content in objects.items():
            self.files[f"/{bucket}/{name}"] = content

        def listing(query: Mapping[str, list[str]]) -> tuple[Any, dict[str, str]]:
            names = sorted(name for name in objects if name.startswith(query["prefix"][0]))
            start = int(query.get("pageToken", ["0"])[0])
            items = [
                {
                    "name": name,
                    "size": str(len(objects[name])),
                    "md5Hash": base64.b64encode(hashlib.md5(objects[name]).digest()).decode(),
                }
                for name in names[start : start + page]
            ]
            more = {"nextPageToken": str(start + page)} if start + page < len(names) else {}
            return ({"items": items} if items else {}) | more, {}

        self.listings[f"/storage/v1/b/{bucket}/o"] = listing


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str], *, cut: int | None = None, hang: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            if hang:
                self.server.ending.wait(30)  # type: ignore[attr-defined]
            self.close_connection = True

    def do_GET(self) -> None:
        upstream: Upstream = self.server.upstream  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        upstream.asked.append(Asked(path, dict(self.headers)))
        cut, hang = None, False
        if faults := upstream.faults.get(path):
            fault = faults.pop(0)
            if isinstance(fault, int):
                return self._send(fault, b"", {"Retry-After": "0"} if fault == 429 else {})
            if fault[0] == "refused":
                return self._send(fault[1], b"", fault[2])
            if fault[0] == "to":
                return self._send(302, b"", {"Location": fault[1]})
            cut, hang = fault[1], fault[0] == "hang"
        if path in upstream.listings:
            found = upstream.listings[path]
            answer, headers = found(parse_qs(parts.query)) if callable(found) else (found, {})
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            return self._send(200, body, headers)
        if path not in upstream.files:
            return self._send(404, b"", {})
        body = upstream.files[path]
        etag = upstream.etags.get(path, f'"{hashlib.md5(body).hexdigest()}"')
        wanted = self.headers.get("Range") if upstream.ranges else None
        if wanted and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}", "ETag": etag}
            return self._send(206, body[start:], span, cut=cut)
        return self._send(200, body, {"ETag": etag}, cut=cut, hang=hang)


@contextmanager
def serve(upstream: Upstream) -> Iterator[Upstream]:
    """Serve it on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.ending = threading.Event()  # type: ignore[attr-defined]
    server.upstream = upstream  # type: ignore[attr-defined]
    upstream.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.ending.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()


__all__ = ["Asked", "Upstream", "git_id", "serve", "sha256"]
