"""A hub on a free port, GGUF and safetensors files written by hand, Ollama's folder: worlds for the library's tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from portico.library import HubSettings, Library, Progress

TINY = Path(__file__).parent.parent / "models" / "portico-tiny"
COMMIT = "c0ffee" * 6 + "c0de"


# ---- files ---------------------------------------------------------------------------------------


def gguf(
    values: Mapping[str, Any] | None = None,
    *,
    architecture: str = "llama",
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    tail: bytes | None = None,
) -> bytes:
    """A GGUF file with F32 tensors of zeros. Texts, ints, floats, bools and lists of texts become metadata."""
    shapes = {"blk.0.weight": (4, 4)} if tensors is None else tensors
    metadata = {
        "general.architecture": architecture,
        f"{architecture}.context_length": 2048,
        f"{architecture}.embedding_length": 64,
        f"{architecture}.block_count": min(1, len(shapes)),
        **(values or {}),
    }
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    for name, shape in shapes.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        size = 4
        for one in shape:
            size *= one
        offset += -(-size // 32) * 32
    head += b"\0" * (-len(head) % 32)
    return head + (b"\0" * offset if tail is None else tail)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return (
                struct.pack("<Iq", 11, value)
                if value < 0 or value >= 1 << 32
                else struct.pack("<II", 4, value)
            )
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case list():
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    raise TypeError(value)


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """A safetensors file of zeros: name -> (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * offset


# ---- a hub ---------------------------------------------------------------------------------------


@dataclass
class Repository:
    files: dict[str, bytes]
    license: str = "apache-2.0"
    gated: bool = False
    sha: str = COMMIT
    small: int = 4096
    """Files below this are in git itself; larger ones are LFS, with a sha256."""


@dataclass
class Asked:
    method: str
    path: str
    range: str | None
    token: str | None
    agent: str | None


@dataclass
class FakeHub:
    """Answers like the hub: repositories with their files, ranges, gates. What goes wrong is set per file."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    """The connection ends after so many bytes of the file, once."""
    stall: dict[str, int] = field(default_factory=dict)
    """After so many bytes nothing more comes until `go` is set."""
    answers: dict[str, list[int]] = field(default_factory=dict)
    """Statuses that requests for the file get before they get the file."""
    busy: int = 0
    """The status that every request for what a repository has is answered with, if it is set."""
    forged: dict[str, bytes] = field(default_factory=dict)
    """What is sent instead of the file."""
    ranges: bool = True
    cdn: bool = False
    """Large files are redirected to another host, as the real hub does."""
    go: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    """The other side closed a connection while its answer was stalled."""

    def gets(self, name: str) -> list[Asked]:
        """The requests for the bytes of one file, those that were redirected not counted."""
        wanted = "/cdn/" if self.cdn else "/resolve/"
        return [
            one
            for one in self.asked
            if one.method == "GET" and one.path.endswith(name) and wanted in one.path
        ]


@contextmanager
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()

    class Handler(_Handler):
        hub = fake

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield fake
    finally:
        fake.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.hub.asked.append(
            Asked(
                self.command,
                self.path,
                self.headers.get("Range"),
                authorization,
                self.headers.get("User-Agent"),
            )
        )
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main", path):
            self._describe(found[1])
        elif found := re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/(main|[0-9a-f]{40})/(.+)", path):
            self._send_file(found[1], found[3], redirected=path.startswith("/cdn/"))
        else:
            self._refuse(404, "", "Not found")

    do_HEAD = do_GET

    def _describe(self, name: str) -> None:
        if self.hub.busy:
            return self._refuse(self.hub.busy, "", "try later")
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        siblings = []
        for path, content in repository.files.items():
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_hash(content)}
            if len(content) >= repository.small:
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        body = {
            "id": name,
            "sha": repository.sha,
            "gated": "manual" if repository.gated else False,
            "siblings": siblings,
            "cardData": {"license": repository.license},
            "tags": [],
        }
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send_file(self, name: str, path: str, *, redirected: bool) -> None:
        repository = self.hub.repositories[name]
        if repository.gated and not redirected and self.headers.get("Authorization") != "Bearer hf_good":
            return self._refuse(403, "GatedRepo", f"Access to model {name} is restricted.")
        if path not in repository.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        if self.hub.answers.get(path):
            return self._refuse(self.hub.answers[path].pop(0), "", "try later")
        content = self.hub.forged.get(path, repository.files[path])
        if self.hub.cdn and not redirected and len(content) >= repository.small:
            other = self.hub.url.replace("127.0.0.1", "localhost")
            return self._answer(302, b"", {"Location": f"{other}/cdn{self.path}"})
        large = len(content) >= repository.small
        tag = hashlib.sha256(content).hexdigest() if large else git_hash(content)
        self._send_range(path, content, {"ETag": f'"{tag}"', "X-Repo-Commit": repository.sha})

    def _send_range(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.hub.ranges:
            start, status = int(asked[1]), 206
            if start >= len(content):
                return self._refuse(416, "", "Range not satisfiable")
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if path in self.hub.cut:
            self.wfile.write(body[: self.hub.cut.pop(path)])
            self.close_connection = True
        elif path in self.hub.stall:
            self._stall(body, self.hub.stall[path] - start)
        else:
            self.wfile.write(body)

    def _stall(self, body: bytes, count: int) -> None:
        self.wfile.write(body[:count])
        self.hub.stalled.set()
        self.connection.settimeout(0.02)
        while not self.hub.go.is_set():
            try:
                if self.connection.recv(1) == b"":
                    self.hub.gone.set()
                    self.close_connection = True
                    return
            except TimeoutError:
                continue
            except OSError:
                self.hub.gone.set()
                return
        self.connection.settimeout(None)
        self.wfile.write(body[count:])

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._answer(status, b"", {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


# ---- a library -----------------------------------------------------------------------------------


def library(folder: Path, fake: FakeHub | None = None, *, token: str | None = None, **more: Any) -> Library:
    """A library with everything in `folder`, on the hub `fake`; `ollama` is one folder of Ollama's or several."""
    from portico.library.hub import Hub

    url = fake.url if fake else "http://127.0.0.1:9"
    settings = HubSettings(endpoint=url, token=token, cache=str(folder / "hub"))
    free = more.pop("free", None)
    if isinstance(store := more.get("ollama"), Path):
        more["ollama"] = (store,)
    made = Hub(settings, delay=0.01, free=free) if free else Hub(settings, delay=0.01)
    return Library(folder / "home", hub=made, **more)


def pulled(library: Library, name: str) -> list[Progress]:
    """The whole pull, and all it said."""

    async def pull() -> list[Progress]:
        return [progress async for progress in library.pull(name)]

    return asyncio.run(pull())


def left(library: Library, name: str, when: Callable[[], bool], *, how: str = "close") -> None:
    """Begins the pull and leaves it, by closing it or by cancelling its task, as soon as `when` is true."""

    async def watch() -> None:
        async with aclosing(library.pull(name)) as progress:
            async for _ in progress:
                pass

    async def pull() -> None:
        if how == "cancel":
            task = asyncio.create_task(watch())
            await asyncio.to_thread(until, when)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            return
        async with aclosing(library.pull(name)) as progress:
            await anext(progress)
            await asyncio.to_thread(until, when)

    asyncio.run(pull())


def until(true: Callable[[], bool], *, seconds: float = 20.0) -> None:
    """Waits for it, without a loop of events."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


# ---- Ollama's folder -----------------------------------------------------------------------------


def ollama_model(folder: Path, name: str, layers: Mapping[str, bytes | str | Any]) -> Path:
    """Puts a model into Ollama's folder: `name` is host/namespace/model/tag, `layers` kind -> content."""
    described = []
    for kind, content in layers.items():
        raw = (
            content
            if isinstance(content, bytes)
            else (content if isinstance(content, str) else json.dumps(content)).encode()
        )
        digest = hashlib.sha256(raw).hexdigest()
        blob = folder / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(raw)
        media = f"application/vnd.ollama.image.{kind.partition('#')[0]}"
        described.append({"mediaType": media, "digest": f"sha256:{digest}", "size": len(raw)})
    manifest = {
        "schemaVersion": 2,
        "config": {"digest": "sha256:" + "0" * 64, "size": 10},
        "layers": described,
    }
    path = folder / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path
