"""Batches: many requests, each answered once, whatever ends the program in between.

What is decided stands in `Batch`: which row is next and how many may be in flight. Two drivers carry it out, with an event
loop and without. Rows with the same beginning go out one after the other, so that the server's prefix cache has it; how many
at once follows what the server says of its load. `journal.py` is what makes a killed run go on: at most the rows that were in
flight go out a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import msgspec

from portico.client import drive_async, drive_sync, enforced, results
from portico.client.drive_async import Sending
from portico.client.drive_sync import SyncSending
from portico.client.exchange import Exchanged, pause
from portico.client.flows import Flows
from portico.client.journal import Journal, Outcome
from portico.client.outputs import Output, checked
from portico.client.results import Result
from portico.client.rows import Row
from portico.client.settings import error_retry_after
from portico.client.wishes import Answer, Flow
from portico.errors import (
    ClientError,
    CutOff,
    Malformed,
    NotRunning,
    NotTrusted,
    OverBudget,
    PriceUnknown,
    RateLimited,
    ReplayDiffers,
    ServerFailed,
    TimedOut,
    UpstreamFailed,
    WrongAnswer,
    WrongKey,
)

P = TypeVar("P")
AT_ONCE = 32
FIRST = 4
WORTH_IT = 1.3
"""Times as many rows a second for twice as many in flight: less is noise, or a queue."""
REST = 16
"""Rounds after which it is tried again whether more in flight are more a second."""
BUSY_TURNS = 10
"""How often a row waits for a busy server, each time longer, before it fails."""
LONGEST_WAIT = 60.0
"""Seconds between two of these turns, unless the server asks for more."""
_NO_REPLY = (TimedOut, CutOff, Malformed)
_ENDS_THE_RUN = (NotRunning, NotTrusted, WrongKey, OverBudget, PriceUnknown, ReplayDiffers)
"""What every further row would meet too: the run ends, and these rows are asked in the next one."""
_UNREADABLE = (ValueError, KeyError, TypeError, UpstreamFailed)
"""What reading a reply raises that is none: msgspec's errors are ValueErrors."""
Ended = Future[Outcome | None] | asyncio.Task[Outcome | None]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`done`: rows answered or failed, earlier runs included; `seconds` and `tokens`: of this run."""

    done: int
    failed: int
    total: int
    here: int
    """Of `done`, what this run has asked."""
    in_flight: int
    tokens: int
    """Made in this run."""
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """By the pace of this run; None before there is one."""
        return self.seconds / self.here * (self.total - self.done) if self.here else None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Why a row has no answer. `status`: the server's, or None where there was no reply."""

    code: str
    message: str
    status: int | None = None

    def __str__(self) -> str:
        return self.message


class Done(msgspec.Struct, Generic[P], frozen=True, kw_only=True):
    """A row that is done: either `result` or `error`; `body` is the server's reply as it was (of embeddings, all)."""

    custom_id: str
    result: Result[P] | None = None
    error: Failed | None = None
    body: Any = None


class Pace:
    """How many rows are in flight. Threads share it. A round is twice as many answers as may be in flight.

    1. The server says that it is busy: half as many, and from now on one more with each round. 2. It has never said so: twice as
    many with each round that answers more rows a second than the narrower one did. 3. One that does not only lets rows wait there,
    and whoever else asks the server behind them: as few as before, for a while.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.now = most, min(FIRST, most)
        self._clock, self._lock = clock, threading.Lock()
        self._answered = self._slowed = self._resting = 0
        self._began: float | None = None
        self._narrower: tuple[int, float] | None = None
        """How many there were before, and their rows a second."""

    def sent(self) -> int:
        """What `busy` is told of a request that goes out now."""
        if self._began is None:
            self._began = self._clock()
        return self._slowed

    def answered(self) -> None:
        with self._lock:
            self._answered += 1
            if self._answered < 2 * self.now or self._began is None:
                return
            now = self._clock()
            rate = self._answered / max(now - self._began, 1e-9)
            self._answered, self._began = 0, now
            if self._slowed:  # (1)
                self.now = min(self.most, self.now + 1)
            elif self._resting:
                self._resting -= 1
            elif self._narrower is None or rate > self._narrower[1] * WORTH_IT:  # (2)
                self._narrower = self.now, rate
                self.now = min(self.most, 2 * self.now)
            else:  # (3)
                self.now, self._narrower, self._resting = self._narrower[0], None, REST

    def busy(self, sent: int) -> None:
        """Many in flight hear it at once: those that went out before it was slowed down slow it down no further."""
        with self._lock:
            if sent == self._slowed:
                self.now, self._answered, self._began = max(1, self.now // 2), 0, self._clock()
                self._slowed += 1


class Batch:
    """One run. Decides; belongs to one driver. `again`: rows that failed in an earlier run are asked again."""

    def __init__(
        self,
        rows: Iterable[Row],
        journal: Journal,
        *,
        flows: Flows,
        at_once: int = AT_ONCE,
        again: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.rows = {row.custom_id: row for row in rows}
        self._journal, self._flows = journal, flows
        self.pace = Pace(at_once)
        self._on_progress = on_progress
        self._tokens = self._here = self._in_flight = self._left = 0
        self._ended: ClientError | None = None
        self._stopped = False
        self._began = time.monotonic()
        missing = [row for row in self.rows.values() if not self._is_done(row, again)]
        journal.forget({row.custom_id for row in missing})
        self._queue = sorted(missing, key=lambda row: row.beginning, reverse=True)

    def _is_done(self, row: Row, again: bool) -> bool:
        kept = self._journal.done.get(row.custom_id)
        if kept is None and not again:
            kept = self._journal.failed.get(row.custom_id)
        return kept is not None and kept in ("", row.digest)

    def earlier(self) -> Iterator[Outcome]:
        """What earlier runs have done of it."""
        return (outcome for outcome in self._journal.outcomes() if outcome.custom_id in self.rows)

    def next(self) -> Row | None:
        """The row to send now; None: none, or none yet."""
        if self._stopped or self._ended or not self._queue or self._in_flight >= self.pace.now:
            return None
        self._in_flight += 1
        return self._queue.pop()

    def stop(self) -> None:
        """No further row is sent; those in flight are awaited, those that wait for a busy server are left."""
        self._stopped = True

    def keep(self, over: Collection[Ended]) -> list[Outcome]:
        """Those that are rows' ends, once they are on the disk. Raises what is none, when the others are kept."""
        good = [one for one in over if not one.cancelled() and one.exception() is None]
        ended = [outcome for one in good if (outcome := one.result()) is not None]
        self._in_flight -= len(over)
        self._left += len(over) - len(ended)
        self._journal.add(ended)
        self._here += len(ended)
        self._tokens += sum(map(_tokens, ended))
        if self._on_progress is not None:
            self._on_progress(self.progress())
        for one in over:
            if not one.cancelled():
                one.result()
        return ended

    def over(self) -> None:
        """Raises what ended the run before its rows did."""
        if self._ended is not None:
            raise self._ended

    def progress(self) -> Progress:
        left = len(self._queue) + self._in_flight + self._left
        failed = sum(name in self.rows for name in self._journal.failed)
        return Progress(
            done=len(self.rows) - left,
            failed=failed,
            total=len(self.rows),
            here=self._here,
            in_flight=self._in_flight,
            tokens=self._tokens,
            seconds=time.monotonic() - self._began,
        )

    # ---- one row

    def ask(self, row: Row) -> Flow[Outcome | None]:
        """What became of a row; None: nothing, it is for the next run."""
        first = self._flows.settings.retry.first
        for turn in range(BUSY_TURNS + 1):
            sent = self.pace.sent()
            try:
                exchanged = yield from self._flows.raw(row.url, row.body)
            except ClientError as error:
                if _ends_the_run(error):
                    self._ended = error
                    return None
                if not _is_busy(error) or turn == BUSY_TURNS:
                    return _failed(row, error)
                self.pace.busy(sent)
                if self._stopped:
                    return None
                yield pause(max(error_retry_after(error) or 0.0, min(LONGEST_WAIT, first * 2**turn)))
                if self._stopped:
                    return None
                continue
            if any(attempt.status in (429, 503) for attempt in exchanged.attempts):
                self.pace.busy(sent)
            else:
                self.pace.answered()
            reply = exchanged.reply
            assert isinstance(reply, Answer)
            return _answered(row, reply.body, exchanged)
        raise AssertionError("the last turn returns")


def _ends_the_run(error: ClientError) -> bool:
    return isinstance(error, _ENDS_THE_RUN) or (isinstance(error, TimedOut) and error.which == "connect")


def _is_busy(error: ClientError) -> bool:
    return isinstance(error, RateLimited) or (isinstance(error, ServerFailed) and error.status == 503)


def _tokens(outcome: Outcome) -> int:
    if not outcome.ok or outcome.response is None:
        return 0
    usage = outcome.response["body"].get("usage") or {}
    return int(usage.get("completion_tokens") or 0)


def _answered(row: Row, body: bytes, exchanged: Exchanged) -> Outcome:
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
        if row.url != "/v1/embeddings":
            results.read(body, completion=row.url == "/v1/completions")
    except _UNREADABLE:  # what is kept as answered is never asked again
        return _failed(row, Malformed(body=body, expected="an answer"))
    response = {"status_code": 200, "request_id": exchanged.request_id, "body": answer}
    return Outcome(custom_id=row.custom_id, response=response, digest=row.digest, url=exchanged.url)


def _failed(row: Row, error: ClientError) -> Outcome:
    told: dict[str, Any] = {"code": error.code, "message": str(error)}
    if isinstance(error, _NO_REPLY):
        return Outcome(custom_id=row.custom_id, error=told, digest=row.digest)
    response = {
        "status_code": error.status,
        "request_id": error.request_id,
        "body": {
            "error": {**told, "type": "invalid_request_error" if error.status < 500 else "server_error"}
        },
    }
    return Outcome(custom_id=row.custom_id, response=response, digest=row.digest)


def done(outcome: Outcome, row: Row, wanted: Output[P] | None) -> Done[P]:
    """An outcome as a program wants it."""
    if not outcome.ok:
        return Done(
            custom_id=outcome.custom_id, error=why(outcome), body=(outcome.response or {}).get("body")
        )
    assert outcome.response is not None
    body = outcome.response["body"]
    if row.url == "/v1/embeddings":
        return Done(custom_id=outcome.custom_id, body=body)
    try:
        result: Result[Any] = results.read(
            msgspec.json.encode(body),
            completion=row.url == "/v1/completions",
            request_id=outcome.response.get("request_id") or "",
            url=outcome.url,
        )
        if row.as_json:
            result = results.texts(result, enforced.taken)
        if wanted is not None:
            result = checked(result, wanted)
    except (WrongAnswer, *_UNREADABLE) as error:
        code = error.code if isinstance(error, WrongAnswer) else Malformed.code
        return Done(
            custom_id=outcome.custom_id, error=Failed(code=code, message=str(error), status=200), body=body
        )
    return Done(custom_id=outcome.custom_id, result=result, body=body)


def why(outcome: Outcome) -> Failed:
    """Of an outcome that is none of ours too: OpenAI's own error file is read as well."""
    if outcome.response is None:
        told, status = outcome.error or {}, None
    else:
        body = outcome.response.get("body")
        told = (body.get("error") if isinstance(body, dict) else None) or {}
        status = outcome.response.get("status_code")
    return Failed(
        code=str(told.get("code") or "unknown"), message=str(told.get("message") or ""), status=status
    )


# ---- the two drivers


async def arun(batch: Batch, sender: Sending) -> AsyncGenerator[Outcome, None]:
    """Outcomes as they come. Leaving it ends what is in flight, which the next run asks again."""
    flying: set[asyncio.Task[Outcome | None]] = set()
    try:
        while True:
            while (row := batch.next()) is not None:
                name = f"row {row.custom_id}"
                flying.add(asyncio.create_task(drive_async.drive(batch.ask(row), sender), name=name))
            if not flying:
                break
            ended, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
            for outcome in batch.keep(ended):
                yield outcome
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        with contextlib.suppress(ClientError):
            batch.keep(flying)  # some were there already
    batch.over()


def run(batch: Batch, sender: SyncSending) -> Generator[Outcome, None, None]:
    """The same in threads. Leaving it sends no further row; what is in flight is awaited and kept."""
    flying: set[Future[Outcome | None]] = set()
    with ThreadPoolExecutor(batch.pace.most, thread_name_prefix="batch") as pool:
        try:
            while True:
                while (row := batch.next()) is not None:
                    # In a copy of the context: a recording that goes on here goes on there.
                    flying.add(pool.submit(copy_context().run, drive_sync.drive, batch.ask(row), sender))
                if not flying:
                    break
                ended, flying = wait(flying, return_when=FIRST_COMPLETED)
                yield from batch.keep(ended)
        finally:
            batch.stop()
            wait(flying)
            with contextlib.suppress(ClientError):
                batch.keep(flying)
    batch.over()
