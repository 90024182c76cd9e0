"""The model's answers as effects of a recording: what stands between a driver and its connections."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from portico import recording
from portico.client.drive_async import AsyncStream, Sending
from portico.client.drive_sync import SyncSending, SyncStream
from portico.client.wishes import Answer, Send
from portico.errors import ClientError, CutOff, NotRunning, NotTrusted, TimedOut
from portico.recording import Player, Recorder

KIND = "model"
_HEADERS = ("content-type", "x-request-id", "x-portico-replica", "x-portico-attempts", "retry-after")


def asked(wish: Send) -> dict[str, Any]:
    """A request as it is found again: neither the server's address nor a key is part of it."""
    body: Any
    try:
        body = json.loads(wish.body) if wish.body else None
    except ValueError:
        body = wish.body.decode("utf-8", "replace")
    return {"method": wish.method, "path": wish.path, "body": body, "stream": wish.stream}


def send(sender: SyncSending, wish: Send) -> Answer | SyncStream:
    journal = recording.current()
    if journal is None:
        return sender.send(wish)
    request = asked(wish)
    if isinstance(journal, Player):
        told = _or_raised(journal.answer(KIND, request))
        return _SyncReplay(told) if wish.stream and told["status"] == 200 else _answer(told)
    number = journal.asked()
    try:
        reply = sender.send(wish)
    except ClientError as error:
        journal.keep(number, KIND, request, _failure(error))
        raise
    if isinstance(reply, Answer):
        journal.keep(number, KIND, request, _told(reply))
        return reply
    return _SyncTaped(reply, journal, number, request)


async def asend(sender: Sending, wish: Send) -> Answer | AsyncStream:
    journal = recording.current()
    if journal is None:
        return await sender.send(wish)
    request = asked(wish)
    if isinstance(journal, Player):
        told = _or_raised(journal.answer(KIND, request))
        return _AsyncReplay(told) if wish.stream and told["status"] == 200 else _answer(told)
    number = journal.asked()
    try:
        reply = await sender.send(wish)
    except ClientError as error:
        journal.keep(number, KIND, request, _failure(error))
        raise
    if isinstance(reply, Answer):
        journal.keep(number, KIND, request, _told(reply))
        return reply
    return _AsyncTaped(reply, journal, number, request)


# ---- bytes as JSON


def _text(data: bytes) -> Any:
    """A text, or what is none in base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _bytes(told: Any) -> bytes:
    return base64.b64decode(told["base64"]) if isinstance(told, dict) else str(told).encode()


def _kept(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in _HEADERS if name in headers}


def _told(reply: Answer) -> dict[str, Any]:
    return {"status": reply.status, "headers": _kept(reply.headers), "body": _text(reply.body)}


def _answer(told: dict[str, Any]) -> Answer:
    return Answer(told["status"], told["headers"], _bytes(told["body"]))


_FAILURES: dict[str, Callable[[str], ClientError]] = {
    kind.__name__: kind for kind in (NotRunning, NotTrusted, CutOff)
}


def _failure(error: ClientError) -> dict[str, Any]:
    about = {"which": error.which, "seconds": error.seconds} if isinstance(error, TimedOut) else {}
    return {"failed": type(error).__name__, "message": error.args[0], **about}


def _or_raised(told: dict[str, Any]) -> dict[str, Any]:
    """What was answered. Raises what was raised."""
    failed = told.get("failed")
    if failed == TimedOut.__name__:
        raise TimedOut(which=told["which"], seconds=told["seconds"])
    if failed is not None:
        raise _FAILURES[failed](told["message"])
    return told


class _Tape:
    """The chunks of a stream, written when it has ended, by itself or because it was left."""

    def __init__(self, headers: Any, journal: Recorder, number: int, request: dict[str, Any]) -> None:
        self._about, self._journal, self._number = request, journal, number
        self._head, self._chunks, self._ended = _kept(headers), list[Any](), False

    def add(self, chunk: bytes) -> None:
        if chunk:
            self._chunks.append(_text(chunk))

    def end(self, how: str, error: ClientError | None = None) -> None:
        if not self._ended:
            self._ended = True
            told = {"status": 200, "headers": self._head, "chunks": self._chunks, "end": how}
            if error is not None:
                told["why"] = _failure(error)
            self._journal.keep(self._number, KIND, self._about, told)


class _SyncTaped(SyncStream):
    def __init__(self, stream: SyncStream, journal: Recorder, number: int, request: dict[str, Any]) -> None:
        self._stream, self.headers = stream, stream.headers
        self._tape = _Tape(stream.headers, journal, number, request)

    def chunk(self) -> bytes:
        try:
            data = self._stream.chunk()
        except ClientError as error:
            self._tape.end("cut", error)
            raise
        self._tape.add(data)
        if not data:
            self._tape.end("whole")
        return data

    def close(self) -> None:
        self._tape.end("left")
        self._stream.close()


class _AsyncTaped(AsyncStream):
    def __init__(self, stream: AsyncStream, journal: Recorder, number: int, request: dict[str, Any]) -> None:
        self._stream, self.headers = stream, stream.headers
        self._tape = _Tape(stream.headers, journal, number, request)

    async def chunk(self) -> bytes:
        try:
            data = await self._stream.chunk()
        except ClientError as error:
            self._tape.end("cut", error)
            raise
        self._tape.add(data)
        if not data:
            self._tape.end("whole")
        return data

    async def close(self) -> None:
        self._tape.end("left")
        await self._stream.close()


class _Chunks:
    def __init__(self, told: dict[str, Any]) -> None:
        self._left = [_bytes(chunk) for chunk in told["chunks"]]
        self._why = told["why"] if told["end"] == "cut" else {}

    def next(self) -> bytes:
        if self._left:
            return self._left.pop(0)
        _or_raised(self._why)
        return b""


class _SyncReplay(SyncStream):
    def __init__(self, told: dict[str, Any]) -> None:
        self.headers, self._chunks_left = told["headers"], _Chunks(told)

    def chunk(self) -> bytes:
        return self._chunks_left.next()

    def close(self) -> None: ...


class _AsyncReplay(AsyncStream):
    def __init__(self, told: dict[str, Any]) -> None:
        self.headers, self._chunks_left = told["headers"], _Chunks(told)

    async def chunk(self) -> bytes:
        return self._chunks_left.next()

    async def close(self) -> None: ...
