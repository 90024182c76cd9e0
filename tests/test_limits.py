"""The limits on waiting, each by itself, over real sockets: what a caller of either dialect is told, and when."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from asking import HELLO, PATHS, Dialect, Said, ask
from live_server import LiveServer, serve, wait_until
from portico.errors import ShuttingDown, TookTooLong, UpstreamTimeout, UpstreamUnreachable, WaitedTooLong
from portico.gateway.serving import is_replicas_fault, may_try_again
from portico.web import Request
from portico.web.request import LAST_WORDS
from scripted_answers import CHAT, STREAM_HEAD, chat_events, chat_stream, chunk, event, framed, stream
from scripted_upstream import HOLD, ScriptedUpstream

both = pytest.mark.parametrize("dialect", ["ollama", "openai"])
streamed_or_not = pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
LIMIT = 0.4
FAR = 5
"""By what a wait may be longer than its limit, on a slow machine."""

Start = Callable[..., tuple[LiveServer, list[ScriptedUpstream]]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with these settings, its model on `count` servers, and `fallback` models that stand in."""
    with ExitStack() as stack:

        def start(
            settings: str = "", *, model: str = "", count: int = 1, fallback: int = 0, first: str = ""
        ) -> tuple[LiveServer, list[ScriptedUpstream]]:
            made = [stack.enter_context(ScriptedUpstream()) for _ in range(count + fallback)]
            urls = [first] * bool(first) + [upstream.url for upstream in made]
            here, others = urls[: len(urls) - fallback], urls[len(urls) - fallback :]
            names = [f"other-{at}" for at in range(fallback)]
            lines = [settings, "[[model]]", 'name = "mock-model"', f"engine = {json.dumps(here[0])}", model]
            lines += [f"endpoints = {json.dumps(here[1:])}", f"fallback = {json.dumps(names)}"]
            for name, url in zip(names, others, strict=True):
                lines += ["[[model]]", f'name = "{name}"', 'source = "mock-model"', f'engine = "{url}"']
            config = tmp_path / "portico.toml"
            config.write_text("\n".join(lines))
            return stack.enter_context(serve(tmp_path / "server", "--config", str(config))), made

        yield start


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def timed(*arguments: Any, **options: Any) -> tuple[Said, float]:
    began = time.monotonic()
    return ask(*arguments, **options), time.monotonic() - began


def seen(upstreams: list[ScriptedUpstream]) -> list[int]:
    return [len(upstream.requests(CHAT)) for upstream in upstreams]


# ---- the queue


def fill(server: LiveServer, upstream: ScriptedUpstream, callers: ThreadPoolExecutor) -> list[Future[Said]]:
    """One request that does not end, and one that waits behind it: there is room for no other."""
    upstream.script(CHAT, (HOLD, *chat_stream("one")))
    first = callers.submit(ask, server.url, "openai", stream=True)
    upstream.wait_for_request(CHAT)
    second = callers.submit(ask, server.url, "openai", stream=True)
    wait_until(lambda: server.metric("portico_queue_depth") == 1, seconds=10, what="the second waits")
    return [first, second]


def test_a_full_queue(world: Start, callers: ThreadPoolExecutor) -> None:
    server, (upstream,) = world("max_queue = 1", model="parallel = 1")
    held = fill(server, upstream, callers)
    for streamed in (True, False):
        said = ask(server.url, "ollama", stream=streamed)
        assert (said.status, said.headers["retry-after"]) == (503, "1")
        assert said.error == "server busy, please try again.  maximum pending requests exceeded"
        said = ask(server.url, "openai", stream=streamed)
        assert (said.status, said.headers["retry-after"], said.code) == (429, "1", "overloaded")
        assert "application/json" in said.content_type
    upstream.release()
    answers = [one.result(20) for one in held]
    assert [one.text for one in answers] == ["one", "Hello there"]
    assert len(upstream.requests(CHAT)) == 2
    assert float(answers[0].headers["x-portico-queue-ms"]) < float(answers[1].headers["x-portico-queue-ms"])


@streamed_or_not
def test_openais_client_is_told_to_slow_down_and_comes_back(
    world: Start, callers: ThreadPoolExecutor, streamed: bool
) -> None:
    server, (upstream,) = world("max_queue = 1", model="parallel = 1")
    held = fill(server, upstream, callers)
    messages: Any = HELLO

    def create(retries: int) -> Any:
        client = openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=retries)
        with client:
            found = client.chat.completions.create(model="mock-model", messages=messages, stream=streamed)
            return list(found) if streamed else found

    with pytest.raises(openai.RateLimitError) as caught:
        create(0)
    assert caught.value.response.headers["retry-after"] == "1"
    assert (caught.value.type, caught.value.code) == ("rate_limit_error", "overloaded")

    began = time.monotonic()
    coming_back = callers.submit(create, 5)
    refused = 'portico_requests_total{dialect="openai",model="mock-model",route="/v1/chat/completions",status="429"}'
    wait_until(
        lambda: f"{refused} 2" in server.ask_text("/metrics"), seconds=10, what="the client was turned away"
    )
    upstream.release()
    assert coming_back.result(30)
    assert time.monotonic() - began >= 1, "as long as Retry-After says"
    for one in held:
        one.result(20)
    assert len(upstream.requests(CHAT)) == 3


@both
@streamed_or_not
def test_queue_timeout(world: Start, callers: ThreadPoolExecutor, dialect: Dialect, streamed: bool) -> None:
    server, (upstream,) = world(f"queue_timeout = {LIMIT}", model="parallel = 1")
    upstream.script(CHAT, (HOLD, *chat_stream("one")))
    first = callers.submit(ask, server.url, "openai", stream=True)
    upstream.wait_for_request(CHAT)
    said, took = timed(server.url, dialect, stream=streamed)
    assert LIMIT <= took < LIMIT * FAR
    assert (said.status, said.headers["retry-after"]) == ({"ollama": 503, "openai": 429}[dialect], "1")
    assert said.error is not None and said.error.startswith("server busy, please try again.")
    assert f"waited {LIMIT} s for its turn (queue_timeout)" in said.error
    upstream.release()
    assert first.result(20).text == "one", "who has his turn may take longer"
    assert ask(server.url, dialect, stream=streamed).text == "Hello there"


@pytest.mark.parametrize("fallback", [0, 1], ids=["a replica", "a model that stands in"])
def test_whose_turn_does_not_come_is_sent_elsewhere(
    world: Start, callers: ThreadPoolExecutor, fallback: int
) -> None:
    """Replicas are kept for conversations, so another one may be free."""
    server, upstreams = world(
        f"queue_timeout = {LIMIT}", model="parallel = 1", count=2 - fallback, fallback=fallback
    )
    ask(server.url, "openai", stream=True)
    home, other = upstreams if seen(upstreams) == [1, 0] else upstreams[::-1]
    home.script(CHAT, (HOLD, *chat_stream("two")))
    held = callers.submit(ask, server.url, "openai", stream=True)
    home.wait_for_request(CHAT, 2)
    said, took = timed(server.url, "openai", stream=True)
    assert said.text == "Hello there" and LIMIT <= took < LIMIT * FAR
    assert said.headers["x-portico-attempts"] == "2" and seen([home, other]) == [2, 1]
    assert ("x-portico-fallback" in said.headers) == bool(fallback)
    home.release()
    assert held.result(20).text == "two"


# ---- the connection


@both
@streamed_or_not
def test_connect_timeout(world: Start, mute: str, dialect: Dialect, streamed: bool) -> None:
    server, _ = world(f"connect_timeout = {LIMIT}", count=0, first=mute)
    said, took = timed(server.url, dialect, stream=streamed)
    assert said.status == 502 and took < LIMIT * FAR
    assert said.error == f"Nothing answers at {mute}: no connection within {LIMIT} s (connect_timeout)."


def test_who_cannot_be_connected_to_is_not_waited_for_twice(world: Start, mute: str) -> None:
    server, (other,) = world(f"connect_timeout = {LIMIT}", first=mute)
    for at in range(10):
        hello = [{"role": "user", "content": f"Hello, number {at}"}]
        assert ask(server.url, "openai", stream=False, messages=hello).text == "Hello there"
    assert len(other.requests(CHAT)) == 10


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes connections and never says a word, not even of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


# ---- the first token


HELD = {"nothing": (HOLD,), "head": (STREAM_HEAD, HOLD)}


@both
@pytest.mark.parametrize("before", HELD)
def test_first_token_timeout(world: Start, dialect: Dialect, before: str) -> None:
    server, (upstream,) = world(f"first_token_timeout = {LIMIT}\ntoken_timeout = 60")
    upstream.script(CHAT, HELD[before])
    said, took = timed(server.url, dialect, stream=True)
    assert said.status == 504 and LIMIT <= took < LIMIT * FAR
    assert said.error == (
        f"The engine at {upstream.url.removesuffix('/v1')} did not begin to answer: it sent nothing for {LIMIT} s "
        "(first_token_timeout)."
    )
    upstream.wait_for_hangup()
    assert seen([upstream]) == [1], "the same one is not asked again"


def test_waiting_for_a_turn_does_not_count(world: Start, callers: ThreadPoolExecutor) -> None:
    server, (upstream,) = world(f"first_token_timeout = {LIMIT}", model="parallel = 1")
    slow = stream([*chat_events("one")[:2], *chat_events()[1:]])
    upstream.script(CHAT, (*slow[:2], 1.5 * LIMIT, *slow[2:]))
    first = callers.submit(ask, server.url, "openai", stream=True)
    upstream.wait_for_request(CHAT)
    said, took = timed(server.url, "openai", stream=True)
    assert said.text == "Hello there" and took > LIMIT
    assert first.result(20).text == "one"


@both
@pytest.mark.parametrize("before", HELD)
def test_another_replica_is_asked_for_the_first_token(world: Start, dialect: Dialect, before: str) -> None:
    server, upstreams = world(f"first_token_timeout = {LIMIT}", count=2)
    ask(server.url, dialect, stream=True)
    home, other = upstreams if seen(upstreams) == [1, 0] else reversed(upstreams)
    home.script(CHAT, HELD[before])
    said = ask(server.url, dialect, stream=True)
    assert (said.text, said.headers["x-portico-attempts"]) == ("Hello there", "2")
    assert seen([home, other]) == [2, 1]
    home.wait_for_hangup()


def test_but_only_one(world: Start) -> None:
    server, upstreams = world(f"first_token_timeout = {LIMIT}", count=3)
    for upstream in upstreams:
        upstream.script(CHAT, (HOLD,))
    said, took = timed(server.url, "openai", stream=True)
    assert said.status == 504 and "first_token_timeout" in (said.error or "")
    assert sorted(seen(upstreams)) == [0, 1, 1] and took < 2 * LIMIT * FAR


def test_and_then_a_model_that_stands_in(world: Start) -> None:
    server, upstreams = world(f"first_token_timeout = {LIMIT}", count=1, fallback=1)
    upstreams[0].script(CHAT, (HOLD,))
    said = ask(server.url, "ollama", stream=True)
    assert (said.text, said.headers["x-portico-fallback"]) == ("Hello there", "other-0:latest")


# ---- between two tokens


@both
def test_token_timeout(world: Start, dialect: Dialect) -> None:
    server, upstreams = world(f"token_timeout = {LIMIT}", count=2, fallback=1)
    for upstream in upstreams:
        upstream.script(CHAT, (*chat_stream("one")[:3], HOLD))
    said, took = timed(server.url, dialect, stream=True)
    assert said.status == 200 and said.text == "one" and not said.ended and took < LIMIT * FAR
    assert f"in the middle of its answer: it sent nothing for {LIMIT} s (token_timeout)" in (said.error or "")
    assert sorted(seen(upstreams)) == [0, 0, 1]


# ---- the whole request


SAYS = f"The request was not answered in full within {LIMIT} s (request_timeout)."


@both
@streamed_or_not
def test_request_timeout_before_the_first_byte(world: Start, dialect: Dialect, streamed: bool) -> None:
    server, upstreams = world(f"request_timeout = {LIMIT}", count=2, fallback=1)
    for upstream in upstreams:
        upstream.script(CHAT, (HOLD,))
    said, took = timed(server.url, dialect, stream=streamed)
    assert (said.status, said.error) == (504, SAYS) and LIMIT <= took < LIMIT * FAR
    assert "application/json" in said.content_type
    if dialect == "openai":
        assert said.code == "request_too_long"
    next(one for one in upstreams if one.received and one.requests(CHAT)).wait_for_hangup()
    assert sum(seen(upstreams)) == 1
    wait_until(lambda: "request_timeout" in server.log_text(), seconds=10, what="the log says so")


@both
def test_request_timeout_in_the_middle(world: Start, dialect: Dialect) -> None:
    """However lively the answer is."""
    server, (upstream,) = world(f"request_timeout = {LIMIT}")
    head, role, word, *_ = chat_stream("one")
    upstream.script(CHAT, (head, role, *(word, 0.05) * 1000))
    said, took = timed(server.url, dialect, stream=True)
    assert said.status == 200 and said.text.startswith("oneone") and not said.ended
    assert said.error == SAYS and LIMIT <= took < LIMIT * FAR
    upstream.wait_for_hangup()
    assert server.metric("portico_requests_in_flight") == 0


def test_request_timeout_in_the_queue(world: Start, callers: ThreadPoolExecutor) -> None:
    server, (upstream,) = world(f"request_timeout = {LIMIT}", model="parallel = 1")
    upstream.script(CHAT, (HOLD,), (HOLD,))
    first = callers.submit(ask, server.url, "openai", stream=True)
    upstream.wait_for_request(CHAT)
    second = callers.submit(ask, server.url, "ollama", stream=True)
    assert [one.result(20).status for one in (first, second)] == [504, 504]
    assert ask(server.url, "openai", stream=True).text == "Hello there", "nobody's turn is lost"


@both
def test_a_caller_who_does_not_read_is_cut_too(world: Start, dialect: Dialect) -> None:
    server, (upstream,) = world(f"request_timeout = {LIMIT}")
    head, role, *_ = chat_stream("one")
    upstream.script(CHAT, (head, role, *[framed(event(chunk({"content": "x" * 60_000})))] * 500, HOLD))
    body = json.dumps({"model": "mock-model", "messages": HELLO, "stream": True}).encode()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect(("127.0.0.1", server.port))
        caller.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
            % (PATHS[dialect].encode(), len(body), body)
        )
        began = time.monotonic()
        upstream.wait_for_hangup()
        assert time.monotonic() - began < LIMIT * FAR, "the engine is not kept for what nobody reads"
        metric = "portico_requests_in_flight"
        wait_until(lambda: server.metric(metric) == 0, seconds=LAST_WORDS * FAR, what="the request has ended")


def test_who_is_in_time_is_not_cut(world: Start) -> None:
    server, _ = world(f"request_timeout = {LIMIT}")
    for _ in range(3):
        assert ask(server.url, "openai", stream=True).ended
    time.sleep(2 * LIMIT)  # a limit that was not taken back would strike now
    assert ask(server.url, "ollama", stream=True).ended
    assert server.log_text().count("request_timeout") == 0


def test_who_may_try_again() -> None:
    slow = UpstreamTimeout(url="http://a", seconds=1, setting="first_token_timeout")
    for error in (slow, WaitedTooLong(seconds=1)):
        assert is_replicas_fault(error), "a model that stands in is asked"
        assert may_try_again(error, ["a"], replicas=2)
        assert not may_try_again(error, ["a"], replicas=1), "not the same one"
        assert not may_try_again(error, ["a", "b"], replicas=3), "not a third"
    refused = UpstreamUnreachable(url="http://a")
    assert may_try_again(refused, ["a", "b"], replicas=3)
    assert not may_try_again(refused, ["a", "b", "c"], replicas=4)
    for error in (TookTooLong(seconds=1), ShuttingDown()):
        assert not is_replicas_fault(error)


async def test_a_caller_who_does_not_read_is_left_after_a_moment() -> None:
    async def never(message: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async def silent() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    request = Request({"method": "POST", "path": "/api/chat", "headers": []}, silent, never)
    began = time.monotonic()
    await request.break_off(b"{}")
    assert request.gone and LAST_WORDS <= time.monotonic() - began < LAST_WORDS * FAR


async def test_the_time_before_the_limit_was_set_counts() -> None:
    async def nobody(*_: Any) -> Any:
        await asyncio.Event().wait()

    request = Request({"method": "POST", "path": "/api/chat", "headers": []}, nobody, nobody)
    request.account.started -= 10**10
    request.watch()
    request.limit(10.0)
    try:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(FAR)
    finally:
        request.unwatch()
    assert isinstance(request.cut_by, TookTooLong)
