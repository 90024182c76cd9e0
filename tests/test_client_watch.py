"""What a client tells of its requests, and what it never tells."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.servers import candidates
from portico.client.settings import NO_RETRY
from portico.errors import ConfigError, CutOff, NotRunning, ServerFailed
from scripted_answers import CHAT, chat_result, chat_stream, reply
from scripted_upstream import HOLD, RESET, ScriptedUpstream

KEY = "sk-sesame-open"
LONG = "word " * 100


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def quiet_logger() -> Iterator[logging.Logger]:
    """The library's own, as it was before anybody set it up."""
    logger = logging.getLogger("portico.client")
    before = (logger.level, list(logger.handlers), logger.propagate)
    yield logger
    logger.setLevel(before[0])
    logger.handlers, logger.propagate = before[1], before[2]


Ask = Callable[..., list[str]]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture) -> Ask:
    """Chats with either client; what it logged."""

    def ask(
        text: str = "Hello", *, stream: bool = False, url: str = upstream.url, **options: Any
    ) -> list[str]:
        caplog.clear()
        if request.param == "sync":
            with Client(url, retry=NO_RETRY, **options) as client:
                if stream:
                    with client.stream(text, model="m") as events:
                        list(events)
                else:
                    client.chat(text, model="m")
        else:

            async def run() -> None:
                async with AsyncClient(url, retry=NO_RETRY, **options) as client:
                    if not stream:
                        await client.chat(text, model="m")
                        return
                    async with client.stream(text, model="m") as events:
                        async for _ in events:
                            pass

            asyncio.run(run())
        return [record.getMessage() for record in caplog.records if record.name.startswith("portico.client")]

    return ask


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- the log


def test_a_line_a_request_where_somebody_listens(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    assert ask() == []
    caplog.set_level(logging.DEBUG, "portico.client")
    (line,) = ask()
    assert (
        line.startswith("#") and " POST http://127.0.0.1:" in line and "/v1/chat/completions: 200 in " in line
    )
    assert line.endswith("(stop, 7 + 3 tokens)") and "Hello" not in line
    (line,) = ask(stream=True)
    assert line.endswith("(stop, whole, 7 + 3 tokens)")


def test_debug_tells_bodies_with_long_texts_cut(
    ask: Ask, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "portico.client")
    for options, shown, told in (
        ({}, LONG[:180], f"... ({len(LONG)} characters)"),
        ({"debug_truncate_length": 12}, LONG[:12], "... ("),
    ):
        upstream.script(CHAT, reply(200, chat_result("Answer: " + LONG)))
        sent, summary, received = ask(LONG, debug=True, **options)
        assert " -> {" in sent and f'"{shown}{told}' in sent and LONG not in sent
        assert '"content": "Answer: ' in received and LONG not in received and "200 in" in summary
    upstream.script(CHAT, reply(200, chat_result("Answer: " + LONG)))
    sent, _, received = ask(LONG, raw_debug=True)
    assert LONG in sent and LONG in received
    upstream.script(CHAT, chat_stream(LONG))
    sent, _, received = ask(LONG, stream=True, raw_debug=True)
    assert LONG in sent and LONG in received


def test_the_environment_asks_for_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "portico.client")
    monkeypatch.setenv("VLLM_DEBUG", "1")
    assert len(ask()) == 3
    monkeypatch.setenv("VLLM_DEBUG", "0")
    assert len(ask()) == 1


def test_a_logger_of_the_callers(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    own = logging.getLogger("portico.client.of.mine")
    handlers = list(own.handlers)
    assert ask(logger=own, debug=True) == [], "its level is its owner's affair"
    caplog.set_level(logging.DEBUG, own.name)
    assert len(ask(logger=own, debug=True)) == 3 and own.handlers == handlers


def test_debug_is_seen_where_nobody_set_up_logging(
    upstream: ScriptedUpstream, quiet_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet_logger.handlers, quiet_logger.propagate = [], False
    quiet_logger.setLevel(logging.NOTSET)
    for _ in range(2):
        with Client(upstream.url, debug=True) as client:
            client.chat("Hello", model="m")
    told = capsys.readouterr().err
    assert told.count(" POST ") == 6, "each once, though two clients asked for it"


# ---- what failed


def test_what_failed_is_told(
    ask: Ask, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG, "portico.client")
    events = tmp_path / "logs" / "events.jsonl"
    upstream.script(CHAT, reply(503, {"error": {"message": "busy"}}))
    with pytest.raises(ServerFailed):
        ask(events=events)
    upstream.script(CHAT, (RESET,))
    with pytest.raises(CutOff):
        ask(events=events)
    upstream.script(CHAT, (*chat_stream("one")[:3], RESET))
    with pytest.raises(CutOff):
        ask(events=events, stream=True)
    with pytest.raises(NotRunning):
        ask(events=events, url="http://127.0.0.1:1")
    told = [line for line in lines(events) if line["event"] == "response"]
    assert told[0]["status"] == 503 and told[0]["body"] == {"error": {"message": "busy"}}
    assert told[1]["error"] == "CutOff" and told[2]["ended"] == "cut" and told[3]["error"] == "NotRunning"


# ---- the file


def test_a_line_a_request_and_a_response(ask: Ask, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    upstream.script(CHAT, reply(200, chat_result(LONG), headers={"x-request-id": "r7"}))
    ask(LONG, events=events)
    request, response = lines(events)
    assert (request["event"], request["method"]) == ("request", "POST")
    assert request["url"] == upstream.url + "/chat/completions"
    assert request["body"]["model"] == "m" and request["body"]["messages"][0]["content"].startswith(
        LONG[:180]
    )
    assert request["body"]["messages"][0]["content"].endswith("characters)")
    assert (response["event"], response["status"]) == ("response", 200)
    assert response["number"] == request["number"] and response["process"] == os.getpid()
    assert response["request_id"] == "r7" and response["finish_reason"] == "stop"
    assert response["usage"]["completion_tokens"] == 3 and response["seconds"] > 0
    ask("Hello", events=str(events), stream=True, raw_debug=True)
    assert len(lines(events)) == 4, "it is added to"
    last = lines(events)[-1]
    assert (last["ended"], last["usage"]["prompt_tokens"], last["finish_reason"]) == ("whole", 7, "stop")
    assert last["chunks"] > 0 and last["bytes"] > 100 and 0 < last["first_byte"] <= last["seconds"]


def test_a_stream_that_is_left(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, (*chat_stream("one")[:3], HOLD))
    events = tmp_path / "events.jsonl"
    with Client(upstream.url, events=events) as client, client.stream("Hello", model="m") as answer:
        next(iter(answer))
    assert lines(events)[-1]["ended"] == "left" and len(lines(events)) == 2


def test_one_that_is_cancelled(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, (HOLD,))
    events = tmp_path / "events.jsonl"

    async def run() -> None:
        async with AsyncClient(upstream.url, events=events) as client:
            task = asyncio.create_task(client.chat("Hello", model="m"))
            await asyncio.to_thread(upstream.wait_for_request, CHAT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert lines(events)[-1]["error"] == "CancelledError"


def test_many_at_once_write_whole_lines(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"

    async def run() -> None:
        one, other = AsyncClient(upstream.url, events=events), AsyncClient(upstream.url, events=events)
        async with one, other:
            chats = [client.chat(LONG, model="m") for client in (one, other) for _ in range(20)]
            await asyncio.gather(*chats)

    asyncio.run(run())
    found = lines(events)
    assert sorted(line["event"] for line in found) == ["request"] * 40 + ["response"] * 40
    assert len({line["number"] for line in found}) == 40


# ---- secrets


def test_keys_are_never_told(
    ask: Ask, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nor where a server repeats them, or they stand in a URL, a body, or a header of the caller's own."""
    caplog.set_level(logging.DEBUG, "portico.client")
    events = tmp_path / "events.jsonl"
    url = upstream.url.replace("http://", "http://user:hunter22@")
    headers = {"X-Api-Key": "other-secret", "Authorization": "Bearer third-secret", "x-team": "red"}
    told: list[str] = []
    for stream in (False, True):
        said = f"{KEY} other-secret third-secret red"
        upstream.script(CHAT, reply(200, chat_result(said)) if not stream else chat_stream(said))
        told += ask(
            f"My key is {KEY}",
            url=url,
            api_key=KEY,
            headers=headers,
            raw_debug=True,
            events=events,
            stream=stream,
        )
    upstream.script(CHAT, reply(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}))
    with pytest.raises(Exception, match="refuses the key"):
        ask(url=url, api_key=KEY, headers=headers, raw_debug=True, events=events)
    told += [record.getMessage() for record in caplog.records] + [events.read_text(encoding="utf-8")]
    whole = "\n".join(told)
    assert "red" in whole and "My key is ***" in whole
    for secret in (KEY, "hunter22", "other-secret", "third-secret"):
        assert secret not in whole


def test_fields_of_a_body_that_are_secrets(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    with Client(upstream.url, events=events) as client:
        client.chat(
            "Hello",
            model="m",
            max_tokens=9,
            stop_token_ids=[4],
            extra={"api_key": "x" * 9, "auth_token": "y" * 9},
        )
    body = next(line["body"] for line in lines(events) if line["method"] == "POST")
    assert (body["api_key"], body["auth_token"]) == ("***", "***")
    assert (body["max_tokens"], body["stop_token_ids"]) == (9, [4])


@pytest.mark.parametrize(
    "text", ["http://user:pass@host:8000/v1", "user:pass@host:8000", "http://user@host:8000"]
)
def test_a_password_in_an_address_is_left_out(text: str) -> None:
    (server,) = candidates(text, None, {})
    assert server.url == "http://host:8000"
    with pytest.raises(ConfigError) as caught:
        candidates(text.replace("8000", "port"), None, {})
    assert "pass" not in str(caught.value)
