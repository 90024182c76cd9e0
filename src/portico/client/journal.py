"""What a batch has answered, on disk: two files in the form of OpenAI's output and error files.

`out.jsonl` has a line for each row that was answered, `out.errors.jsonl` one for each that failed. A line is whole, and on
the disk, before another row takes the place of its own in flight; a run that was killed reads both, drops a last line that
was cut, and goes on. One run at a time: a lock beside the output says so, and ends with its process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from portico.disk import sync_folder
from portico.errors import InUse, InvalidRequest

_BEGINS = b'{"id":"batch_req_'
"""Every line of ours: what is cut off and begins otherwise is not ours to throw away."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a row, as the files have it: `response` has status_code, request_id and body, as the server gave
    them; `error` has code and message, where there was no reply."""

    id: str = ""
    custom_id: str
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    digest: str = msgspec.field(name="portico_digest", default="")
    url: str = msgspec.field(name="portico_server", default="")
    """The server that answered."""

    @property
    def ok(self) -> bool:
        return self.response is not None and self.response.get("status_code") == 200


class Journal:
    """Owns both files while a run goes on. Without a path it keeps nothing.

    `done`, `failed`: custom_id -> digest of the request. Raises InUse where another run writes to them, InvalidRequest
    for a file that is something else: nothing of it is changed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.errors_path = path, None
        self.done: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._file: BinaryIO | None = None
        self._errors: BinaryIO | None = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self.errors_path = path.with_name(f"{path.name.removesuffix('.jsonl')}.errors.jsonl")
        self._lock = _locked(path)
        try:
            good, bad = _read(path, self.done), _read(self.errors_path, self.failed)
            self._file, self._errors = _opened(path, good), _opened(self.errors_path, bad)
        except BaseException:
            self.close()
            raise
        if both := self.done.keys() & self.failed.keys():
            self._errors = self._without(self.errors_path, self._errors, self.failed, both)

    def outcomes(self) -> Iterator[Outcome]:
        """What was there when this run began, answers first."""
        for path, kept in ((self.path, self.done), (self.errors_path, self.failed)):
            if path is None or not path.exists():
                continue
            with path.open("rb") as file:
                for line in file:
                    outcome = msgspec.json.decode(line, type=Outcome)
                    if outcome.custom_id in kept:
                        yield outcome

    def forget(self, custom_ids: Container[str]) -> None:
        """These are asked again: their lines go, and the others stay."""
        if self.path is None or self.errors_path is None:
            return
        if any(name in custom_ids for name in self.done):
            self._file = self._without(self.path, self._file, self.done, custom_ids)
        if any(name in custom_ids for name in self.failed):
            self._errors = self._without(self.errors_path, self._errors, self.failed, custom_ids)

    def _without(
        self, path: Path, file: BinaryIO | None, kept: dict[str, str], gone: Container[str]
    ) -> BinaryIO:
        fresh = path.with_name(path.name + ".part")
        with path.open("rb") as old, fresh.open("wb") as new:
            for line in old:
                if msgspec.json.decode(line, type=Outcome).custom_id not in gone:
                    new.write(line)
            new.flush()
            os.fsync(new.fileno())
        if file is not None:
            file.close()  # Windows replaces no file that is open
        os.replace(fresh, path)
        sync_folder(path.parent)
        for name in [name for name in kept if name in gone]:
            del kept[name]
        return path.open("ab")

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Returns when they are on the disk."""
        good = [outcome for outcome in outcomes if outcome.ok]
        bad = [outcome for outcome in outcomes if not outcome.ok]
        self.done.update((outcome.custom_id, outcome.digest) for outcome in good)
        self.failed.update((outcome.custom_id, outcome.digest) for outcome in bad)
        if self.path is not None and good:
            self._file = self._file or _begun(self.path)
            _append(self.path, self._file, good)
        if self.errors_path is not None and bad:
            self._errors = self._errors or _begun(self.errors_path)
            _append(self.errors_path, self._errors, bad)

    def close(self) -> None:
        for file in (self._file, self._errors):
            if file is not None:
                with contextlib.suppress(OSError):  # what a full disk has not taken, and `add` has told
                    file.close()
        if self._errors is not None and self.errors_path is not None and not self.failed:
            self.errors_path.unlink()  # what failed once has been answered since
        self._file = self._errors = None
        if self.path is not None:
            with contextlib.suppress(
                OSError
            ):  # Windows removes no file that is open, and the lock does it itself
                os.unlink(self._lock.lock_file)
            self._lock.release()


def _locked(path: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUse(f"Another run is writing to {path}. Wait for its end, or name another output.") from None
    return lock


def _read(path: Path, into: dict[str, str]) -> int:
    """The whole lines of a file, into `into`; how many bytes they are."""
    if not path.exists():
        return 0
    good = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            outcome = _outcome(line)
            if outcome is None and (line.endswith(b"\n") or not _is_ours(line)):
                raise InvalidRequest(
                    f"{path}:{number} is no line of a batch's output, and nothing was changed. Name another output."
                )
            if outcome is None:
                break  # the end of a run that was killed while it wrote
            into[outcome.custom_id] = outcome.digest
            good += len(line)
    return good


def _is_ours(cut: bytes) -> bool:
    return cut.startswith(_BEGINS) or _BEGINS.startswith(cut)


def _outcome(line: bytes) -> Outcome | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(line, type=Outcome)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _opened(path: Path, good: int) -> BinaryIO | None:
    """Without what stands after its whole lines. None: it is not there, and begins with its first line."""
    if not path.exists():
        return None
    file = path.open("ab")
    file.truncate(good)
    return file


def _begun(path: Path) -> BinaryIO:
    file = path.open("ab")
    sync_folder(path.parent)
    return file


def _append(path: Path, file: BinaryIO, outcomes: Sequence[Outcome]) -> None:
    try:
        file.write(b"".join(msgspec.json.encode(_named(outcome)) + b"\n" for outcome in outcomes))
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:  # no space: the next run cuts off what is not whole
        error.filename = str(path)
        raise


def _named(outcome: Outcome) -> Mapping[str, Any]:
    """With an id of its own, as OpenAI's lines have one: the first field of each line."""
    told = hashlib.sha256(f"{outcome.digest} {outcome.custom_id}".encode()).hexdigest()[:32]
    return {
        "id": f"batch_req_{told}",
        "custom_id": outcome.custom_id,
        "response": outcome.response,
        "error": outcome.error,
        "portico_digest": outcome.digest,
        "portico_server": outcome.url,
    }
