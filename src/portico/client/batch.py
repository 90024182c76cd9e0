"""Batches: many requests in OpenAI's batch format, each answered once, whatever ends the program in between.

The output file is the journal. A row is in it, whole and synced, before the next one takes its place in flight; a run that
was killed reads it, throws away a last line that was cut, and sends what is missing: at most the rows that were in flight
go out a second time. Rows with the same beginning are sent one after the other, so that the server's prefix cache has it.
(Format: platform.openai.com/docs/guides/batch.)
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from portico.client.drive_async import Sending, drive
from portico.client.exchange import exchange
from portico.client.settings import Settings
from portico.client.wishes import Answer, Send
from portico.errors import ClientError, InvalidRequest, NotRunning, RateLimited, ServerFailed

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
AT_ONCE = 32


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A request. `line` is where it stands in its file, from 1."""

    custom_id: str
    url: str
    body: dict[str, Any]
    line: int = 0

    @property
    def path(self) -> str:
        return self.url

    @property
    def digest(self) -> str:
        """Of what is asked: a row whose request was changed since is asked again."""
        return hashlib.sha256(msgspec.json.encode([self.url, self.body], order="deterministic")).hexdigest()[
            :32
        ]

    @property
    def beginning(self) -> bytes:
        """What the server's prefix cache can share: the first messages, or the prompt."""
        said = self.body.get("messages") or self.body.get("prompt") or self.body.get("input") or ""
        return msgspec.json.encode(said, order="deterministic")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A row's answer, as the output file has it: `response` has status_code, request_id and body, or `error` says why there
    is none."""

    custom_id: str
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    digest: str = msgspec.field(name="portico_digest", default="")

    @property
    def ok(self) -> bool:
        return self.response is not None and self.response.get("status_code") == 200


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    done: int
    failed: int
    total: int
    tokens: int
    """Made by this run."""
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        return self.seconds / self.done * (self.total - self.done) if self.done else None


class _Sent(msgspec.Struct):
    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"


def read_rows(lines: Iterable[bytes], *, name: str = "batch") -> Iterator[Row]:
    """Raises InvalidRequest with the line, for a row that cannot be read or that has another's id."""
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            sent = msgspec.json.decode(line, type=_Sent)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{name}:{number}: {error}") from error
        if sent.url not in PATHS:
            raise InvalidRequest(f"{name}:{number}: url {sent.url!r} is none of {', '.join(PATHS)}")
        if sent.custom_id in seen:
            raise InvalidRequest(
                f"{name}:{number}: custom_id {sent.custom_id!r} stands in line {seen[sent.custom_id]} already"
            )
        if sent.body.get("stream"):
            raise InvalidRequest(f"{name}:{number}: a row of a batch is not streamed: leave `stream` out")
        seen[sent.custom_id] = number
        yield Row(custom_id=sent.custom_id, url=sent.url, body=sent.body, line=number)


class Journal:
    """The output file. Owns it while a run goes on: each line is whole, and on the disk, or it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept: dict[str, Outcome] = {}
        good = 0
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    outcome = _outcome(line)
                    if outcome is None:
                        break  # the end of a run that was killed while it wrote
                    self.kept[outcome.custom_id] = outcome
                    good += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(good)

    def add(self, outcome: Outcome) -> None:
        self._file.write(msgspec.json.encode(outcome) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.kept[outcome.custom_id] = outcome

    def close(self) -> None:
        self._file.close()


def _outcome(line: bytes) -> Outcome | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(line, type=Outcome)
    except msgspec.DecodeError:
        return None


class Pace:
    """How many rows are in flight: one more as long as the server keeps up, half as many when it says it is busy."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, min(4, most)
        self._answered = 0

    def answered(self) -> None:
        self._answered += 1
        if self._answered >= self.now and self.now < self.most:
            self.now, self._answered = self.now + 1, 0

    def busy(self) -> None:
        self.now, self._answered = max(1, self.now // 2), 0


class Batch:
    """One run. `model`: what rows are asked that name none, or "default"."""

    def __init__(
        self,
        rows: Iterable[Row],
        journal: Journal,
        *,
        sender: Sending,
        settings: Settings,
        model: str,
        at_once: int = AT_ONCE,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._all = list(rows)
        self._journal, self._sender, self._settings, self._model = journal, sender, settings, model
        self._pace = Pace(at_once)
        self._on_progress = on_progress
        self._tokens = self._done = self._failed = 0
        self._stop: ClientError | None = None

    async def run(self) -> dict[str, Outcome]:
        """Every row's outcome, by its id. Raises NotRunning when the server is gone: what is done is kept."""
        began = time.monotonic()
        missing = [row for row in self._all if not self._is_done(row)]
        self._done = len(self._all) - len(missing)
        queue = iter(sorted(missing, key=lambda row: row.beginning))
        flying: set[asyncio.Task[Outcome]] = set()
        try:
            while True:
                while len(flying) < self._pace.now and self._stop is None and (row := next(queue, None)):
                    flying.add(asyncio.create_task(self._ask(row), name=f"row {row.custom_id}"))
                if not flying:
                    break
                ended, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    self._keep(task.result())
                self._on_progress(self._progress(began))
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        if self._stop is not None:
            raise self._stop
        return {row.custom_id: self._journal.kept[row.custom_id] for row in self._all}

    def _is_done(self, row: Row) -> bool:
        kept = self._journal.kept.get(row.custom_id)
        return kept is not None and kept.ok and kept.digest in ("", row.digest)

    def _keep(self, outcome: Outcome) -> None:
        if outcome.error is not None and outcome.error.get("code") == NotRunning.code:
            return  # it is asked in the next run
        self._journal.add(outcome)
        self._done += 1
        self._failed += not outcome.ok
        usage = ((outcome.response or {}).get("body") or {}).get("usage") or {}
        self._tokens += int(usage.get("completion_tokens") or 0)

    async def _ask(self, row: Row) -> Outcome:
        body = dict(row.body)
        if body.get("model") in (None, "", "default"):
            body["model"] = self._model
        settings = self._settings
        flow = exchange(
            Send("POST", row.path, msgspec.json.encode(body)),
            url=self._sender.server.url,
            model=str(body["model"]),
            retry=settings.retry,
            total=settings.timeouts.total,
        )
        try:
            exchanged = await drive(flow, self._sender)
        except ClientError as error:
            if isinstance(error, NotRunning):
                self._stop = error
            if isinstance(error, RateLimited | ServerFailed):
                self._pace.busy()
            return _failure(row, error)
        if any(attempt.status in (429, 503) for attempt in exchanged.attempts):
            self._pace.busy()
        else:
            self._pace.answered()
        reply = exchanged.reply
        assert isinstance(reply, Answer)
        try:
            answer = msgspec.json.decode(reply.body)
        except msgspec.DecodeError as error:
            return _failure(row, ServerFailed(f"the reply is no JSON: {error}", status=502))
        response = {"status_code": 200, "request_id": exchanged.request_id, "body": answer}
        return Outcome(custom_id=row.custom_id, response=response, digest=row.digest)

    def _progress(self, began: float) -> Progress:
        return Progress(
            done=self._done,
            failed=self._failed,
            total=len(self._all),
            tokens=self._tokens,
            seconds=time.monotonic() - began,
        )


def _failure(row: Row, error: ClientError) -> Outcome:
    told: Mapping[str, Any] = {"code": error.code, "message": str(error), "status": error.status}
    return Outcome(custom_id=row.custom_id, error=dict(told), digest=row.digest)
