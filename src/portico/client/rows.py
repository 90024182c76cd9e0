"""The rows of a batch: OpenAI's batch format, or whatever a chat takes, one after the other.
(Format: platform.openai.com/docs/guides/batch.)"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from portico.errors import InvalidRequest

PATHS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/embeddings": "input"}
"""Where a row may go, and the field that its body cannot do without."""
_SHOWN = 20
"""Further bad lines that are named after the first."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A request. `line` is where it stands in its file, from 1."""

    custom_id: str
    url: str
    body: dict[str, Any]
    line: int = 0
    as_json: bool = False
    """Its answer is a JSON object around the text that was asked for."""

    @property
    def digest(self) -> str:
        """Of what is asked: a row whose request was changed since is asked again."""
        told = msgspec.json.encode([self.url, self.body], order="deterministic")
        return hashlib.sha256(told).hexdigest()[:32]

    @property
    def beginning(self) -> bytes:
        """What the server's prefix cache can share, in the order in which a prompt is made of it."""
        said = self.body.get(PATHS[self.url]) or ""
        return msgspec.json.encode(
            [self.url, self.body.get("model"), self.body.get("tools"), said], order="deterministic"
        )


class _Sent(msgspec.Struct):
    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"


def read_rows(lines: Iterable[bytes], *, name: str = "batch", model: str | None = None) -> list[Row]:
    """All rows of a file. `model`: the one to ask, whatever they name. Raises InvalidRequest that names every line which
    cannot be read, or which has another's id."""
    rows: list[Row] = []
    wrong: list[tuple[int, str]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip(b" \t\r\n\xef\xbb\xbf"):
            continue
        try:
            sent = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"), type=_Sent)
            _check(sent, seen)
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidRequest) as error:
            wrong.append((number, str(error)))
            continue
        seen[sent.custom_id] = number
        rows.append(_row(sent, number, model))
    _raise(name, wrong)
    return rows


def given_row(given: Mapping[str, Any], number: int, seen: dict[str, int], model: str | None) -> Row:
    """A row that a program gives. Raises InvalidRequest."""
    try:
        sent = msgspec.convert(dict(given), type=_Sent)
        _check(sent, seen)
    except (msgspec.ValidationError, InvalidRequest) as error:
        raise InvalidRequest(f"request {number}: {error}", param="requests") from error
    seen[sent.custom_id] = number
    return _row(sent, number, model)


def _row(sent: _Sent, number: int, model: str | None) -> Row:
    body = sent.body if model is None else {**sent.body, "model": model}
    return Row(custom_id=sent.custom_id, url=sent.url, body=body, line=number)


def _check(sent: _Sent, seen: Mapping[str, int]) -> None:
    if sent.url not in PATHS:
        raise InvalidRequest(f"url {sent.url!r} is none of {', '.join(PATHS)}")
    if sent.method != "POST":
        raise InvalidRequest(f"method {sent.method!r} is not POST")
    if not sent.body.get(PATHS[sent.url]):
        raise InvalidRequest(f"the body has no `{PATHS[sent.url]}`")
    if sent.body.get("stream"):
        raise InvalidRequest("a row of a batch is not streamed: leave `stream` out")
    if sent.custom_id in seen:
        raise InvalidRequest(f"custom_id {sent.custom_id!r} stands in line {seen[sent.custom_id]} already")


def _raise(name: str, wrong: list[tuple[int, str]]) -> None:
    if not wrong:
        return
    (number, why), rest = wrong[0], [str(each) for each, _ in wrong[1:]]
    more = f" (and {len(rest) - _SHOWN} more)" if len(rest) > _SHOWN else ""
    also = f"; wrong too: line {', '.join(rest[:_SHOWN])}{more}" if rest else ""
    raise InvalidRequest(f"{name}:{number}: {why}{also}")
