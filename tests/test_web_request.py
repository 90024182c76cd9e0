"""An answer's head: the same headers on every server, and none that a value smuggles in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from portico.web import Account, Request


class Sent:
    """A server that has nothing but ASGI."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    async def receive(self) -> Mapping[str, Any]:
        return {"type": "http.disconnect"}

    def request(self) -> Request:
        request = Request({"method": "GET", "path": "/", "headers": []}, self.receive, self.send)
        request.tag = "tag-1"
        return request


def marks(account: Account) -> tuple[bytes, int]:
    return b"x-model: %b\r\nx-attempts: 1\r\n" % account.model.encode(), 2


async def test_every_header_is_given_to_a_server_that_has_only_asgi() -> None:
    sent = Sent()
    request = sent.request()
    request.extra.append((b"vary", b"Origin"))
    request.account.model, request.marks = "a: b", marks
    await request.answer(200, b"{}", b"application/json", ((b"retry-after", b"1"),))
    start, body = sent.messages
    assert sorted(start["headers"]) == [
        (b"content-length", b"2"),
        (b"content-type", b"application/json"),
        (b"retry-after", b"1"),
        (b"vary", b"Origin"),
        (b"x-attempts", b"1"),
        (b"x-model", b"a: b"),
        (b"x-request-id", b"tag-1"),
    ]
    assert (start["status"], body["body"]) == (200, b"{}")


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\rb"])
@pytest.mark.parametrize("where", ["extra", "headers", "marks", "content_type"])
async def test_a_line_break_in_a_value_is_refused(value: str, where: str) -> None:
    sent = Sent()
    request = sent.request()
    if where == "extra":
        request.extra.append((b"x-name", value.encode()))
    if where == "marks":
        request.account.model, request.marks = value, marks
    headers = ((b"x-name", value.encode()),) if where == "headers" else ()
    content_type = value.encode() if where == "content_type" else b"text/plain"
    with pytest.raises(RuntimeError, match="line break"):
        await request.answer(200, b"", content_type, headers)
    with pytest.raises(RuntimeError, match="line break"):
        await request.begin(content_type, headers)
    assert not sent.messages
