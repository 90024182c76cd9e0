"""HTTP as callers speak it: what works, and what is answered with an error that they can read."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from listen_fixtures import Streaming, answer, ask, calling, each_loop, echo, get, listening, post
from portico.gateway.listen import Limits


@each_loop
async def test_a_request_and_its_answer() -> None:
    async with listening(echo) as listener:
        found = await ask(listener, post("/api/show%20it?x=1", b"hello", "X-Thing: 1"))
    assert found.json == {
        "method": "POST",
        "path": "/api/show it",
        "http_version": "1.1",
        "headers": ["host", "content-length", "x-thing"],
        "body": "hello",
    }
    assert found.headers["server"] == "portico"
    assert found.headers["date"].endswith("gmt")


@each_loop
async def test_the_scope_has_what_asgi_promises() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await answer(send, b"")

    async with listening(app) as listener:
        for target in ("/a%2Fb?q=%20", "http://elsewhere/c?d", "*", "/caf%C3%A9?f?g"):
            await ask(listener, f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert [(s["path"], s["raw_path"], s["query_string"]) for s in scopes] == [
        ("/a/b", b"/a%2Fb", b"q=%20"),
        ("/c", b"/c", b"d"),
        ("*", b"*", b""),
        ("/caf\u00e9", b"/caf%C3%A9", b"f?g"),
    ]
    first = scopes[0]
    assert (first["type"], first["scheme"], first["root_path"]) == ("http", "http", "")
    assert first["client"][0] == "127.0.0.1"
    assert first["server"] == listener.addresses[0]


@each_loop
async def test_a_connection_is_kept() -> None:
    async with listening(echo) as listener, calling(listener) as caller:
        for number in range(3):
            await caller.say(post("/", b"%d" % number))
            assert (await caller.answer()).json["body"] == str(number)


@each_loop
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(get("/0") + post("/1", b"x" * 100_000) + get("/2") + get("/3", "connection: close"))
        paths = [(await caller.answer()).json["path"] for _ in range(4)]
        assert paths == ["/0", "/1", "/2", "/3"]
        assert await caller.end() == b""


@each_loop
async def test_bytes_may_arrive_in_any_pieces() -> None:
    chunked = (
        b"POST /2 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    )
    data = (
        post("/1", b"hello", "connection: Upgrade", "upgrade: h2c") + chunked + get("/3", "connection: close")
    )
    async with listening(echo) as listener:
        for at in range(1, len(data), 2):
            async with calling(listener) as caller:
                await caller.say(data[:at])
                await asyncio.sleep(0.001)
                await caller.say(data[at:])
                found = [(await caller.answer()).json for _ in range(3)]
                assert [each["body"] for each in found] == ["hello", "abcd", ""], at
                assert [each["path"] for each in found] == ["/1", "/2", "/3"], at
                assert await caller.end() == b""


@each_loop
async def test_http_1_0_gets_no_chunks_and_an_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with listening(app) as listener:
        found = await ask(listener, b"GET / HTTP/1.0\r\n\r\n")
    assert found.body == b"one two"
    assert "transfer-encoding" not in found.headers
    assert found.headers["connection"] == "close"


@each_loop
async def test_chunked_bodies_and_their_trailers() -> None:
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await caller.say(b"4;ext=1\r\ndefg\r\n0\r\nx-trailer: 1\r\n\r\n")
        found = await caller.answer()
        assert found.json["body"] == "abcdefg"
        assert "x-trailer" not in found.json["headers"]
        await caller.say(get("/next"))
        assert (await caller.answer()).json["path"] == "/next"


@each_loop
async def test_100_continue_is_said_when_the_body_is_asked_for() -> None:
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(post("/", b"", "expect: 100-continue").replace(b": 0", b": 5"))
        assert (await caller.head()).status == 100
        await caller.say(b"hello")
        assert (await caller.answer()).json["body"] == "hello"


@each_loop
async def test_without_100_continue_the_connection_ends_with_the_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 401)

    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(post("/", b"", "expect: 100-continue").replace(b": 0", b": 5"))
        found = await caller.answer()
        assert (found.status, found.headers["connection"]) == (401, "close")
        assert await caller.end() == b""


@each_loop
async def test_head_and_204_have_no_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/204":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await answer(send, b"hello")

    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" + get("/204") + get("/"))
        assert (await caller.answer(bodiless=True)).headers["content-length"] == "5"
        assert "transfer-encoding" not in (await caller.answer()).headers
        assert (await caller.answer()).body == b"hello"


@each_loop
async def test_a_head_is_sent_early_by_an_empty_body() -> None:
    app = Streaming()

    async def eager(scope: Any, receive: Any, send: Any) -> None:
        async def early(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body", "body": b"", "more_body": True})
                await asyncio.Event().wait()

        await app(scope, receive, early)

    async with listening(eager) as listener, calling(listener) as caller:
        await caller.say(get())
        assert (await caller.head()).status == 200


BROKEN = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "smuggling": b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "negative": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    "connect": b"CONNECT there:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "no chunk size": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "not ascii": "GET /caf\u00e9 HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
    "folded": b"GET / HTTP/1.1\r\nhost: x\r\n bad\x00: 1\r\n\r\n",
}


@pytest.mark.parametrize("what", BROKEN)
@each_loop
async def test_what_is_not_http_gets_400_and_no_noise(what: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(BROKEN[what])
        found = await caller.answer()
        assert (found.status, found.headers["connection"]) == (400, "close")
        assert found.headers["content-type"] == "application/json"
        assert isinstance(found.json["error"], dict if b"/v1/" in BROKEN[what] else str)
        assert await caller.end() == b""
    assert caplog.records == []


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
@each_loop
async def test_upgrades_are_ordinary_requests(upgrade: str) -> None:
    wish = (f"upgrade: {upgrade}", "connection: Upgrade, HTTP2-Settings", "http2-settings: AAMAAABk")
    async with listening(echo) as listener, calling(listener) as caller:
        await caller.say(get("/first", *wish))
        assert (await caller.answer()).json["path"] == "/first"
        await caller.say(post("/second", b"body", *wish) + get("/third"))
        assert (await caller.answer()).json["body"] == "body"
        assert (await caller.answer()).json["path"] == "/third"


@each_loop
async def test_a_broken_request_does_not_corrupt_the_answer_before_it() -> None:
    app = Streaming()
    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get("/") + b"garbage\r\n\r\n")
        await app.started.wait()
        await caller.say(b"more of it")
        app.go_on.set()
        found = await caller.answer()
        assert (found.status, found.body) == (200, b"firstlast")
        assert (await caller.answer()).status == 400
        assert await caller.end() == b""


@each_loop
async def test_too_many_pipelined_requests() -> None:
    app = Streaming()
    async with listening(app, pipelined=3) as listener, calling(listener) as caller:
        await caller.say(get() * 1000)
        await app.started.wait()
        app.go_on.set()
        statuses = [(await caller.answer()).status for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 400]
        assert await caller.end() == b""
    assert Limits().pipelined >= 16  # what load generators use


# ---- applications that fail


@each_loop
async def test_an_application_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError  # the head has not left yet

    async with listening(app) as listener:
        found = await ask(listener, get("/v1/models"))
    assert (found.status, found.headers["connection"]) == (500, "close")
    assert found.json["error"]["code"] == "internal"
    assert "ZeroDivisionError" in caplog.text


@each_loop
async def test_an_application_that_raises_in_the_middle(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(get())
        await caller.head()
        assert await caller.chunk() == b"half"
        assert await caller.end() == b""  # no last chunk: the caller sees that it is not whole


@each_loop
async def test_an_application_that_gives_no_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    async with listening(app) as listener:
        found = await ask(listener, get("/api/tags"))
    assert found.status == 500
    assert isinstance(found.json["error"], str)


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb"])
@each_loop
async def test_a_header_cannot_smuggle_others(value: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"", 200, (b"x-name", value))

    async with listening(app) as listener:
        found = await ask(listener, get())
    assert found.status == 500
    assert "x-evil" not in found.headers


@pytest.mark.parametrize("body", [b"short", b"far too long"])
@each_loop
async def test_a_body_that_differs_from_its_length(body: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = [(b"content-length", b"7")]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    async with listening(app) as listener:
        assert (await ask(listener, get())).status == 500


@each_loop
async def test_messages_out_of_order() -> None:
    faults: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        end = {"type": "http.response.body"}
        for message in (end, start, start, end, end):
            try:
                await send(message)
            except RuntimeError as error:
                faults.append(str(error))

    async with listening(app) as listener:
        assert (await ask(listener, get())).status == 200
    assert len(faults) == 3
