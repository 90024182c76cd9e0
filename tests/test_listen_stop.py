"""The end of a server: what runs may finish, nothing begins, last words reach their caller."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from listen_fixtures import (
    Streaming,
    answer,
    calling,
    each_loop,
    echo,
    get,
    listening,
    post,
    refuse,
    soon,
)
from portico.config import Config
from portico.gateway.listen import Listener, until_signal
from portico.gateway.listen.listener import make_room


class LastWords:
    """Streams until it is cancelled, then says so."""

    def __init__(self) -> None:
        self.started = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"stopping"})
            raise


@each_loop
async def test_a_running_request_finishes() -> None:
    app = Streaming()
    async with listening(app) as listener, calling(listener) as caller, calling(listener) as idle:
        await caller.say(get())
        await app.started.wait()
        await soon(lambda: len(listener.gate.connections) == 2)
        stopping = asyncio.ensure_future(listener.stop(15))
        assert await idle.end() == b""  # closed while the other one runs
        with pytest.raises(OSError):
            await asyncio.open_connection(*listener.addresses[0])
        app.go_on.set()
        assert (await caller.answer()).body == b"firstlast"
        assert await caller.end() == b""
        begin = time.monotonic()
        await stopping
        assert time.monotonic() - begin < 1.0  # not all of its grace
        await listener.wait()


@each_loop
async def test_a_request_that_has_not_answered_yet_says_close() -> None:
    app = Streaming(silent=True)
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get() + get("/waiting"))
        await app.started.wait()
        stopping = asyncio.ensure_future(listener.stop(15))
        await asyncio.sleep(0.02)
        app.go_on.set()
        assert (await caller.answer()).headers["connection"] == "close"
        assert await caller.end() == b""  # what waited behind it was not begun
        await stopping


@each_loop
async def test_half_a_request_gets_503() -> None:
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(b"GET /v1/models HTTP/1.1\r\nho")
        await soon(lambda: any(c.in_head for c in listener.gate.connections))
        stopping = asyncio.ensure_future(listener.stop(15))
        found = await caller.answer()
        assert (found.status, found.headers["connection"]) == (503, "close")
        assert found.json["error"]["code"] == "shutting_down"
        caller.close()
        await stopping


@each_loop
async def test_a_request_that_arrived_with_the_stop_gets_503() -> None:
    app = Streaming()
    async with listening(app) as listener, calling(listener) as busy, calling(listener) as late:
        await busy.say(get())
        await app.started.wait()
        await soon(lambda: len(listener.gate.connections) == 2)
        stopping = asyncio.ensure_future(listener.stop(15))
        await asyncio.sleep(0)  # it has begun, but has not yet looked at the connections
        await late.say(get("/v1/models"))
        found = await late.answer()
        late.close()
        assert (found.status, found.json["error"]["code"]) == (503, "shutting_down")
        app.go_on.set()
        await stopping


@each_loop
async def test_last_words_reach_the_caller() -> None:
    app = LastWords()
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get())
        await app.started.wait()
        await asyncio.gather(listener.stop(0.05), caller.head())
        assert [await caller.chunk() for _ in range(3)] == [b"first", b"stopping", b""]
        assert await caller.end() == b""


@each_loop
async def test_a_body_under_way_may_arrive() -> None:
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(post("/", b"half").replace(b": 4", b": 8"))
        await soon(lambda: listener.gate.tasks)
        stopping = asyncio.ensure_future(listener.stop(15))
        await asyncio.sleep(0.02)
        await caller.say(b"rest")
        assert (await caller.answer()).json["body"] == "halfrest"
        await stopping


@each_loop
async def test_a_request_without_an_answer_gets_503_when_it_is_cancelled() -> None:
    app = Streaming(silent=True)
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get("/api/chat"))
        await app.started.wait()
        stopping = asyncio.ensure_future(listener.stop(0.05))
        found = await caller.answer()
        assert found.status == 503
        assert "stopping" in found.json["error"]
        caller.close()
        await stopping


@each_loop
async def test_an_application_that_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get())
        await started.wait()
        begin = time.monotonic()
        await listener.stop(0.05)
        assert time.monotonic() - begin < 10
        assert await caller.end() == b""
        assert "1 requests did not end" in caplog.text
        release.set()
        await soon(lambda: not listener.gate.tasks)


@each_loop
async def test_cut() -> None:
    app = Streaming()
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get())
        await app.started.wait()
        stopping = asyncio.ensure_future(listener.stop(60))
        second = asyncio.ensure_future(listener.stop(60))  # waits for the first
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        listener.cut()
        await stopping
        await second
        assert time.monotonic() - begin < 1.0
        assert (await caller.end()).endswith(b"first\r\n")


@each_loop
async def test_a_reader_that_never_reads_does_not_hold_the_stop() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 8000, "more_body": True})

    async with listening(endless) as listener, calling(listener) as caller:
        caller.writer.transport.pause_reading()
        await caller.say(get())
        await soon(lambda: any(c.flow.write_paused for c in listener.gate.connections))
        begin = time.monotonic()
        await listener.stop(0.05)
        assert time.monotonic() - begin < 10
        await soon(lambda: not listener.gate.tasks)


# ---- a process of its own


SERVER = textwrap.dedent("""
    import asyncio, sys
    from portico.config import Config
    from portico.gateway.listen import Listener, until_signal

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        try:
            await asyncio.sleep(float(scope["path"][1:]))
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"cancelled"})
            raise
        await send({"type": "http.response.body", "body": b"done"})

    def started(address):
        print(address[1], flush=True)

    config = Config(port=0, shutdown_timeout=float(sys.argv[1]))
    refuse = lambda path, error: (b"{}", b"application/json", ())
    loop = asyncio.new_event_loop
    if sys.argv[2] == "uvloop":
        import uvloop
        loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop) as runner:
        number = runner.run(until_signal(Listener(app, config, refuse=refuse), on_started=started))
    print("ended by", number, flush=True)
""")


@pytest.fixture(params=["asyncio", "uvloop"])
def child(request: pytest.FixtureRequest) -> Iterator[Any]:
    children: list[subprocess.Popen[str]] = []
    sockets = contextlib.ExitStack()

    def start(grace: float) -> tuple[subprocess.Popen[str], socket.socket]:
        """A server, and a connection to it."""
        if request.param == "uvloop" and sys.platform == "win32":
            pytest.skip("uvloop does not exist for Windows")
        made = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER, str(grace), request.param],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parent.parent / "src")},
        )
        children.append(made)
        assert made.stdout is not None
        port = int(made.stdout.readline())
        return made, sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=15))

    with sockets:
        yield start
    for each in children:
        each.kill()
        each.communicate()


def begin(sock: socket.socket, seconds: float) -> None:
    """A request that takes so long; its first chunk is there."""
    sock.sendall(get(f"/{seconds}"))
    data = b""
    while b"first" not in data:
        data += sock.recv(4096)


def rest(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(4096):
            data += piece
    return data


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent on Windows")


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish(child: Any, number: signal.Signals) -> None:
    made, sock = child(15)
    begin(sock, 0.3)
    made.send_signal(number)
    assert b"done" in rest(sock)
    out, err = made.communicate(timeout=15)
    assert (out, err, made.returncode) == (f"ended by {int(number)}\n", "", 0)


@posix
def test_the_last_chunk_is_written_at_sigterm(child: Any) -> None:
    made, sock = child(0.2)
    begin(sock, 60)
    made.send_signal(signal.SIGTERM)
    assert rest(sock).endswith(b"9\r\ncancelled\r\n0\r\n\r\n")
    out, err = made.communicate(timeout=15)
    assert (out, err, made.returncode) == ("ended by 15\n", "", 0)


@posix
def test_a_second_signal_cuts_at_once(child: Any) -> None:
    made, sock = child(60)
    begin(sock, 60)
    made.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert made.poll() is None
    since = time.monotonic()
    made.send_signal(signal.SIGINT)
    rest(sock)
    out, err = made.communicate(timeout=15)
    assert time.monotonic() - since < 2.5
    assert (out, err, made.returncode) == ("ended by 15\n", "", 0)


def test_a_server_in_a_thread() -> None:
    started = threading.Event()
    found: list[tuple[str, int]] = []
    loop = asyncio.new_event_loop()

    def run() -> None:
        def on_started(address: tuple[str, int]) -> None:
            found.append(address)
            started.set()

        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(
                until_signal(Listener(echo, Config(port=0), refuse=refuse), on_started=on_started)
            )
        loop.close()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(15)
    with socket.create_connection(found[0], timeout=15) as sock:
        sock.sendall(get("/", "connection: close"))
        assert b"200 OK" in rest(sock)
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    thread.join(15)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGTERM) is before


@each_loop
async def test_signal_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    started = asyncio.Event()
    task = asyncio.ensure_future(
        until_signal(Listener(echo, Config(port=0), refuse=refuse), on_started=lambda address: started.set())
    )
    await started.wait()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@each_loop
async def test_a_failing_start_leaves_nothing() -> None:
    ports: list[int] = []

    def fail(address: tuple[str, int]) -> None:
        ports.append(address[1])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until_signal(Listener(echo, Config(port=0), refuse=refuse), on_started=fail)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", ports[0])


@each_loop
async def test_stop_without_start() -> None:
    await Listener(echo, Config(port=0), refuse=refuse).stop()


@each_loop
async def test_given_sockets() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"hello")

    sock = socket.create_server(("127.0.0.1", 0))
    listener = Listener(app, Config(port=1), refuse=refuse, sockets=[sock])
    assert await listener.start() == sock.getsockname()
    async with calling(listener) as caller:
        await caller.say(get())
        assert (await caller.answer()).body == b"hello"
    await listener.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of open files")
def test_room_for_connections() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
        make_room(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (856, before[1])
        make_room(10)  # never lower
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (856, before[1])
        make_room(10**9)  # as far as it may
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
