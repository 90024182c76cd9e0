"""A caller who leaves: the application hears of it once, at once, whatever it is doing."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from listen_fixtures import (
    Caller,
    Streaming,
    answer,
    ask,
    calling,
    each_loop,
    get,
    listening,
    post,
    read_body,
    soon,
)
from portico.gateway.listen import Hangup

LEAVES: dict[str, Callable[[Caller], None]] = {
    "closes": Caller.close,
    "resets": Caller.reset,
    "half-closes": Caller.half_close,
}
WITHIN = 0.25  # seconds; the limit to reach is 0.05, on a machine with nothing else to do


async def heard(event: asyncio.Event) -> float:
    """Seconds until the application heard of it."""
    begin = time.monotonic()
    async with asyncio.timeout(15):
        await event.wait()
    return time.monotonic() - begin


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("leave", LEAVES)
@each_loop
async def test_a_caller_who_leaves(leave: str, silent: bool) -> None:
    app = Streaming(silent=silent)
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get())
        await app.started.wait()
        LEAVES[leave](caller)
        assert await heard(app.hung_up) < WITHIN
        await soon(lambda: not listener.gate.tasks and not listener.gate.connections)
        assert app.calls == 1


@pytest.mark.parametrize("leave", LEAVES)
@each_loop
async def test_after_a_large_body(leave: str) -> None:
    """Reading was paused while the body came in: it must go on, or nobody notices."""
    app = Streaming(silent=True)
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(post("/", b"x" * 2_000_000))
        await app.started.wait()
        LEAVES[leave](caller)
        assert await heard(app.hung_up) < WITHIN


@pytest.mark.parametrize("leave", LEAVES)
@each_loop
async def test_with_pipelined_requests(leave: str) -> None:
    """It is the running request's caller who leaves; what waits behind it never starts."""
    app = Streaming(silent=True)
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get("/1") + get("/2") + get("/3"))
        await app.started.wait()
        app.started.clear()
        LEAVES[leave](caller)
        assert await heard(app.hung_up) < WITHIN
        await soon(lambda: not listener.gate.tasks and not listener.gate.connections)
        assert app.calls == 1
        assert not app.started.is_set()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells without reading")
@pytest.mark.parametrize(("leave", "size"), [("closes", 150_000), ("resets", 150_000), ("resets", 3_000_000)])
@pytest.mark.parametrize("before", [b"", get()])
@each_loop
async def test_while_the_connection_is_not_read(leave: str, size: int, before: bytes) -> None:
    """A body that nobody asks for stops the reading; the next tick looks after the caller."""
    app = Streaming(silent=True)

    async def unread(scope: Any, receive: Any, send: Any) -> None:
        async def nothing() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await app(scope, nothing, send)

    async with listening(unread, body_seconds=0.3) as listener, calling(listener) as caller:
        caller.writer.write(before + post("/", b"x" * size))
        await app.started.wait()
        await soon(lambda: any(c.flow.read_paused for c in listener.gate.connections))
        if size < 1_000_000:
            await caller.writer.drain()
        LEAVES[leave](caller)
        assert await heard(app.hung_up) < 1.0
        await soon(lambda: not listener.gate.connections)


@each_loop
async def test_a_complete_answer_is_no_hang_up() -> None:
    hangups: list[Hangup] = []
    calls: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        hangup = scope["extensions"]["portico.hangup"]
        hangup.on_hangup(lambda: calls.append(1))
        hangups.append(hangup)
        await answer(send, b"done")
        hangup.on_hangup(lambda: calls.append(2))

    async with listening(app) as listener:
        assert (await ask(listener, get())).body == b"done"
        await soon(lambda: not listener.gate.connections)
    assert calls == []
    assert not hangups[0].gone


@each_loop
async def test_receive_and_send_after_a_hang_up() -> None:
    told: list[str] = []
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        told.append((await receive())["type"])
        told.append((await receive())["type"])
        await answer(send, b"nobody hears")
        ended.set()

    async with listening(app) as listener:
        async with calling(listener) as caller:
            await caller.say(get())
            await soon(lambda: listener.gate.tasks)
        await asyncio.wait_for(ended.wait(), 15)
    assert told == ["http.disconnect", "http.disconnect"]


@each_loop
async def test_callbacks() -> None:
    calls: list[str] = []
    ready, over = asyncio.Event(), asyncio.Event()

    def forgotten() -> None:
        calls.append("forgotten")

    def faulty() -> None:
        calls.append("faulty")
        raise ZeroDivisionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        hangup: Hangup = scope["extensions"]["portico.hangup"]
        for callback in (forgotten, faulty, lambda: calls.append("next")):
            hangup.on_hangup(callback)
        hangup.forget(forgotten)
        gone = asyncio.Event()
        hangup.on_hangup(gone.set)
        ready.set()
        await gone.wait()
        assert hangup.gone
        hangup.on_hangup(lambda: calls.append("late"))
        calls.append("after the call")  # a late callback does not run inside on_hangup
        await asyncio.sleep(0)
        over.set()

    async with listening(app) as listener:
        async with calling(listener) as caller:
            await caller.say(get())
            await ready.wait()
        await asyncio.wait_for(over.wait(), 15)
    assert calls == ["faulty", "next", "after the call", "late"]


@each_loop
async def test_a_cancelled_task_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """What the gateway does: the hang-up cancels the task that answers."""
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        scope["extensions"]["portico.hangup"].on_hangup(task.cancel)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with listening(app) as listener:
        async with calling(listener) as caller:
            await caller.say(get())
            await caller.head()
        assert await heard(ended) < WITHIN
        await soon(lambda: not listener.gate.tasks)
    assert caplog.records == []


@each_loop
async def test_a_caller_who_leaves_in_the_middle_of_its_body() -> None:
    app = Streaming()
    over = asyncio.Event()

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"]["portico.hangup"].on_hangup(app.hung_up.set)
        app.started.set()
        with pytest.raises(EOFError):
            await read_body(receive)
        over.set()

    async with listening(reading) as listener:
        async with calling(listener) as caller:
            await caller.say(post("/", b"half").replace(b": 4", b": 8"))
            await app.started.wait()
        assert await heard(app.hung_up) < WITHIN
        await asyncio.wait_for(over.wait(), 15)


@each_loop
async def test_a_caller_who_resets_what_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio's loop raises where it closes its side of a connection that is gone already."""
    async with listening(Streaming(), body_bytes=10) as listener:
        for _ in range(30):
            async with calling(listener) as caller:
                await caller.say(post("/", b"x" * 11) if _ % 2 else b"garbage\r\n\r\n")
                caller.reset()
        await soon(lambda: not listener.gate.connections)
    assert caplog.records == []
