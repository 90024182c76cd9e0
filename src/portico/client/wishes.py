"""What a flow may wish for. A flow decides and does no I/O: it yields wishes and is sent what came of them, by a driver
that waits in the caller's way, with or without an event loop."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from portico.client.servers import Server

T = TypeVar("T")


class Send(NamedTuple):
    """One HTTP request. Gives an Answer, or a Stream where one was wished for and the status is 200. Raises NotRunning,
    NotTrusted, TimedOut, CutOff."""

    method: str
    path: str
    body: bytes = b""
    stream: bool = False
    deadline: float = math.inf
    """Of `time.monotonic`: when the whole reply must be there."""
    server: Server | None = None
    """One of those that stand in for the client's own; None: its own."""
    request_id: str = ""
    """What the server's log may call it (x-request-id), unless the caller's own headers say."""


class Delay(NamedTuple):
    """Nothing for so many seconds."""

    seconds: float


class Call(NamedTuple):
    """A function of the user's, which may be a coroutine function. Gives what it returns, raises what it raises."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]


class Together(NamedTuple):
    """Flows side by side, at most `at_once` of them. Gives their results in order; the first error ends the others."""

    flows: Sequence[Flow[Any]]
    at_once: int = 16


class Gate:
    """Keeps a flow from running twice at a time. What runs is the drivers' affair."""

    __slots__ = ("lock", "running")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: Any = None


class Once(NamedTuple):
    """What the flow gives or raises; whoever wishes for it while it runs is given the same, and nothing is asked twice."""

    gate: Gate
    begin: Callable[[], Flow[Any]]


Wish = Send | Delay | Call | Together | Once
Flow = Generator[Wish, Any, T]


class Answer(NamedTuple):
    """A whole reply. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream:
    """A reply whose body is still to come, in the driver's own way of reading; `status` is 200."""

    headers: Mapping[str, str]
