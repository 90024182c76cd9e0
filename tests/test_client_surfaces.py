"""With an event loop and without: the same methods, arguments, results and words. Whoever adds to one adds to the other."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any

import pytest

from portico.client import flows
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.conversation import AsyncConversation, Conversation
from portico.client.drive_async import AsyncStream, Sendings, _granted
from portico.client.drive_sync import Senders, SyncStream
from portico.client.drive_sync import _granted as _granted_sync
from portico.client.streaming import AsyncEventStream, EventStream
from portico.client.wishes import Wish

PAIRS = [
    (Client, AsyncClient),
    (Conversation, AsyncConversation),
    (EventStream, AsyncEventStream),
    (Senders, Sendings),
    (SyncStream, AsyncStream),
]
TWINS = {
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
}
INSIDE = {"__init__", "__module__", "__doc__", "__dict__", "__weakref__", "__slots__", "__firstlineno__"}
AWAITED = re.compile(r"\b(Async)(?=[A-Z])|\bawait |\basync |\basynchronous ")
WORDS = {
    "AsyncIterator": "Iterator",
    "AsyncGenerator": "Generator",
    "AsyncClient": "Client",
    "AsyncEventStream": "EventStream",
    "AsyncConversation": "Conversation",
    "AsyncStream": "SyncStream",
    "Sending": "SyncSending",
    "Sendings": "Senders",
}


def members(kind: type) -> dict[str, Any]:
    """What its users see."""
    found = {
        name: member
        for name, member in vars(kind).items()
        if not name.startswith("_") or name in TWINS.values() or name in TWINS
    }
    return {name: member for name, member in found.items() if name not in INSIDE}


def plain(text: str) -> str:
    """An annotation, or a text about it, without its async words."""
    for word, other in sorted(WORDS.items(), key=lambda item: -len(item[0])):
        text = re.sub(rf"\b{word}\b", other, text)
    return text


def signature(member: Any) -> list[str]:
    if isinstance(member, property):
        return ["self"]
    function = getattr(member, "__func__", member)
    return [plain(str(each)) for each in inspect.signature(function).parameters.values()]


def returned(member: Any) -> str:
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    told = plain(str(function.__annotations__.get("return", "")))
    # What is generated without an event loop has a type for what is sent in and what comes back at the end.
    return re.sub(r"(?:, None)+\]$", "]", told) if told.startswith("Generator") else told


def words(member: Any) -> str:
    """The docstring; one of both may leave it to the other."""
    return " ".join((getattr(member, "__doc__", "") or "").split())


@pytest.mark.parametrize(("sync", "other"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_have_the_same_members(sync: type, other: type) -> None:
    ours = {TWINS.get(name, name) for name in members(sync)}
    assert ours == set(members(other))


@pytest.mark.parametrize(("sync", "other"), PAIRS, ids=lambda kind: kind.__name__)
def test_they_take_and_give_the_same(sync: type, other: type) -> None:
    theirs = members(other)
    for name, member in members(sync).items():
        twin = theirs[TWINS.get(name, name)]
        assert signature(member) == signature(twin), name
        assert returned(member) == returned(twin), name


@pytest.mark.parametrize(("sync", "other"), PAIRS[:2], ids=lambda kind: kind.__name__)
def test_they_are_made_alike(sync: type, other: type) -> None:
    theirs = [each.replace("httpx2.AsyncClient", "httpx2.Client") for each in signature(other.__init__)]  # type: ignore[misc]
    assert signature(sync.__init__) == theirs  # type: ignore[misc]


@pytest.mark.parametrize(("sync", "other"), PAIRS[:2], ids=lambda kind: kind.__name__)
def test_they_say_the_same(sync: type, other: type) -> None:
    """Where one has words for a method, so has the other, and the same ones."""
    for name, member in members(sync).items():
        twin = members(other)[TWINS.get(name, name)]
        told, again = words(member), words(twin)
        if told and again:
            assert AWAITED.sub("", again) == AWAITED.sub("", told), name


def test_a_method_that_waits_is_awaited() -> None:
    """Nothing of AsyncClient blocks the loop: a call is a coroutine, a stream or a generator."""
    for name, member in members(AsyncClient).items():
        function = inspect.unwrap(member)
        waits = (
            inspect.iscoroutinefunction(function)
            or inspect.isasyncgenfunction(function)
            or "AsyncGenerator" in str(getattr(function, "__annotations__", {}).get("return", ""))
        )
        assert waits, name


def test_both_drivers_grant_every_wish() -> None:
    for wish in typing.get_args(Wish):
        for driver in (_granted, _granted_sync):
            assert f"case {wish.__name__}(" in inspect.getsource(driver), (wish, driver.__module__)


def test_what_is_decided_is_decided_once() -> None:
    """Neither client knows a route, a status or a field: these are of the flows."""
    for kind in (Client, AsyncClient):
        source = inspect.getsource(kind)
        assert "/v1/" not in source.replace("/v1,", "") and "status" not in source
    assert "/v1/models" in inspect.getsource(flows)
