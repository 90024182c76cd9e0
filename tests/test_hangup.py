"""A caller who leaves, at any moment: the engine stops working for nobody, and it is seen at the engine.

To reach: the upstream is closed within 50 ms; the engine is idle within 0.2 s while tokens flow, and within
1.5 s during a prefill or in its queue; the load counters are at zero by then. A busy machine may be slower by
the factor below; what is to be told apart lasts far longer.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from asking import HELLO, PATHS, Dialect
from live_server import LiveServer, wait_until
from scripted_answers import CHAT, chat_result, chat_stream, either, reply
from scripted_upstream import HOLD, ScriptedUpstream

SLOW_MACHINE = 5
CLOSED_SECONDS = 0.05 * SLOW_MACHINE
IDLE_SECONDS = 0.2 * SLOW_MACHINE
IDLE_FROM_PREFILL_SECONDS = 1.5 * SLOW_MACHINE

both = pytest.mark.parametrize("dialect", ["ollama", "openai"])
streamed_or_not = pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
abruptly_or_not = pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])


class Caller:
    """A caller over a bare socket, who can leave at any byte."""

    def __init__(self, server: LiveServer, path: str, body: Any) -> None:
        self._payload = json.dumps(body).encode()
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(self._payload)}\r\n\r\n"
        )
        self.socket = socket.create_connection(("127.0.0.1", server.port), 20)
        self.got = b""

    def send(self, *, half: bool = False) -> None:
        request = self._head.encode() + self._payload
        self.socket.sendall(request[: -len(self._payload) // 2] if half else request)

    def receive(self, until: bytes) -> None:
        while until not in self.got:
            piece = self.socket.recv(65536)
            assert piece, f"the server closed the connection: {self.got!r}"
            self.got += piece

    def leave(self, *, reset: bool = False) -> float:
        """Closes the connection; time.monotonic() of that."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        now = time.monotonic()
        self.socket.close()
        return now


def chat_body(dialect: Dialect, *, streamed: bool) -> dict[str, Any]:
    return {"model": "mock-model", "messages": HELLO, "stream": streamed}


@contextmanager
def calling(server: LiveServer, path: str, body: Any) -> Iterator[Caller]:
    caller = Caller(server, path, body)
    try:
        yield caller
    finally:
        caller.socket.close()


def assert_unloaded(server: LiveServer) -> None:
    """Every counter of load is at zero as soon as the upstream is closed, which is before the engine is idle:
    what balances requests by them would be wrong meanwhile, or for ever."""

    def zero() -> bool:
        health = server.health()
        engines = [(each["in_flight"], each["waiting"]) for each in health["engines"]]
        return health["requests_in_flight"] == 0 and set(engines) <= {(0, 0)}

    wait_until(zero, seconds=CLOSED_SECONDS, what="the load counters of /health at zero")
    assert server.metric("portico_queue_depth") == 0
    assert server.metric("portico_replica_in_flight") == 0
    assert server.metric("portico_requests_in_flight") <= 1  # this question itself


# ---- seen at an upstream that keeps the time


@both
@streamed_or_not
@abruptly_or_not
def test_before_the_first_byte(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool, reset: bool
) -> None:
    upstream.script(CHAT, (HOLD,))
    with calling(gateway, PATHS[dialect], chat_body(dialect, streamed=streamed)) as caller:
        caller.send()
        upstream.wait_for_request(CHAT)
        assert not upstream.hangups
        left = caller.leave(reset=reset)
    assert upstream.wait_for_hangup().at - left < CLOSED_SECONDS
    assert_unloaded(gateway)


@both
@abruptly_or_not
def test_in_the_middle_of_a_stream(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, reset: bool
) -> None:
    """The engine is silent just then: nothing that is written would tell the server that nobody listens."""
    upstream.script(CHAT, (*chat_stream("one", "two", "three")[:4], HOLD))
    with calling(gateway, PATHS[dialect], chat_body(dialect, streamed=True)) as caller:
        caller.send()
        caller.receive(b"two")
        assert not upstream.hangups
        left = caller.leave(reset=reset)
    assert upstream.wait_for_hangup().at - left < CLOSED_SECONDS
    assert_unloaded(gateway)


@both
@abruptly_or_not
def test_while_chunks_flow(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, reset: bool
) -> None:
    steps: list[Any] = list(chat_stream(*(f"word{n} " for n in range(2000))))
    upstream.script(CHAT, tuple(piece for step in steps for piece in (step, 0.002)))
    with calling(gateway, PATHS[dialect], chat_body(dialect, streamed=True)) as caller:
        caller.send()
        caller.receive(b"word20 ")
        left = caller.leave(reset=reset)
    assert upstream.wait_for_hangup().at - left < CLOSED_SECONDS
    assert_unloaded(gateway)


@both
def test_in_the_middle_of_an_answer_that_is_not_streamed(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    (whole,) = reply(200, chat_result("one two three"))
    assert isinstance(whole, bytes)
    streaming = (*chat_stream("one", "two", "three")[:3], HOLD)
    upstream.script(CHAT, either(streaming, (whole[:-30], HOLD)))
    with calling(gateway, PATHS[dialect], chat_body(dialect, streamed=False)) as caller:
        caller.send()
        upstream.wait_for_request(CHAT)
        time.sleep(0.1)  # the first half is on its way
        left = caller.leave()
    assert upstream.wait_for_hangup().at - left < CLOSED_SECONDS
    assert_unloaded(gateway)


@both
def test_in_the_middle_of_the_request(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    with calling(gateway, PATHS[dialect], chat_body(dialect, streamed=True)) as caller:
        caller.send(half=True)
        wait_until(lambda: gateway.health()["open_connections"] >= 2, seconds=5, what="the connection")
        caller.leave()
    assert_unloaded(gateway)
    assert not upstream.requests(CHAT)


@both
def test_one_of_many_leaves_and_the_others_stay(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    upstream.script(CHAT, *[(*chat_stream("one")[:3], HOLD, *chat_stream(" end")[3:]) for _ in range(6)])
    with ExitStack() as open_connections:
        callers = [
            open_connections.enter_context(
                calling(gateway, PATHS[dialect], chat_body(dialect, streamed=True))
            )
            for _ in range(6)
        ]
        for caller in callers:
            caller.send()
            caller.receive(b"one")
        for caller in callers[::2]:
            caller.leave()
        upstream.wait_for_hangup(3)
        upstream.release()
        for caller in callers[1::2]:
            caller.receive(b"\r\n0\r\n\r\n")
            assert b'"error"' not in caller.got
    assert len(upstream.hangups) == 3
    assert_unloaded(gateway)


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions", "/api/embed", "/v1/embeddings"])
def test_on_the_other_routes(gateway: LiveServer, upstream: ScriptedUpstream, path: str) -> None:
    body = {"model": "mock-model", "prompt": "Hello", "raw": True, "input": "Hello", "stream": False}
    where = "/v1/embeddings" if path.endswith(("embed", "embeddings")) else "/v1/completions"
    upstream.script(where, (HOLD,))
    with calling(gateway, path, body) as caller:
        caller.send()
        upstream.wait_for_request(where)
        left = caller.leave()
    assert upstream.wait_for_hangup().at - left < CLOSED_SECONDS
    assert_unloaded(gateway)


# ---- seen at the embedded engine, by the processor time it uses


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see what the engine does")


class Engine:
    """The embedded engine's process, watched from outside."""

    def __init__(self, server: LiveServer) -> None:
        (pid,) = {each["pid"] for each in server.health()["engines"] if each["pid"]}
        self._pid = pid

    def _processes(self, pid: int) -> Iterator[int]:
        yield pid
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                yield from self._processes(int(child))

    def ticks(self) -> int:
        """User and system time of the process and its children so far, in 10 ms."""
        total = 0
        for pid in self._processes(self._pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    def wait_until_busy(self) -> None:
        before = self.ticks()
        wait_until(lambda: self.ticks() > before + 3, seconds=10, what="the engine at work")

    def idle_since(self, *, within: float) -> float:
        """The moment after which it used no processor time for 0.3 s."""
        deadline = time.monotonic() + within + 5
        last, used = self.ticks(), time.monotonic()
        while time.monotonic() - used < 0.3:
            assert time.monotonic() < deadline, "the engine went on working"
            time.sleep(0.02)
            if (now := self.ticks()) > last:
                last, used = now, time.monotonic()
        return used


@pytest.fixture
def engine(server: LiveServer) -> Engine:
    server.ask("POST", "/api/generate", {"model": server.model})
    engine = Engine(server)
    engine.idle_since(within=20)
    return engine


def long_work(server: LiveServer, path: str, *, streamed: bool) -> dict[str, Any]:
    """Seconds of work: tokens until the context is full."""
    options = {"num_predict": 100_000, "ignore_eos": True, "seed": 1}
    return {
        "model": server.model,
        "prompt": "Hello",
        "messages": HELLO,
        "stream": streamed,
        **({"options": options} if path.startswith("/api") else options | {"max_tokens": 100_000}),
    }


@needs_proc
@streamed_or_not
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions"])
def test_the_engine_stops_while_tokens_flow(
    server: LiveServer, engine: Engine, path: str, streamed: bool
) -> None:
    with ExitStack() as open_connections:
        work = long_work(server, path, streamed=streamed)
        callers = [open_connections.enter_context(calling(server, path, work)) for _ in range(4)]
        for caller in callers:
            caller.send()
        for caller in callers if streamed else ():
            caller.receive(b"\r\n{" if path.startswith("/api") else b"data: ")
        engine.wait_until_busy()
        left = [caller.leave() for caller in callers][-1]
        assert_unloaded(server)
        assert engine.idle_since(within=IDLE_SECONDS) - left < IDLE_SECONDS


@needs_proc
@both
def test_the_engine_stops_during_prefill_and_in_its_queue(
    server: LiveServer, engine: Engine, dialect: Dialect
) -> None:
    """Twenty-four long prompts for four slots: half a minute of reading, if nobody stops it."""
    with ExitStack() as open_connections:
        callers = []
        for number in range(24):
            prompt = f"{number} says: " + f"word{number} and more. " * 300
            body = {"model": server.model, "messages": [{"role": "user", "content": prompt}], "stream": False}
            body |= {
                "max_tokens": 200,
                "ignore_eos": True,
                "options": {"num_predict": 200, "ignore_eos": True},
            }
            callers.append(open_connections.enter_context(calling(server, PATHS[dialect], body)))
        for caller in callers:
            caller.send()
        engine.wait_until_busy()
        left = [caller.leave() for caller in callers][-1]
        assert_unloaded(server)
        idle = engine.idle_since(within=IDLE_FROM_PREFILL_SECONDS)
        assert idle - left < IDLE_FROM_PREFILL_SECONDS
    answer = server.ask("POST", "/api/generate", {"model": server.model, "prompt": "Hello", "stream": False})
    assert answer["done"]


def test_nothing_is_left_of_two_hundred_callers_who_vanish(
    server: LiveServer, gateway: LiveServer, upstream: ScriptedUpstream
) -> None:
    """Half of them wait for an answer when they go, half never finished asking."""
    connections = gateway.health()["open_connections"]
    files = _open_files(gateway)
    upstream.script(CHAT, *[(HOLD,) for _ in range(100)])
    with ExitStack() as open_connections:
        for number in range(200):
            dialect: Dialect = "ollama" if number % 4 < 2 else "openai"
            body = chat_body(dialect, streamed=number % 3 == 0)
            caller = open_connections.enter_context(calling(gateway, PATHS[dialect], body))
            caller.send(half=bool(number % 2))
        upstream.wait_for_request(CHAT, 100)
    upstream.wait_for_hangup(100)
    assert_unloaded(gateway)
    wait_until(
        lambda: gateway.health()["open_connections"] <= connections, seconds=5, what="the connections closed"
    )
    if files is not None:
        wait_until(lambda: (_open_files(gateway) or 0) <= files + 4, seconds=10, what="the sockets closed")


def _open_files(server: LiveServer) -> int | None:
    folder = f"/proc/{server.process.pid}/fd"
    return len(os.listdir(folder)) if os.path.isdir(folder) else None
