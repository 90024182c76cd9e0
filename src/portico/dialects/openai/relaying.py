"""Requests that are passed on as they are: looked at and edited from outside, never taken apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from portico.dialects.body import decode, fields, refuse_duplicates
from portico.dialects.openai import wire
from portico.errors import InvalidRequest

_peek = msgspec.json.Decoder(wire.Peek)
_raw = msgspec.Raw
_encode = msgspec.json.Encoder().encode
_USAGE_ASKED = _raw(b'{"include_usage":true}')


def peek(body: bytes) -> wire.Peek:
    """What routing needs of a chat's or a completion's body. Raises InvalidRequest for JSON that is none
    and for a known field of the wrong type; what is inside the messages is left to the engine."""
    glance = decode(_peek, body)
    # Two models in one body: we would route by one, and an engine could answer with the other.
    if body.count(b'"model"') > 1:
        refuse_duplicates(body)
    if glance.logprobs is not True and glance.messages is not msgspec.UNSET and glance.top_logprobs:
        raise InvalidRequest("Invalid 'top_logprobs': logprobs must be true for it.", param="top_logprobs")
    return glance


def relay_body(
    body: bytes,
    *,
    model: str,
    include_usage: bool,
    drop: Collection[str] = (),
    changes: Mapping[str, Any] = {},
    glance: wire.Peek | None = None,
) -> bytes:
    """`body` for an engine that calls the model `model`.

    include_usage: a streamed reply shall end with its usage. drop: top-level names to leave out.
    changes: top-level names with new values. glance: what `peek` gave for this body, else it looks again.
    The other fields keep their bytes, and a body in which nothing changes is returned itself.
    """
    if glance is None:
        glance = decode(_peek, body)
    asks = glance.include_usage or not (include_usage and glance.stream)
    if glance.model == model and asks and not drop and not changes:
        return body
    edited = fields(body)
    before = edited.copy()
    for name in drop:
        edited.pop(name, None)
    if glance.model != model:
        edited["model"] = _raw(_encode(model))
    for name, item in changes.items():
        edited[name] = _raw(_encode(item))
    if not asks:
        edited["stream_options"] = _with_usage(edited.get("stream_options"))
    return body if edited == before else _encode(edited)


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    """stream_options with include_usage, and with what else the caller put there."""
    if options is None:
        return _USAGE_ASKED
    sent = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None)
    return _raw(_encode({**(sent or {}), "include_usage": True}))
