"""Asking a server over plain HTTP, in both dialects, and reading what comes back without a client's help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2

Dialect = Literal["ollama", "openai"]
PATHS = {"ollama": "/api/chat", "openai": "/v1/chat/completions"}
HELLO = [{"role": "user", "content": "Hello!"}]


@dataclass
class Said:
    """What a chat gave back, in no dialect. `error` is the message of an error, wherever it stood."""

    status: int
    content_type: str
    headers: httpx2.Headers
    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish: str | None = None
    error: str | None = None
    code: str | None = None
    chunks: list[Any] = field(default_factory=list)
    ended: bool = False
    """The stream's own last word came: `done: true`, or `[DONE]`."""


def ask(url: str, dialect: Dialect, *, stream: bool, timeout: float = 20, **fields: Any) -> Said:
    """One chat with `mock-model`, read whole. A connection that breaks is an error of this function."""
    body = {"model": "mock-model", "messages": HELLO, "stream": stream} | fields
    with (
        httpx2.Client(trust_env=False, timeout=timeout) as client,
        client.stream("POST", url + PATHS[dialect], json=body) as reply,
    ):
        said = Said(reply.status_code, reply.headers.get("content-type", ""), reply.headers)
        raw = reply.read()
    if reply.status_code != 200:
        _read_error(said, json.loads(raw))
    elif dialect == "ollama":
        _read_ollama(said, [json.loads(line) for line in raw.splitlines()])
    elif stream:
        _read_openai_stream(said, list(payloads(raw)))
    else:
        _read_openai(said, json.loads(raw))
    return said


def payloads(raw: bytes) -> Iterator[str]:
    """The data of server-sent events; anything else in the body is an error of the server."""
    assert raw.endswith(b"\n\n") or not raw
    for part in raw.decode().split("\n\n")[:-1]:
        assert part.startswith("data: ") and "\n" not in part, part
        yield part.removeprefix("data: ")


def _read_error(said: Said, body: Any) -> None:
    error = body["error"]
    said.error = error if isinstance(error, str) else error["message"]
    said.code = None if isinstance(error, str) else error["code"]


def _read_ollama(said: Said, lines: list[Any]) -> None:
    said.chunks = lines
    for line in lines:
        if "error" in line:
            _read_error(said, line)
            continue
        message = line["message"]
        said.text += message["content"]
        said.reasoning += message.get("thinking", "")
        said.calls += [
            (call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls", ())
        ]
        if line["done"]:
            said.ended, said.finish = True, line["done_reason"]


def _read_openai(said: Said, body: Any) -> None:
    said.chunks, said.ended = [body], True
    choice = body["choices"][0]
    message = choice["message"]
    said.text, said.finish = message["content"] or "", choice["finish_reason"]
    said.reasoning = message.get("reasoning") or ""
    said.calls = [
        (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()
    ]


def _read_openai_stream(said: Said, events: list[str]) -> None:
    calls: dict[int, list[str]] = {}
    for event in events:
        if event == "[DONE]":
            said.ended = True
            continue
        chunk = json.loads(event)
        said.chunks.append(chunk)
        if "error" in chunk:
            _read_error(said, chunk)
            continue
        for choice in chunk["choices"]:
            delta = choice["delta"]
            said.text += delta.get("content") or ""
            said.reasoning += delta.get("reasoning") or ""
            said.finish = choice["finish_reason"] or said.finish
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                name_and_arguments = calls.setdefault(call["index"], ["", ""])
                name_and_arguments[0] += function.get("name") or ""
                name_and_arguments[1] += function.get("arguments") or ""
    said.calls = [(name, arguments) for name, arguments in calls.values()]
