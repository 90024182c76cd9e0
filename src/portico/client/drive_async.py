"""Drives flows in an event loop: over the pooled connections that the gateway uses, which cost a fraction of a general
client's, or over an httpx2.AsyncClient of the user's own."""

from __future__ import annotations

import asyncio
import inspect
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx2

from portico.client.drive_sync import allow, told
from portico.client.servers import Server
from portico.client.settings import Timeouts
from portico.client.wishes import Answer, Call, Delay, Flow, Gate, Once, Send, Stream, Together, Wish
from portico.errors import (
    ClientError,
    CutOff,
    EngineError,
    NotRunning,
    NotTrusted,
    ProxyFailed,
    TimedOut,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from portico.web import Reply, Upstream
from portico.web.dial import tls_context

T = TypeVar("T")


class AsyncStream(Stream):
    """The chunks of a reply; `close` ends it at once, whatever is left of it."""

    async def chunk(self) -> bytes:
        """The next bytes; empty at the end. Raises CutOff, TimedOut."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Sending(Protocol):
    @property
    def server(self) -> Server: ...

    async def send(self, wish: Send) -> Answer | AsyncStream: ...

    async def close(self) -> None: ...


class Sendings:
    """The connections of one client: to its server, and to those that stand in for it."""

    def __init__(self, own: Sending, others: Sequence[Sending] = ()) -> None:
        self.server = own.server
        self._of = {each.server: each for each in (*others, own)}

    async def send(self, wish: Send) -> Answer | AsyncStream:
        return await self._of[wish.server or self.server].send(wish)

    async def close(self) -> None:
        for each in self._of.values():
            await each.close()


class Pool:
    """Kept-alive connections to one server. Belongs to the event loop in which it is first used."""

    def __init__(
        self,
        server: Server,
        timeouts: Timeouts,
        *,
        headers: Mapping[str, str] = {},
        verify: bool | str | ssl.SSLContext = True,
        proxy: str | None = None,
    ) -> None:
        self.server, self.timeouts = server, timeouts
        self._tagged = not any(name.lower() == "x-request-id" for name in headers)
        key = {"authorization": f"Bearer {server.key}"} if server.key else {}
        self._upstream = Upstream(
            server.url,
            headers=[(name.lower().encode(), value.encode()) for name, value in {**key, **headers}.items()],
            connect=timeouts.connect or math.inf,
            first_byte=timeouts.first_token,
            between=timeouts.between_tokens,
            tls=_tls(verify) if server.url.startswith("https://") else None,
            proxy=proxy or _proxy_of_the_environment(server),
        )

    async def close(self) -> None:
        self._upstream.close()

    async def send(self, wish: Send) -> Answer | AsyncStream:
        try:
            async with asyncio.timeout_at(_of_the_loop(wish.deadline)):
                tag = wish.request_id.encode() if self._tagged else b""
                own = ((b"x-request-id", tag),) if tag else ()
                reply = await self._upstream.request(wish.method, wish.path, wish.body, own)
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers}
                if wish.stream and reply.status == 200:
                    return _Pooled(reply, headers, wish, self.timeouts)
                try:
                    return Answer(reply.status, headers, await reply.read())
                finally:
                    reply.close()
        except TimeoutError:
            raise TimedOut(which="total", seconds=self.timeouts.total) from None
        except EngineError as error:
            raise as_clients(error, self.timeouts) from error


class _Pooled(AsyncStream):
    def __init__(self, reply: Reply, headers: Mapping[str, str], wish: Send, timeouts: Timeouts) -> None:
        self._reply, self.headers, self._wish, self._timeouts = reply, headers, wish, timeouts

    async def chunk(self) -> bytes:
        try:
            if self._wish.deadline == math.inf:
                return await self._reply.chunk()
            async with asyncio.timeout_at(_of_the_loop(self._wish.deadline)):
                return await self._reply.chunk()
        except TimeoutError:
            self._reply.close()
            raise TimedOut(which="total", seconds=self._timeouts.total) from None
        except EngineError as error:
            raise as_clients(error, self._timeouts) from error

    async def close(self) -> None:
        self._reply.close()


class Given:
    """An httpx2.AsyncClient of the user's: its connections, proxies and certificates are its own affair."""

    def __init__(
        self,
        server: Server,
        timeouts: Timeouts,
        client: httpx2.AsyncClient,
        *,
        headers: Mapping[str, str] = {},
    ) -> None:
        self.server, self.timeouts, self._client = server, timeouts, client
        key = {"authorization": f"Bearer {server.key}"} if server.key else {}
        given = {name.lower(): value for name, value in headers.items()}
        self._headers = {**key, **given, "content-type": "application/json"}

    async def close(self) -> None: ...

    async def send(self, wish: Send) -> Answer | AsyncStream:
        limits = self.timeouts
        limit = httpx2.Timeout(
            connect=limits.connect or None, read=limits.first_token or None, write=None, pool=None
        )
        request = self._client.build_request(
            wish.method,
            self.server.url + wish.path,
            content=wish.body,
            headers={"x-request-id": wish.request_id, **self._headers} if wish.request_id else self._headers,
            timeout=limit,
        )
        try:
            async with asyncio.timeout_at(_of_the_loop(wish.deadline)):
                response = await self._client.send(request, stream=True)
                headers = {name.lower(): value for name, value in response.headers.items()}
                if wish.stream and response.status_code == 200:
                    return _Httpx(response, headers, wish, limits)
                try:
                    return Answer(response.status_code, headers, await response.aread())
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TimedOut(which="total", seconds=limits.total) from None
        except httpx2.RequestError as error:
            raise told(error, limits, which="first_token") from error


class _Httpx(AsyncStream):
    def __init__(
        self, response: httpx2.Response, headers: Mapping[str, str], wish: Send, timeouts: Timeouts
    ) -> None:
        self._response, self.headers, self._wish, self._timeouts = response, headers, wish, timeouts
        allow(response, timeouts.between_tokens, math.inf)
        self._chunks = response.aiter_bytes()

    async def chunk(self) -> bytes:
        try:
            async with asyncio.timeout_at(_of_the_loop(self._wish.deadline)):
                return await anext(self._chunks, b"")
        except TimeoutError:
            await self.close()
            raise TimedOut(which="total", seconds=self._timeouts.total) from None
        except httpx2.RequestError as error:
            raise told(error, self._timeouts, which="between_tokens") from error

    async def close(self) -> None:
        await self._response.aclose()


async def drive(flow: Flow[T], sender: Sending) -> T:
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
            value = await _granted(wish, sender)
        except Exception as failed:  # the flow decides what becomes of it
            error = failed
        except BaseException:  # cancelled: what the flow holds is let go
            flow.close()
            raise


async def _granted(wish: Wish, sender: Sending) -> Any:
    match wish:
        case Send():
            from portico.client.replayed import asend  # which knows both drivers

            return await asend(sender, wish)
        case Delay(seconds):
            await asyncio.sleep(seconds)
        case Call(function, arguments):
            if inspect.iscoroutinefunction(function):
                return await function(**arguments)
            # A function that blocks must not hold up everything else in this loop.
            made = await asyncio.to_thread(function, **arguments)
            return await made if inspect.isawaitable(made) else made
        case Together(flows, at_once):
            turns = asyncio.Semaphore(at_once)

            async def one(flow: Flow[Any]) -> Any:
                async with turns:
                    return await drive(flow, sender)

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(flow)) for flow in flows]
            except ExceptionGroup as several:  # the others were ended by the first
                raise several.exceptions[0] from None
            return [task.result() for task in tasks]
        case Once(gate, begin):
            if gate.running is None:
                gate.running = asyncio.create_task(drive(begin(), sender))
                gate.running.add_done_callback(lambda task: _ended(gate, task))
            # Whoever is cancelled leaves; the others still want it.
            return await asyncio.shield(gate.running)
    return None


def _ended(gate: Gate, task: asyncio.Task[Any]) -> None:
    gate.running = None
    if not task.cancelled():
        task.exception()  # those who waited may all have left, and nobody else looks at it


def as_clients(error: EngineError, timeouts: Timeouts) -> ClientError:
    """What the pooled connections raise, as a client's user knows it."""
    if isinstance(error, UpstreamUntrusted | ProxyFailed):
        return NotTrusted(f"{error} A private CA is named by verify=.")
    if isinstance(error, UpstreamUnreachable):
        late = "within" in str(error)
        return TimedOut(which="connect", seconds=timeouts.connect) if late else NotRunning()
    if isinstance(error, UpstreamTimeout):
        which = "between_tokens" if error.setting == "token_timeout" else "first_token"
        return TimedOut(which=which, seconds=error.seconds)
    return CutOff()


def _tls(verify: bool | str | ssl.SSLContext) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, str):
        return tls_context(verify)
    if verify:
        return tls_context()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _proxy_of_the_environment(server: Server) -> str | None:
    """Never for this machine or a private network; NO_PROXY holds."""
    scheme, _, rest = server.url.partition("://")
    if server.near or proxy_bypass(rest.partition("/")[0]):
        return None
    return getproxies().get(scheme)


def _of_the_loop(deadline: float) -> float | None:
    """`time.monotonic`'s moment in the loop's clock."""
    return None if deadline == math.inf else asyncio.get_running_loop().time() + deadline - time.monotonic()
