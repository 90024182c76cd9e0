"""Log probabilities in both of OpenAI's shapes: a chat's list of tokens, a completion's columns."""

from __future__ import annotations

from math import nan

import msgspec
from msgspec import UNSET, Struct, UnsetType

from portico.messages import Logprob

NUMBERED = "token_id:"
"""What vLLM puts before a token's number, where a caller asks for numbers (return_tokens_as_token_ids)."""


class Token(Struct, gc=False):
    token: str
    logprob: float | None
    bytes: list[int] | None = None
    id: int | UnsetType | None = UNSET
    """llama.cpp's."""


class TokenWithTop(Struct, gc=False):
    token: str
    logprob: float | None
    bytes: list[int] | None = None
    top_logprobs: list[Token] | None = None
    id: int | UnsetType | None = UNSET


class Content(Struct, gc=False):
    """A chat's."""

    content: list[TokenWithTop] | None = None
    refusal: None = None


class Columns(Struct, gc=False):
    """A completion's; some engines (llama.cpp) send a chat's shape here, so both are read."""

    text_offset: list[int] | None = None
    token_logprobs: list[float | None] | None = None
    tokens: list[str] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    content: list[TokenWithTop] | None = None


class WrittenColumns(Struct, gc=False):
    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float | None]] | None


def _number(logprob: float | None) -> float:
    return nan if logprob is None else logprob


def read(content: list[TokenWithTop] | None) -> tuple[Logprob, ...]:
    return tuple(
        Logprob(
            token=it.token,
            logprob=_number(it.logprob),
            bytes=None if it.bytes is None else tuple(it.bytes),
            id=None if it.id is UNSET else it.id,
            top=tuple(
                Logprob(
                    token=top.token,
                    logprob=_number(top.logprob),
                    bytes=None if top.bytes is None else tuple(top.bytes),
                    id=None if top.id is UNSET else top.id,
                )
                for top in it.top_logprobs or ()
            ),
        )
        for it in content or ()
    )


def of_text(found: tuple[Logprob, ...], text: str) -> tuple[Logprob, ...]:
    """Without the token that ended the turn, which vLLM tells too: it is no part of the text."""
    if found and "".join(it.token for it in found[:-1]) == text != "":
        return found[:-1]
    return found


def numbered(found: tuple[Logprob, ...]) -> tuple[Logprob, ...]:
    """Tokens by their numbers instead of their texts, as vLLM writes them; two tokens may have the same text."""
    return tuple(
        msgspec.structs.replace(
            it,
            token=it.token if it.id is None else f"{NUMBERED}{it.id}",
            bytes=it.bytes if it.id is None else None,
            top=numbered(it.top),
        )
        for it in found
    )


def read_columns(columns: Columns) -> tuple[Logprob, ...]:
    if columns.content is not None:
        return read(columns.content)
    tokens = columns.tokens or []
    chosen: list[float | None] = (columns.token_logprobs or []) + [None] * len(tokens)
    tops: list[dict[str, float | None] | None] = (columns.top_logprobs or []) + [None] * len(tokens)
    return tuple(
        Logprob(
            token=token,
            logprob=_number(logprob),
            top=tuple(Logprob(token=other, logprob=_number(its)) for other, its in (top or {}).items()),
        )
        for token, logprob, top in zip(tokens, chosen, tops, strict=False)
    )


def write(logprobs: tuple[Logprob, ...]) -> Content | None:
    """nan becomes null: msgspec writes it so."""
    if not logprobs:
        return None
    return Content(
        content=[
            TokenWithTop(
                token=it.token,
                logprob=it.logprob,
                bytes=None if it.bytes is None else list(it.bytes),
                top_logprobs=[
                    Token(
                        token=top.token,
                        logprob=top.logprob,
                        bytes=None if top.bytes is None else list(top.bytes),
                    )
                    for top in it.top
                ],
            )
            for it in logprobs
        ]
    )


def write_columns(logprobs: tuple[Logprob, ...], offset: int) -> WrittenColumns | None:
    """`offset`: characters of the choice's text before the first of these tokens."""
    if not logprobs:
        return None
    offsets = []
    for it in logprobs:
        offsets.append(offset)
        offset += len(it.token)
    tops: list[dict[str, float | None]] = [{top.token: top.logprob for top in it.top} for it in logprobs]
    return WrittenColumns(
        text_offset=offsets,
        token_logprobs=[it.logprob for it in logprobs],
        tokens=[it.token for it in logprobs],
        top_logprobs=tops if any(tops) else None,
    )
