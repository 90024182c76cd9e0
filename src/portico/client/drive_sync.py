"""Drives flows without an event loop: over httpx2, in the caller's thread, functions side by side in threads."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

import httpx2

from portico.client.servers import Server
from portico.client.settings import Timeouts
from portico.client.wishes import Answer, Call, Delay, Flow, Once, Send, Stream, Together, Wish
from portico.errors import ClientError, CutOff, NotRunning, NotTrusted, TimedOut

T = TypeVar("T")
_NO_LIMIT = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
"""By itself httpx2 lets the 101st call wait for ever while a hundred streams are open."""
_SLACK = 0.01
"""Seconds by which a clock may be early."""


class SyncStream(Stream):
    """The chunks of a reply; `close` ends it, whatever is left of it."""

    def __init__(self, response: httpx2.Response, send: Send, timeouts: Timeouts) -> None:
        self._response, self._send, self._timeouts = response, send, timeouts
        self.headers = _headers(response)
        self._chunks = response.iter_bytes()

    def chunk(self) -> bytes:
        """The next bytes; empty at the end. Raises CutOff, TimedOut."""
        deadline = self._send.deadline
        if not allow(self._response, self._timeouts.between_tokens, deadline):
            self.close()
            raise TimedOut(which="total", seconds=self._timeouts.total)
        with _errors(self._timeouts, which="between_tokens", deadline=deadline):
            return next(self._chunks, b"")

    def close(self) -> None:
        self._response.close()


class SyncSending(Protocol):
    @property
    def server(self) -> Server: ...

    def send(self, wish: Send) -> Answer | SyncStream: ...

    def close(self) -> None: ...


class Senders:
    """The connections of one client: to its server, and to those that stand in for it."""

    def __init__(self, own: Sender, others: Sequence[Sender] = ()) -> None:
        self.server = own.server
        self._of = {each.server: each for each in (*others, own)}

    def send(self, wish: Send) -> Answer | SyncStream:
        return self._of[wish.server or self.server].send(wish)

    def close(self) -> None:
        for each in self._of.values():
            each.close()


class Sender:
    """The connections of one client to one server. Owns its httpx2 client unless it was given one."""

    def __init__(
        self,
        server: Server,
        timeouts: Timeouts,
        *,
        http_client: httpx2.Client | None = None,
        headers: Mapping[str, str] = {},
        verify: Any = True,
        proxy: str | None = None,
    ) -> None:
        self.server, self.timeouts = server, timeouts
        self._given = http_client is not None
        # A proxy of the environment is not for this machine or a private network, and nobody set it for them.
        self._client = http_client or httpx2.Client(
            verify=verify, proxy=proxy, trust_env=proxy is None and not server.near, limits=_NO_LIMIT
        )
        key = {"authorization": f"Bearer {server.key}"} if server.key else {}
        given = {name.lower(): value for name, value in headers.items()}
        self._headers = {**key, **given, "content-type": "application/json"}

    def close(self) -> None:
        if not self._given:
            self._client.close()

    def send(self, wish: Send) -> Answer | SyncStream:
        timeouts = self.timeouts
        left = wish.deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(which="total", seconds=timeouts.total)
        first = min(timeouts.first_token or math.inf, left)
        limit = httpx2.Timeout(
            connect=_or_none(min(timeouts.connect or math.inf, left)),
            read=_or_none(first),
            write=None,
            pool=None,
        )
        request = self._client.build_request(
            wish.method,
            self.server.url + wish.path,
            content=wish.body,
            headers={"x-request-id": wish.request_id, **self._headers} if wish.request_id else self._headers,
            timeout=limit,
        )
        with _errors(timeouts, which="first_token", deadline=wish.deadline):
            response = self._client.send(request, stream=True)
            if wish.stream and response.status_code == 200:
                return SyncStream(response, wish, timeouts)
            try:
                return Answer(response.status_code, _headers(response), self._body(response, wish))
            finally:
                response.close()

    def _body(self, response: httpx2.Response, wish: Send) -> bytes:
        """All of it. Raises TimedOut also for one that drips until the time of the whole call is used up."""
        found = []
        for chunk in response.iter_bytes():
            found.append(chunk)
            if not allow(response, self.timeouts.first_token, wish.deadline):
                raise TimedOut(which="total", seconds=self.timeouts.total)
        return b"".join(found)


def drive(flow: Flow[T], sender: SyncSending) -> T:
    """What the flow returns. Raises what it raises."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            wish = flow.send(value) if error is None else flow.throw(error)
        except StopIteration as ended:
            result: T = ended.value
            return result
        value, error = None, None
        try:
            value = _granted(wish, sender)
        except Exception as failed:  # the flow decides what becomes of it
            error = failed
        except BaseException:  # Ctrl-C: what the flow holds is let go
            flow.close()
            raise


def _granted(wish: Wish, sender: SyncSending) -> Any:
    match wish:
        case Send():
            from portico.client.replayed import send  # which knows both drivers

            return send(sender, wish)
        case Delay(seconds):
            time.sleep(seconds)
        case Call(function, arguments):
            made = function(**arguments)
            return _result_of(made) if inspect.isawaitable(made) else made
        case Together(flows, at_once):
            if len(flows) == 1:
                return [drive(flows[0], sender)]
            with ThreadPoolExecutor(min(at_once, len(flows) or 1)) as pool:
                # Each in a copy of the context: a recording that goes on here goes on there.
                made = [pool.submit(copy_context().run, drive, each, sender) for each in flows]
                try:
                    wait(made, return_when=FIRST_EXCEPTION)
                    return [each.result() for each in _failed_first(made)]
                except BaseException:
                    for (
                        each
                    ) in made:  # what runs in a thread cannot be ended; what has not begun does not begin
                        each.cancel()
                    raise
        case Once():
            return _once(wish, sender)
    return None


def _failed_first(made: Sequence[Future[Any]]) -> Sequence[Future[Any]]:
    """In order; but the one that failed alone, since the others may still run."""
    failed = [each for each in made if each.done() and not each.cancelled() and each.exception() is not None]
    return failed or made


def _once(wish: Once, sender: SyncSending) -> Any:
    while True:
        with wish.gate.lock:
            running: Future[Any] | None = wish.gate.running
            if mine := running is None:
                running = wish.gate.running = Future()
        assert running is not None
        if not mine:
            try:
                return running.result()
            except CancelledError:  # the thread that asked was interrupted: ask in its place
                continue
        try:
            value = drive(wish.begin(), sender)
        except Exception as error:
            running.set_exception(error)
            raise
        except BaseException:
            running.cancel()
            raise
        finally:
            wish.gate.running = None
        running.set_result(value)
        return value


def _result_of(made: Any) -> Any:
    """In a loop of its own; where one runs in this thread, as in a notebook, in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(made))
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, _awaited(made)).result()


async def _awaited(made: Any) -> Any:
    return await made


class _errors:
    """httpx2's errors as ours. A limit that was met when the time of the whole call is used up is that of the whole."""

    def __init__(self, timeouts: Timeouts, *, which: str, deadline: float) -> None:
        self._timeouts, self._which, self._deadline = timeouts, which, deadline

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, httpx2.TimeoutException) and time.monotonic() >= self._deadline - _SLACK:
            raise TimedOut(which="total", seconds=self._timeouts.total) from error
        if isinstance(error, httpx2.RequestError):
            raise told(error, self._timeouts, which=self._which) from error


def allow(response: httpx2.Response, between: float, deadline: float) -> bool:
    """The next read may take `between` seconds (0: any time), and not go beyond the deadline. False: that is over.

    httpx2 has one limit on reading; the connection looks it up at each read."""
    left = deadline - time.monotonic()
    limits = response.request.extensions.get("timeout")
    if isinstance(limits, dict):
        limits["read"] = _or_none(min(between or math.inf, left))
    return left > 0


def told(error: httpx2.RequestError, timeouts: Timeouts, *, which: str) -> ClientError:
    if isinstance(error, httpx2.ConnectTimeout):
        return TimedOut(which="connect", seconds=timeouts.connect)
    if isinstance(error, httpx2.TimeoutException):
        return TimedOut(which=which, seconds=getattr(timeouts, which))
    if isinstance(error, httpx2.ConnectError):
        text = str(error)
        if "certificate" in text.lower() or "ssl" in text.lower():
            return NotTrusted(f"There is no secure connection: {text}. A private CA is named by verify=.")
        return NotRunning()
    if isinstance(error, httpx2.ProxyError):
        return NotTrusted(f"The proxy does not let us through: {error}. Is proxy= right, or HTTPS_PROXY?")
    if isinstance(error, httpx2.DecodingError):
        return CutOff(f"The reply is compressed, and cannot be unpacked: {error}.")
    if isinstance(error, httpx2.TooManyRedirects):
        return NotRunning(f"The server sends on from address to address: {error}. Name the last one: url=.")
    return CutOff()


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _or_none(seconds: float) -> float | None:
    return None if seconds == math.inf else seconds
