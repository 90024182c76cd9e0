"""Fetches one file over HTTP: goes on where an earlier try ended, and can be stopped at any moment.

huggingface_hub's own download is not used for the bytes: it begins anew after every interruption (its part files
have random names and are deleted on failure), reports every 10 MB, and a thread in it cannot be stopped. Its
session, headers and errors are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from portico.errors import PullFailed
from portico.library.disk import disk_error
from portico.library.hubcache import CachedFile

if TYPE_CHECKING:
    import httpx2

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 30.0  # seconds
TRIES = 5  # in a row, without a single byte
LARGEST_REQUEST = 32 * 1000**3  # the hub's CDN refuses to send more than 50 GB at once
_CHUNK = 1024 * 1024
_BUFFER = 256 * 1024  # what a kill loses of what has arrived
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Stopped(BaseException):
    """The transfer is not wanted any more. Like a cancellation it is no Exception, so that nothing swallows it."""


class _Again(Exception):
    """The server cannot answer now; it may later."""


class Stop:
    """Set by whoever no longer wants a transfer; ends also a read that waits for the network."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def set(self) -> None:
        self._set.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        if self._set.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        if self._set.wait(seconds):
            raise Stopped

    @contextlib.contextmanager
    def cuts(self, response: httpx2.Response) -> Iterator[None]:
        """While inside, `set` closes this response's connection."""
        stream = response.extensions.get("network_stream")
        found = stream.get_extra_info("socket") if stream is not None else None
        with self._lock:
            self._socket = found if isinstance(found, socket.socket) else None
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._socket = None


class Transfer:
    """Fetches files into their parts. `report` is told how many bytes of the file are there."""

    def __init__(
        self,
        session: httpx2.Client,
        headers: Mapping[str, str],
        stop: Stop,
        *,
        check: Callable[[httpx2.Response], None],
        delay: float = 1.0,
    ) -> None:
        """`check` raises a PorticoError for a response that is an error. `delay`: seconds before the first new try."""
        self._session, self._headers, self._stop, self._check = session, headers, stop, check
        self._delay = delay

    def fetch(self, url: str, file: CachedFile, part: Path, report: Callable[[int], None]) -> None:
        """Returns when `part` has all bytes; they are not verified. Raises PullFailed, NoSpace, and what
        `check` raises."""
        import httpx2

        failures = 0
        while (have := _size(part)) != file.size or not part.exists():
            if have > file.size:
                part.unlink()
                continue
            try:
                self._once(url, file, part, have, report)
                continue
            except (_Again, httpx2.RequestError) as error:
                self._stop.check()
                reason = str(error) or type(error).__name__
            except OSError as error:
                raise disk_error(error, part, needed=file.size - _size(part)) from error
            failures = 0 if _size(part) > have else failures + 1
            if failures > TRIES:
                raise PullFailed(
                    f"{file.path} cannot be fetched: {reason}. What has arrived is kept; pull it again."
                )
            self._stop.sleep(self._delay * 2 ** min(failures, 4))

    def _once(self, url: str, file: CachedFile, part: Path, have: int, report: Callable[[int], None]) -> None:
        import httpx2

        # Compressed, the bytes could be neither counted nor continued.
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if have or file.size > LARGEST_REQUEST:
            end = str(have + LARGEST_REQUEST - 1) if file.size - have > LARGEST_REQUEST else ""
            headers["Range"] = f"bytes={have}-{end}"
        timeout = httpx2.Timeout(CONNECT_TIMEOUT, read=READ_TIMEOUT)
        with (
            self._session.stream(
                "GET", url, headers=headers, timeout=timeout, follow_redirects=True
            ) as response,
            self._stop.cuts(response),
        ):
            if response.status_code == 416:  # the part is no beginning of this file
                part.unlink(missing_ok=True)
            if response.status_code == 416 or response.status_code in _TRANSIENT:
                raise _Again(f"the server answered {response.status_code}")
            self._check(response)
            have = _start(response, have)
            with open(part, "r+b" if have else "wb", buffering=_BUFFER) as out:
                out.seek(have)
                out.truncate()
                for chunk in response.iter_bytes():
                    self._stop.check()
                    have += len(chunk)
                    if have > file.size:
                        break
                    out.write(chunk)
                    report(have)
            self._stop.check()
        if have > file.size:
            part.unlink()
            raise PullFailed(f"{file.path} cannot be fetched: more than its {file.size} bytes came.")

    def verify(self, file: CachedFile, part: Path, goes_on: Callable[[], None]) -> None:
        """Compares the part's hash with the file's. A part that differs is deleted: nothing of it can be used. `goes_on` is
        called for each piece that was read."""
        git = len(file.hash) == 40
        found = hashlib.sha1(usedforsecurity=False) if git else hashlib.sha256()
        if git:
            found.update(f"blob {file.size}\0".encode())
        with open(part, "r+b", buffering=0) as content:
            while chunk := content.read(_CHUNK):
                self._stop.check()
                found.update(chunk)
                goes_on()
            os.fsync(content.fileno())
        if found.hexdigest() != file.hash:
            part.unlink()
            kind = "git" if git else "sha256"
            raise PullFailed(
                f"{file.path}: digest mismatch, expected {kind}:{file.hash}, got {kind}:{found.hexdigest()}. "
                "What was fetched is deleted; pull it again."
            )


def _start(response: httpx2.Response, have: int) -> int:
    """The byte that the body begins with: `have` if the server goes on, 0 if it sends all of it again."""
    if response.status_code != 206:
        return 0
    said = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if said != str(have):
        raise PullFailed(f"the server sent bytes from {said or 'somewhere'} where {have} was asked for")
    return have


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0
