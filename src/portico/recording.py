"""Every effect of a run, written down and replayed: what a model answered, what a clock, a tool or a person said.

    with record("run.jsonl"):        # whatever uses a client inside, sync, async, streamed, in parallel
        ...
    with replay("run.jsonl"):        # the same again: no connection is made, every byte is equal
        ...

The file is append-only, one effect a line, whole or not there. What is asked is found again by its content: the n-th request
of the same content gets the n-th answer, whatever runs beside it. One that was not recorded raises ReplayDiffers, with the
nearest recorded one and the difference. An effect that raised raises again; what an effect asks itself is part of it, and not
written. Keys and headers of requests are never written.
"""

from __future__ import annotations

import builtins
import contextlib
import difflib
import hashlib
import json
import os
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from portico.disk import sync_folder
from portico.errors import InUse, InvalidRequest, ReplayDiffers

T = TypeVar("T")
_NEAR, _WIDE, _LOOK = 60, 160, 2000
"""Lines of a difference that are shown, characters of one, and of each end of a request by which the nearest is found."""


class EffectFailed(Exception):
    """In a replay: the effect had raised an error that is none of Python's own. The message begins with its name."""


class Recorder:
    """Owns the file of a run that is recorded. Threads and tasks may share it; another recorder is InUse."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = _sole(path)
        self._lock = threading.Lock()
        self._asked = 0

    def asked(self) -> int:
        """The number of an effect that begins now. Effects are written when they have ended, and found again in the order
        in which they began."""
        with self._lock:
            self._asked += 1
            return self._asked

    def keep(self, number: int, kind: str, request: Any, response: Any) -> None:
        self._write({"number": number, "kind": kind, "request": request, "response": response})

    def keep_error(self, number: int, kind: str, request: Any, error: Exception) -> None:
        """Its name and its arguments, as far as these are JSON."""
        told = [*error.args] if all(isinstance(each, _PLAIN) for each in error.args) else [str(error)]
        raised = {"type": type(error).__name__, "args": told, "message": str(error)}
        self._write({"number": number, "kind": kind, "request": request, "raised": raised})

    def _write(self, effect: dict[str, Any]) -> None:
        line = _json(effect) + b"\n"
        with self._lock:
            if self._file.closed:
                return  # of a task that outlived its run
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Player:
    """Owns what is left of a recording that is replayed."""

    def __init__(self, path: Path) -> None:
        found: list[dict[str, Any]] = []
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break  # the run was killed while it wrote
            found.append(_effect(line, path, number))
        found.sort(key=lambda effect: int(effect["number"]))
        self._left: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
        for effect in found:
            self._left[_digest(effect["kind"], effect["request"])].append(effect)
        self._path, self._lock = path, threading.Lock()

    def answer(self, kind: str, request: Any) -> Any:
        """What was recorded for this request. Raises ReplayDiffers, and what was raised then."""
        with self._lock:
            same = self._left.get(_digest(kind, request))
            if not same:
                raise ReplayDiffers(self._difference(kind, request))
            effect = same.popleft()
        if "raised" in effect:
            raise _raised(effect["raised"])
        return effect["response"]

    @property
    def left(self) -> int:
        """Effects that were recorded and not asked for yet."""
        return sum(map(len, self._left.values()))

    def _difference(self, kind: str, request: Any) -> str:
        others = [effect for same in self._left.values() for effect in same if effect["kind"] == kind]
        if not others:
            return f"{self._path} has no further {kind} effect; this one was not recorded: {_shown(request)[:500]}"
        mine = _shown(request)
        nearest = _nearest(mine, others)
        lines = difflib.unified_diff(
            _pieces(_shown(nearest["request"])),
            _pieces(mine),
            f"recorded as effect {nearest['number']}",
            "asked now",
            lineterm="",
            n=1,
        )
        told = (
            "\n".join(list(lines)[:_NEAR]) or "it is the same, and was asked more often than it was recorded"
        )
        return f"{self._path} has no such {kind} effect. The nearest:\n{told}"


Journal = Recorder | Player
_APART = object()
"""Inside an effect: what it asks is no effect of its own."""
_current: ContextVar[Any] = ContextVar("recording", default=None)
_everywhere: list[Journal] = []
"""Those that hold in every thread and task; the innermost is the last."""


_active: dict[Journal, int] = {}
"""Those that go on, with the thread that began each."""


def current() -> Journal | None:
    """The recording or the replay that goes on here; none inside an effect.

    1. That of this context: of the `with` around it, and of the tasks begun in it; else one that holds everywhere. 2. Another task of the thread that began one
    has nothing to do with it. 3. A thread does not inherit a context: it belongs to the one that goes on. Raises InUse in a
    thread that may belong to several.
    """
    journal: Journal | None = _current.get()
    if journal is _APART:
        return None
    if journal is None and _everywhere:
        return _everywhere[-1]
    if journal is not None or not _active:  # (1)
        return journal
    here = threading.get_ident()
    others = [each for each, thread in list(_active.items()) if thread != here]  # (2)
    if len(others) > 1:
        raise InUse(
            "Several recordings go on, and this thread belongs to none: begin it in a copy of the context "
            "(contextvars.copy_context().run)."
        )
    return others[0] if others else None  # (3)


@contextlib.contextmanager
def _going_on(journal: Journal, everywhere: bool) -> Iterator[None]:
    token = _current.set(journal)
    _active[journal] = threading.get_ident()
    if everywhere:
        _everywhere.append(journal)
    try:
        yield
    finally:
        if everywhere:
            _everywhere.remove(journal)
        del _active[journal]
        with contextlib.suppress(
            ValueError
        ):  # begun in another task, which has ended: an async fixture of a test
            _current.reset(token)


@contextlib.contextmanager
def record(path: str | Path, *, everywhere: bool = False) -> Iterator[Recorder]:
    """Everything inside is written to `path`, which is begun anew. `everywhere`: also what other tasks do that were begun
    outside, as those of a test whose fixture records."""
    recorder = Recorder(Path(path))
    with contextlib.closing(recorder), _going_on(recorder, everywhere):
        yield recorder


@contextlib.contextmanager
def replay(path: str | Path, *, everywhere: bool = False) -> Iterator[Player]:
    """Everything inside is answered from `path`; `everywhere` as in `record`."""
    player = Player(Path(path))
    with _going_on(player, everywhere):
        yield player


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is done inside belongs to an effect, and is neither recorded nor replayed by itself."""
    token = _current.set(_APART)
    try:
        yield
    finally:
        _current.reset(token)


def effect(kind: str, request: Any, do: Callable[[], T]) -> T:
    """What `do` gives, a value of JSON: recorded, or replayed without doing it. `request` says what is asked. A value comes
    as JSON has it (a tuple as a list), while it is recorded too. What `do` raises is raised again by a replay, as EffectFailed
    where it is no error of Python's own."""
    journal = current()
    if journal is None:
        return do()
    if isinstance(journal, Player):
        return journal.answer(kind, request)  # type: ignore[no-any-return]
    number = journal.asked()
    try:
        with apart():
            value = do()
    except Exception as error:  # whatever it is, the program goes on from it in a replay too
        journal.keep_error(number, kind, request, error)
        raise
    journal.keep(number, kind, request, value)
    return json.loads(_json(value))  # type: ignore[no-any-return]


async def aeffect(kind: str, request: Any, do: Callable[[], Awaitable[T]]) -> T:
    """The same for what is awaited."""
    journal = current()
    if journal is None:
        return await do()
    if isinstance(journal, Player):
        return journal.answer(kind, request)  # type: ignore[no-any-return]
    number = journal.asked()
    try:
        with apart():
            value = await do()
    except Exception as error:
        journal.keep_error(number, kind, request, error)
        raise
    journal.keep(number, kind, request, value)
    return json.loads(_json(value))  # type: ignore[no-any-return]


_PLAIN = (str, int, float, bool, type(None))


def _sole(path: Path) -> BinaryIO:
    """The file, emptied, if nobody else records to it. Windows has no such lock. Raises InUse."""
    file = path.open("ab")
    sync_folder(path.parent)
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
    except BlockingIOError:
        file.close()
        raise InUse(f"Another run is recorded to {path}. Wait for its end, or name another file.") from None
    return file


def _effect(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
        int(found["number"]), found["kind"], found["request"], found.get("raised") or found["response"]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidRequest(f"{path}:{number} is no line of a recording. Record it anew.") from None
    return found  # type: ignore[no-any-return]


def _raised(told: dict[str, Any]) -> Exception:
    kind = getattr(builtins, told["type"], None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # one that is made of more than a text
            return kind(*told["args"])
    return EffectFailed(f"{told['type']}: {told['message']}")


def _json(value: Any) -> bytes:
    """Half a surrogate pair, as in a file's name, is kept too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _digest(kind: str, request: Any) -> str:
    canonical = json.dumps([kind, request], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _nearest(mine: str, others: list[dict[str, Any]]) -> dict[str, Any]:
    """By both ends: thousands of long conversations are looked through while the program waits."""
    alike = difflib.SequenceMatcher(None, "", mine[:_LOOK] + mine[-_LOOK:], autojunk=False)
    best, nearest = -1.0, others[0]
    for effect in others:
        theirs = _shown(effect["request"])
        alike.set_seq1(theirs[:_LOOK] + theirs[-_LOOK:])
        if alike.real_quick_ratio() > best and (ratio := alike.quick_ratio()) > best:
            best, nearest = ratio, effect
    return nearest


def _pieces(shown: str) -> list[str]:
    """Lines; a text's own, too, and none that is endless."""
    lines = shown.replace("\\n", "\\n\n").splitlines()
    return [line[at : at + _WIDE] for line in lines for at in range(0, len(line) or 1, _WIDE)]


def _shown(request: Any) -> str:
    return json.dumps(request, sort_keys=True, ensure_ascii=False, indent=1)
