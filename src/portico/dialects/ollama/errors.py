"""Errors in Ollama's form: one object with one text."""

from __future__ import annotations

import msgspec

from portico.errors import (
    ContextLengthExceeded,
    ModelNotFound,
    PorticoError,
    UpstreamFailed,
)


class _Told(msgspec.Struct):
    error: str


def error_body(error: PorticoError) -> bytes:
    """`{"error": "..."}`; clients read a text there and nothing else. It goes with `error.status`."""
    # Half a surrogate pair, quoted from a request, must not make writing its error fail.
    return msgspec.json.encode(_Told(error=sentence(error).encode("utf-8", "replace").decode()))


def sentence(error: PorticoError) -> str:
    """The error's message, in Ollama's words where clients look for them."""
    if isinstance(error, ContextLengthExceeded):
        words = "the input length exceeds the context length"
        if error.tokens and error.limit:
            return f"{words} ({error.tokens} tokens, the context is {error.limit})"
        return words
    return error.message


def read_error(status: int, body: bytes, *, model: str = "") -> PorticoError:
    """What a server's answer of this status says, for a client. A 404 about `model` is ModelNotFound."""
    try:
        message = msgspec.json.decode(body, type=_Told).error
    except (ValueError, RecursionError):
        message = body[:500].decode("utf-8", "replace").strip()
    if status == 404 and model and "not found" in message:
        return ModelNotFound(model=model)
    if status == 400 and "exceeds the context length" in message:
        return ContextLengthExceeded(tokens=None, limit=None)
    return UpstreamFailed(message or f"The server answered with status {status}.", status=status)
