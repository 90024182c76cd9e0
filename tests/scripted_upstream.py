"""A server that speaks OpenAI's HTTP and behaves as badly as a test asks.

It runs in a thread of its own, so that a test may use any client, blocking or not. What it is told to answer is
a list of steps: bytes to send as one packet, a pause in seconds, or one of HOLD, RESET and CLOSE. Everything it
receives is kept, and so is the moment at which a caller went away in the middle of an answer: a test about
hang-ups sees the forbidden thing itself and need not infer it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httptools

from scripted_answers import usual_answer

HOLD: Literal["hold"] = "hold"  # nothing more, until the caller leaves or the test calls release()
RESET: Literal["reset"] = "reset"  # the connection is torn down with a TCP reset
CLOSE: Literal["close"] = "close"  # the connection is closed as if the answer were whole

Step = bytes | float | Literal["hold", "reset", "close"]
Answer = Sequence[Step]
Script = Answer | Callable[["Received"], Answer]
WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Received:
    """One request as it arrived. `at` is time.monotonic()."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Hangup:
    """The caller closed the connection before its answer was whole."""

    path: str
    at: float
    body: bytes


@dataclass
class ScriptedUpstream:
    """Owns its thread and its loop. Scripts are taken in order, one a request; without one the route answers
    as a well-behaved server with the model `mock-model` would."""

    model: str = "mock-model"
    max_model_len: int = 8192
    tls: ssl.SSLContext | None = None
    prefix: str = ""
    """What its paths begin with; scripts and what was received do not have it."""
    manners: Callable[[ScriptedUpstream, Received], Answer] = usual_answer
    """What it answers where a test has scripted nothing."""
    received: list[Received] = field(default_factory=list)
    hangups: list[Hangup] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._scripts: dict[str, deque[Script]] = defaultdict(deque)
        self._changed = threading.Condition()
        self._released = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="scripted upstream", daemon=True)
        self._ready = threading.Event()
        self.open: set[asyncio.Transport] = set()

    def __enter__(self) -> ScriptedUpstream:
        self._thread.start()
        assert self._ready.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.prefix}/v1"

    # ---- what a test says

    def script(self, path: str, *answers: Script) -> None:
        """The next requests to `path` get these answers, one each."""
        with self._changed:
            self._scripts[path].extend(answers)

    def release(self) -> None:
        """Every answer that holds goes on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def reset(self) -> None:
        """Forgets scripts and what was seen; a test begins with it."""
        with self._changed:
            self._scripts.clear()
            self.received.clear()
            self.hangups.clear()
        self._loop.call_soon_threadsafe(self._released.clear)

    # ---- what a test asks

    def requests(self, path: str) -> list[Received]:
        with self._changed:
            return [request for request in self.received if request.path == path]

    def last(self, path: str) -> Any:
        """The JSON body of the latest request to `path`."""
        return self.requests(path)[-1].json

    def wait_for_request(self, path: str, count: int = 1) -> None:
        self._wait(lambda: sum(r.path == path for r in self.received) >= count, f"{count} requests to {path}")

    def wait_for_hangup(self, count: int = 1) -> Hangup:
        self._wait(lambda: len(self.hangups) >= count, f"{count} hang-ups")
        return self.hangups[count - 1]

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_SECONDS), f"the upstream waited in vain for {what}"

    # ---- inside its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self.tls)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for transport in self.open:
            transport.abort()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        # Those that are aborted are closed in the next turns; a handshake that has failed still has to hear of it.
        self._loop.run_until_complete(asyncio.sleep(0.05 if self.tls else 0.001))
        self._loop.close()

    def answer_to(self, request: Received) -> Answer:
        with self._changed:
            self.received.append(request)
            self._changed.notify_all()
            scripts = self._scripts.get(request.path)
            script = scripts.popleft() if scripts else self.manners(self, request)
        return script(request) if callable(script) else script

    def hung_up(self, hangup: Hangup) -> None:
        with self._changed:
            self.hangups.append(hangup)
            self._changed.notify_all()

    async def held(self) -> None:
        await self._released.wait()


class _Connection(asyncio.Protocol):
    """One caller. Reads requests, plays the steps of their answers, notices when the caller leaves."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._playing: asyncio.Task[None] | None = None
        self._current: Received | None = None
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.open.add(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def eof_received(self) -> bool:
        return False  # a half-closed connection is a closed one

    def connection_lost(self, error: Exception | None) -> None:
        self._upstream.open.discard(self._transport)
        if self._playing is not None and not self._playing.done():
            self._playing.cancel()
            assert self._current is not None
            self._upstream.hung_up(Hangup(self._current.path, time.monotonic(), self._current.body))

    # httptools calls the on_ methods

    def on_message_begin(self) -> None:
        self._path, self._body = b"", b""
        self._headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        path, prefix = self._path.decode().partition("?")[0], self._upstream.prefix
        path = path.removeprefix(prefix) if path.startswith(prefix) else f"/not-below{path}"
        self._current = Received(method, path, self._headers, self._body, time.monotonic())
        self._playing = asyncio.ensure_future(self._play(self._upstream.answer_to(self._current)))

    async def _play(self, steps: Answer) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self._transport.write(step)
                await asyncio.sleep(0)
            elif isinstance(step, (int, float)):
                await asyncio.sleep(step)
            elif step == HOLD:
                await self._upstream.held()
            else:
                self._playing = None  # what follows is our doing, not the caller's
                if step == RESET:
                    sock = self._transport.get_extra_info("socket")
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._transport.abort()
                else:
                    self._transport.close()
                return


def split(steps: Iterable[Step], size: int, pause: float = 0.0) -> Answer:
    """The same answer in packets of `size` bytes."""
    out: list[Step] = []
    for step in steps:
        if not isinstance(step, bytes):
            out.append(step)
            continue
        for start in range(0, len(step), size):
            out.append(step[start : start + size])
            if pause:
                out.append(pause)
    return tuple(out)
