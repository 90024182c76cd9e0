"""A caller who asks and never reads, before an engine that never stops: what the whole server holds of it."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from live_server import LiveServer, serve

fcntl = pytest.importorskip("fcntl", reason="only Linux tells how much of a socket is taken")

MODEL = "endless"
CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "delta": {"content": "word " * 10}, "finish_reason": None}],
}
SSE = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"
MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "max_model_len": 4096}]}).encode()
_TIOCOUTQ = 0x5411
"""Linux: bytes of a socket that its other side has not taken (tcp(7), SIOCOUTQ)."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells how much of a socket is taken"
)


class Endless:
    """An engine that streams for ever. `taken` are the bytes of its newest stream that its client took."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._sent = 0
        self._stream: socket.socket | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    @property
    def taken(self) -> int:
        if self._stream is None:
            return 0
        waiting = fcntl.ioctl(self._stream.fileno(), _TIOCOUTQ, struct.pack("i", 0))
        return self._sent - int(struct.unpack("i", waiting)[0])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            head = connection.recv(65536)
            if head.startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(MODELS), MODELS))
                connection.recv(1)
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._sent, self._stream = 0, connection
            try:
                while True:
                    self._sent += connection.send(b"%x\r\n%b\r\n" % (len(SSE), SSE))
            except OSError:
                self._stream = None


@contextmanager
def asking(port: int, path: str, **more: object) -> Iterator[socket.socket]:
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True, **more}
    ).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", port))
        sock.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
            % (path.encode(), len(body), body)
        )
        yield sock


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_who_never_reads_holds_at_most_256_kb(tmp_path: Path, path: str) -> None:
    """Of the engine's bytes, with what the kernel keeps for either side."""
    with ExitStack() as opened:
        engine = opened.enter_context(closing(Endless()))
        server = opened.enter_context(serve(tmp_path, MODEL, "--engine", engine.url))
        sock = opened.enter_context(asking(server.port, path))
        assert sock.recv(64).startswith(b"HTTP/1.1 200")
        before = -1
        while engine.taken != before:  # until it stands still
            before = engine.taken
            time.sleep(0.2)
        print(f"{path}: {engine.taken} bytes")
        assert 0 < engine.taken <= 256 * 1024
        # It goes on where it was as soon as the caller reads.
        while engine.taken < before + 512 * 1024:
            assert sock.recv(65536)


def test_who_never_reads_many_answers_leaves_turns_for_others(server: LiveServer) -> None:
    body = {"prompt": "Once", "n": 16, "max_tokens": 2000, "ignore_eos": True}
    with asking(server.port, "/v1/completions", model=server.model, **body) as sock:
        assert sock.recv(64).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)  # until everything between them is full
        other = {"model": server.model, "prompt": "Hi", "stream": False, "options": {"num_predict": 2}}
        assert server.ask("POST", "/api/generate", other)["done"]
