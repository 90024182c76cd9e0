"""Answers that are one of some texts, or match a pattern: put as the server that is asked can enforce it.

vLLM has words for it (structured_outputs); llama.cpp, also behind Portico, takes a grammar; others take a JSON schema, and
the answer is then JSON, whose text is what was asked for.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from portico.client import gbnf
from portico.client.abilities import Feature
from portico.errors import NotSupported
from portico.messages import ChatRequest, CompletionRequest, Format

Request = ChatRequest | CompletionRequest
_FIELD = "structured_outputs"
_KINDS: tuple[Feature, ...] = ("choice", "regex", "grammar")


def asked_for(request: Request) -> Feature | None:
    """What the server has to enforce, besides a JSON schema."""
    wanted = request.sampling.extra.get(_FIELD)
    if not isinstance(wanted, dict):
        return None
    return next((kind for kind in _KINDS if wanted.get(kind) is not None), None)


def put(request: Request, kind: Feature, via: str) -> Request:
    """The same request in the server's words. Raises NotSupported for a pattern that it has no words for."""
    if via in ("", _FIELD):
        return request
    rest = dict(request.sampling.extra)
    wanted = rest.pop(_FIELD)[kind]
    format = request.format
    if via == "grammar":
        try:
            rest["grammar"] = _grammar(kind, wanted)
        except ValueError as error:
            raise NotSupported(f"{wanted!r}: {error}.", feature=kind) from error
    else:
        format = Format(kind="schema", name="answer", schema=_schema(kind, wanted), strict=True)
    sampling = msgspec.structs.replace(request.sampling, extra=rest)
    return msgspec.structs.replace(request, sampling=sampling, format=format)


def _grammar(kind: Feature, wanted: Any) -> str:
    if kind == "choice":
        return gbnf.of_choice(wanted)
    return gbnf.of_regex(wanted) if kind == "regex" else str(wanted)


def _schema(kind: Feature, wanted: Any) -> dict[str, Any]:
    """OpenAI wants an object."""
    value = {"enum": list(wanted)} if kind == "choice" else {"pattern": f"^(?:{wanted})$"}
    return {
        "type": "object",
        "properties": {"value": {"type": "string", **value}},
        "required": ["value"],
        "additionalProperties": False,
    }


def taken(text: str) -> str:
    """The text that is the value of such an object; JSON that was cut off stays as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    value = found.get("value") if isinstance(found, dict) else None
    return value if isinstance(value, str) else text
