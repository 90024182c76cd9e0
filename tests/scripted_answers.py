"""Answers for the scripted upstream: HTTP as bytes, well-formed or with one thing wrong."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scripted_upstream import Answer, Received, ScriptedUpstream

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Error",
    503: "Busy",
}


def reply(
    status: int,
    body: Any,
    *,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Answer:
    """A whole answer; `body` is bytes, or JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ncontent-type: {content_type}\r\n{extra}"
        f"content-length: {len(payload)}\r\n\r\n"
    )
    return (head.encode() + payload,)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def framed(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


END = framed(b"")


def event(payload: Any) -> bytes:
    """One server-sent event; text is kept as UTF-8, so that it can be cut in the middle of a character."""
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def chunk(delta: dict[str, Any] | None, *, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chat chunk; `delta=None` is one without choices, as the usage chunk is."""
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    )
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "mock-model",
        "choices": choices,
        **fields,
    }


def chat_events(
    *deltas: dict[str, Any] | str, finish: str = "stop", usage: dict[str, Any] | None = USAGE
) -> list[bytes]:
    """The events of a streamed chat: the role, the deltas (a text is one of content), the end, the usage."""
    events = [event(chunk({"role": "assistant", "content": ""}))]
    events += [event(chunk({"content": delta} if isinstance(delta, str) else delta)) for delta in deltas]
    events.append(event(chunk({}, finish=finish)))
    if usage is not None:
        events.append(event(chunk(None, usage=usage)))
    return events


def stream(events: Sequence[bytes], *, done: bool = True, end: bool = True) -> Answer:
    """Streams events, each in a packet of its own."""
    tail = [framed(event("[DONE]"))] if done else []
    return (STREAM_HEAD, *map(framed, events), *tail, *([END] if end else []))


def chat_stream(*deltas: dict[str, Any] | str, **options: Any) -> Answer:
    return stream(chat_events(*deltas, **options))


def chat_result(
    text: str | None = "Hello there",
    *,
    finish: str = "stop",
    usage: dict[str, Any] | None = USAGE,
    **message: Any,
) -> dict[str, Any]:
    """A whole chat completion."""
    body: dict[str, Any] = {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1,
        "model": "mock-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
    }
    return body if usage is None else body | {"usage": usage}


def either(streamed: Answer, whole: Answer) -> Callable[[Received], Answer]:
    """The one that fits the request: a server may stream from an engine what its caller wants whole."""
    return lambda request: streamed if request.json.get("stream") else whole


def completion_chunk(text: str, *, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
    return {
        "id": "cmpl-up",
        "object": "text_completion",
        "created": 1,
        "model": "mock-model",
        "choices": [choice],
    }


def completion_stream(*texts: str, finish: str = "stop", usage: dict[str, Any] | None = USAGE) -> Answer:
    events = [event(completion_chunk(text)) for text in texts] + [event(completion_chunk("", finish=finish))]
    if usage is not None:
        events.append(event(completion_chunk("") | {"choices": [], "usage": usage}))
    return stream(events)


def vector(text: str, width: int = 4) -> list[float]:
    """A vector that depends on the text and is not of length 1."""
    return [float(sum(text.encode()) % 97 + place) for place in range(1, width + 1)]


def embeddings(request: dict[str, Any]) -> dict[str, Any]:
    given = request["input"]
    inputs = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
    rows = []
    for place, each in enumerate(inputs):
        values: Any = vector(str(each), request.get("dimensions") or 4)
        if request.get("encoding_format") == "base64":
            values = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        rows.append({"object": "embedding", "index": place, "embedding": values})
    usage = {"prompt_tokens": 5 * len(inputs), "total_tokens": 5 * len(inputs)}
    return {"object": "list", "data": rows, "model": "mock-model", "usage": usage}


def usual_answer(upstream: ScriptedUpstream, request: Received) -> Answer:
    """What a well-behaved server says where a test has scripted nothing."""
    path, body = request.path.removeprefix("/v1"), request.json if request.body else {}
    if path == "/models":
        card = {"id": upstream.model, "object": "model", "created": 1, "owned_by": "vllm"}
        return reply(200, {"object": "list", "data": [card | {"max_model_len": upstream.max_model_len}]})
    if path == "/chat/completions":
        return chat_stream("Hello", " there") if body.get("stream") else reply(200, chat_result())
    if path == "/completions":
        if body.get("stream"):
            return completion_stream("Hello", " there")
        whole = completion_chunk("Hello there", finish="stop") | {"usage": USAGE}
        return reply(200, whole)
    if path == "/embeddings":
        return reply(200, embeddings(body))
    if path == "/tokenize":
        text = body.get("prompt", body.get("content", "")) or json.dumps(body.get("messages"))
        tokens = [ord(char) for char in text]
        limit = upstream.max_model_len
        return reply(200, {"tokens": tokens, "count": len(tokens), "max_model_len": limit})
    if path == "/detokenize":
        text = "".join(map(chr, body.get("tokens", ())))
        return reply(200, {"prompt": text, "content": text})
    if path in ("/health", "/version"):
        return reply(200, {"status": "ok", "version": "0.0.0"})
    return reply(404, {"detail": "Not Found"})
