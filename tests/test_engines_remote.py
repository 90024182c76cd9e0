"""Servers elsewhere: what they offer, what they can tokenize, and what happens when they are not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from portico.dialects import openai
from portico.engines import Facts, ModelSpec
from portico.engines.remote import Remote, RemoteModel, models, spelling
from portico.engines.supervisor import Supervisor
from portico.errors import Unsupported, UpstreamFailed, UpstreamUnreachable
from test_engines_llamacpp import HELLO, running, tiny

Answer = Callable[[str, Any], tuple[int, Any]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server whose answers are `answer(path, body) -> status, JSON`; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0]) if "content-length:" in head else 0
        body = await reader.readexactly(length)
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        sent = {**(json.loads(body) if body else {}), "authorization": headers.get("authorization")}
        status, found = answer(head.split()[1], sent)
        reply = json.dumps(found).encode()
        writer.write(
            b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(reply), reply)
        )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def vllm(path: str, body: Any) -> tuple[int, Any]:
    """vLLM's shapes, as its API server writes them."""
    if body["authorization"] not in (None, "bearer secret"):
        return 401, {"error": "Unauthorized"}
    match path:
        case "/v1/models":
            return 200, {"object": "list", "data": [{"id": "qwen", "max_model_len": 8192}, {"id": "lora"}]}
        case "/tokenize" if "messages" in body:
            return 200, {"count": 4, "max_model_len": 8192, "tokens": [1, 2, 3, 4]}
        case "/tokenize":
            tokens = [7] * body["add_special_tokens"] + [ord(letter) for letter in body["prompt"]]
            return 200, {"count": len(tokens), "max_model_len": 8192, "tokens": tokens}
        case "/detokenize":
            return 200, {"prompt": f"text of {body['tokens']}"}
    return 404, {"detail": "Not Found"}


def ollama(path: str, body: Any) -> tuple[int, Any]:
    """Has OpenAI's routes and nothing to tokenize with."""
    if path == "/v1/models":
        return 200, {"object": "list", "data": [{"id": "llama3.2:1b", "owned_by": "library"}]}
    return 404, {"error": "not found"}


def spec(url: str, name: str = "qwen", **more: Any) -> ModelSpec:
    return ModelSpec(name=name, engine="remote", source=url, **more)


async def test_vllm() -> None:
    async with serving(vllm) as url:
        for source in (url, f"{url}/", f"{url}/v1", f"{url}/v1/"):
            replica = await Remote().start(spec(source, api_key="secret"))
            assert (replica.context, replica.served_name, replica.pid) == (8192, "qwen", None)
            assert await replica.tokenize("ab") == (97, 98)
            assert await replica.tokenize("ab", special=True) == (7, 97, 98)
            assert await replica.detokenize([5, 6]) == "text of [5, 6]"
            assert await replica.count(HELLO) == 4
            assert await replica.render(HELLO) == "text of [1, 2, 3, 4]"
            assert replica.abilities.relays and replica.died() is None
            await Remote().stop(replica)


async def test_what_a_server_offers() -> None:
    async with serving(vllm) as url:
        assert await models(url, "secret") == (RemoteModel(id="qwen", context=8192), RemoteModel(id="lora"))
        with pytest.raises(UpstreamFailed, match="answered 401"):
            await models(url, "wrong")


async def test_a_server_without_tokens() -> None:
    async with serving(ollama) as url:
        replica = await Remote().start(spec(url, "llama3.2:1b", facts=Facts(context=2048)))
        assert replica.context == 2048
        for asking in (
            replica.tokenize("a"),
            replica.pieces("a"),
            replica.render(HELLO),
            replica.count(HELLO),
        ):
            with pytest.raises(Unsupported, match="has no route"):
                await asking
        await Remote().stop(replica)


@pytest.mark.parametrize("status", [404, 200, 500])
async def test_a_server_without_a_list_of_models(status: int) -> None:
    async with serving(lambda path, body: (status, "what?")) as url:
        replica = await Remote().start(spec(url))
        assert replica.context is None
        await Remote().stop(replica)
        with pytest.raises(UpstreamFailed):
            await models(url)


@pytest.mark.parametrize(
    ("url", "strict", "words"),
    [
        ("https://api.openai.com/v1", None, openai.OPENAI),
        ("https://eu.api.openai.com/v1", None, openai.OPENAI),
        ("https://api.openai.com/v1", False, openai.ANY),
        ("https://api.openai.com.example/v1", None, openai.ANY),
        ("http://gpu-box:8000/v1", None, openai.ANY),
        ("http://gpu-box:8000/v1", True, openai.STRICT),
    ],
)
def test_whose_words_a_server_knows(url: str, strict: bool | None, words: openai.Spelling) -> None:
    assert spelling(spec(url, strict=strict)) == words


async def test_a_route_that_is_not_there_is_not_asked_for_again() -> None:
    asked: list[str] = []

    def answer(path: str, body: Any) -> tuple[int, Any]:
        asked.append(path)
        return ollama(path, body)

    async with serving(answer) as url:
        replica = await Remote().start(spec(url))
        for _ in range(3):
            with pytest.raises(Unsupported, match="has no route"):
                await replica.count(HELLO)
        assert sorted(asked) == ["/apply-template", "/tokenize", "/v1/models"]
        await Remote().stop(replica)


async def test_nothing_answers_there() -> None:
    async with serving(vllm) as url:
        pass
    supervisor = Supervisor({"remote": Remote()})
    for _ in range(3):
        with pytest.raises(UpstreamUnreachable):
            await supervisor.ensure_ready(spec(url))
    await supervisor.stop()


async def test_llamacpp_elsewhere() -> None:
    """The embedded engine's own server, as if somebody else had started it."""
    async with running(tiny()) as engine:
        key = engine.key
        replica = await Remote().start(spec(engine.upstream.url, "tiny", api_key=key))
        assert replica.context == engine.context
        assert await replica.tokenize("hello") == await engine.tokenize("hello")
        assert await replica.pieces("hello") == await engine.pieces("hello")
        assert await replica.detokenize(await replica.tokenize("hello")) == "hello"
        assert await replica.render(HELLO) == await engine.render(HELLO)
        assert await replica.count(HELLO) == await engine.count(HELLO)
        await Remote().stop(replica)
