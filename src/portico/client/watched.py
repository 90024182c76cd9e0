"""Between the drivers and their connections: what goes out and comes back is told to a Watch."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from portico.client.drive_async import AsyncStream, Sending
from portico.client.drive_sync import SyncSending, SyncStream
from portico.client.servers import Server
from portico.client.watch import Exchange, Watch
from portico.client.wishes import Answer, Send
from portico.errors import ClientError


class Watched:
    """A client's connections. Costs nothing while nobody listens."""

    def __init__(self, inner: SyncSending, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    @property
    def server(self) -> Server:
        return self._inner.server

    def send(self, wish: Send) -> Answer | SyncStream:
        if self._watch.idle:
            return self._inner.send(wish)
        exchange = self._watch.asked(wish.server or self.server, wish)
        try:
            reply = self._inner.send(wish)
        except BaseException as error:  # also one that Ctrl-C ended is over
            exchange.failed(error)
            raise
        if isinstance(reply, Answer):
            exchange.answered(reply.status, reply.headers, reply.body)
            return reply
        return _SyncWatched(reply, exchange)

    def close(self) -> None:
        self._inner.close()


class AsyncWatched:
    """The same in an event loop."""

    def __init__(self, inner: Sending, watch: Watch) -> None:
        self._inner, self._watch = inner, watch

    @property
    def server(self) -> Server:
        return self._inner.server

    def send(self, wish: Send) -> Coroutine[Any, Any, Answer | AsyncStream]:
        return self._inner.send(wish) if self._watch.idle else self._send(wish)

    async def _send(self, wish: Send) -> Answer | AsyncStream:
        exchange = self._watch.asked(wish.server or self.server, wish)
        try:
            reply = await self._inner.send(wish)
        except BaseException as error:  # also one that was cancelled is over
            exchange.failed(error)
            raise
        if isinstance(reply, Answer):
            exchange.answered(reply.status, reply.headers, reply.body)
            return reply
        return _AsyncWatched(reply, exchange)

    async def close(self) -> None:
        await self._inner.close()


class _SyncWatched(SyncStream):
    def __init__(self, stream: SyncStream, exchange: Exchange) -> None:
        self._stream, self.headers, self._exchange = stream, stream.headers, exchange

    def chunk(self) -> bytes:
        try:
            data = self._stream.chunk()
        except ClientError:
            self._exchange.ended("cut", self.headers)
            raise
        if data:
            self._exchange.chunk(data)
        else:
            self._exchange.ended("whole", self.headers)
        return data

    def close(self) -> None:
        self._exchange.ended("left", self.headers)
        self._stream.close()


class _AsyncWatched(AsyncStream):
    def __init__(self, stream: AsyncStream, exchange: Exchange) -> None:
        self._stream, self.headers, self._exchange = stream, stream.headers, exchange

    async def chunk(self) -> bytes:
        try:
            data = await self._stream.chunk()
        except ClientError:
            self._exchange.ended("cut", self.headers)
            raise
        if data:
            self._exchange.chunk(data)
        else:
            self._exchange.ended("whole", self.headers)
        return data

    async def close(self) -> None:
        self._exchange.ended("left", self.headers)
        await self._stream.close()
