"""Errors in OpenAI's form, written for callers and read from engines."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from portico.errors import (
    Busy,
    ContextLengthExceeded,
    ModelNotFound,
    PorticoError,
    RequestError,
    UpstreamFailed,
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}

# How engines say that a prompt does not fit. The first that matches gives the numbers it names; newer vLLM
# counts no further than it must, so its "at least" makes `tokens` a lower bound.
_OVERFLOWS = tuple(
    re.compile(sentence, re.IGNORECASE | re.DOTALL)
    for sentence in (
        # vLLM, OpenAI: ... you requested 5000 tokens (4900 in the messages, 100 in the completion)
        r"maximum context length is (?P<limit>\d+) tokens.*?\((?P<tokens>\d+) in ",
        # vLLM: ... you requested 100 output tokens and your prompt contains at least 4000 input tokens
        r"maximum context length is (?P<limit>\d+) tokens.*?your (?:prompt|request) (?:contains|has) "
        r"(?:at least )?(?P<tokens>\d+) input tokens",
        # OpenAI: ... your messages resulted in 5000 tokens; older vLLM: ... you requested 5000 tokens
        r"maximum context length is (?P<limit>\d+) tokens.*?(?:resulted in|requested|prompt is) "
        r"(?P<tokens>\d+) (?:tokens|in )",
        # vLLM: You passed 4097 input tokens and requested 0 output tokens. However, ...
        r"passed (?P<tokens>\d+) input tokens.*?context length is only (?P<limit>\d+)",
        # vLLM's engine
        r"prompt \(length (?P<tokens>\d+)\) is longer than the maximum model length of (?P<limit>\d+)",
        # llama.cpp
        r"request \((?P<tokens>\d+) tokens\) exceeds the available context size \((?P<limit>\d+)",
        # another Portico
        r"prompt has (?P<tokens>\d+) tokens, but the model's context is (?P<limit>\d+) tokens",
        # TGI: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 200 ...
        r"must be <= (?P<limit>\d+)\. Given: (?P<tokens>\d+) `inputs` tokens",
        r"`inputs` must have less than (?P<limit>\d+) tokens\. Given: (?P<tokens>\d+)",
        r"maximum (?:context|model) length (?:is|of) (?P<limit>\d+)",
        r"exceeds? the (?:available |maximum |model's )?context (?:size|length|window)",
    )
)
_TOO_LONG = re.compile(
    r"input (?:\((?P<tokens>\d+) tokens\) )?is too large to process"
    r"(?:.*?current batch size: (?P<limit>\d+))?",
    re.IGNORECASE | re.DOTALL,
)
"""llama.cpp's words for a text to embed that does not fit, with which it takes the fault upon itself: 500."""
_CODES = {
    400: RequestError.code,
    422: RequestError.code,
    429: "rate_limit_exceeded",
    503: Busy.code,
}
"""Codes for engines that give none, or only the status once more."""

_TGI_STATUS = {"validation": 422, "overloaded": 429}
"""What TGI's words for the kind of an error mean: in a stream they come after a 200."""

_OVERFLOW_CODES = ("context_length_exceeded", "exceed_context_size_error")


class _Told(msgspec.Struct):
    """An error as engines put it: OpenAI's fields, and llama.cpp's numbers."""

    message: Any = None
    type: Any = None
    param: Any = None
    code: Any = None
    n_prompt_tokens: Any = None
    n_ctx: Any = None


class _Envelope(msgspec.Struct):
    """Where the error stands: `error` (an object, or only a text), the top level (older vLLM), or FastAPI's
    `detail`."""

    error: Any = None
    object: Any = None
    message: Any = None
    type: Any = None
    param: Any = None
    code: Any = None
    detail: Any = None
    error_type: Any = None  # TGI, beside an error that is only a text


_envelope = msgspec.json.Decoder(_Envelope)


def error_status(error: PorticoError) -> int:
    """A queue that is full is 429 here: clients come back when Retry-After says so. Any other error has its own."""
    return 429 if isinstance(error, Busy) else error.status


def error_body(error: PorticoError) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`. It goes with `error_status`."""
    status = error_status(error)
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    told = {"message": _sentence(error), "type": kind, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": told})


def _sentence(error: PorticoError) -> str:
    text = error.message
    if isinstance(error, ModelNotFound):
        text = text.replace(
            f"model {error.model!r} not found", f"The model {error.model!r} does not exist", 1
        )
    # Half a surrogate pair, quoted from a request, must not make writing its error fail.
    return text.encode("utf-8", "replace").decode()


def read_error(status: int, body: bytes) -> PorticoError:
    """What an engine's answer of this status says. A prompt that does not fit is ContextLengthExceeded,
    with both numbers where they can be read; everything else is UpstreamFailed with the engine's own
    status, message, code and param."""
    told = told_error(body, status)
    if told is not None:
        return told
    text = body[:500].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        text = ""  # a page that some proxy before the engine wrote for a browser
    return UpstreamFailed(text or f"The engine answered with status {status}.", status=status)


def told_error(body: bytes, status: int | None = None) -> PorticoError | None:
    """The error in a body or in a chunk of a stream, where no status tells; None if there is none."""
    try:
        envelope = _envelope.decode(body)
    except (ValueError, RecursionError):  # not JSON, or not an object
        return None
    told = _told(envelope)
    if told is None:
        return None
    message = told.message if isinstance(told.message, str) and told.message else "The engine failed."
    param = told.param if isinstance(told.param, str) else None
    if status is None:
        status = told.code if isinstance(told.code, int) and 400 <= told.code <= 599 else 500
    if isinstance(envelope.error_type, str):
        status = _TGI_STATUS.get(envelope.error_type, status)
    if overflow := _overflow(told, message, status):
        return overflow
    code = told.code if isinstance(told.code, str) and told.code else _CODES.get(status)
    return UpstreamFailed(message, status=status, code=code, param=param)


def _told(envelope: _Envelope) -> _Told | None:
    error = envelope.error
    if isinstance(error, dict):
        return msgspec.convert(error, _Told)
    if isinstance(error, str):
        return _Told(message=error)
    if isinstance(envelope.message, str) and (envelope.object == "error" or envelope.code is not None):
        return _Told(message=envelope.message, type=envelope.type, param=envelope.param, code=envelope.code)
    if envelope.detail is not None:
        detail = envelope.detail
        return _Told(message=detail if isinstance(detail, str) else msgspec.json.encode(detail).decode())
    return None


def _overflow(told: _Told, message: str, status: int) -> ContextLengthExceeded | None:
    named = told.code in _OVERFLOW_CODES or told.type in _OVERFLOW_CODES
    found = next((match for pattern in _OVERFLOWS if (match := pattern.search(message))), None)
    if (too_long := _TOO_LONG.search(message)) is not None:
        found, named = too_long, True
    # By its words alone only where the caller is at fault: a 5xx that mentions the context is a failure.
    if not named and (found is None or status not in (400, 413, 422)):
        return None
    numbers = found.groupdict() if found else {}
    tokens = told.n_prompt_tokens if isinstance(told.n_prompt_tokens, int) else numbers.get("tokens")
    limit = told.n_ctx if isinstance(told.n_ctx, int) else numbers.get("limit")
    return ContextLengthExceeded(
        tokens=int(tokens) if tokens is not None else None,
        limit=int(limit) if limit is not None else None,
        # vLLM names its own `input_tokens` here, which no caller sent.
        param="input"
        if too_long
        else told.param
        if told.param in ("messages", "prompt", "input")
        else "messages",
    )
