"""The Hugging Face hub: what a repository has, and fetching a choice of it into the hub's cache.

huggingface_hub is imported at the first call, because it costs a quarter of a second. Everything here blocks;
`pulls` runs it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from portico.errors import Gated, LibraryError, NoSpace, PullFailed
from portico.library import hubcache
from portico.library.choice import Choice, RemoteFile
from portico.library.disk import SPARE, disk_error, free_bytes
from portico.library.hubcache import CachedFile, Snapshot
from portico.library.hubsettings import HubSettings as HubSettings
from portico.library.progress import VERIFYING, Progress
from portico.library.transfer import Stop, Transfer
from portico.messages import Value

if TYPE_CHECKING:
    import httpx2

LOOK_TIMEOUT = 15.0  # seconds for the answer about a repository
EVERY = 0.1  # seconds between two reports about one file
BEAT = 1.0  # seconds between two signs that files are still verified

Report = Callable[[Progress], None]


class Unreachable(PullFailed):
    """The hub did not answer, or only that it cannot now; what is here already may still be used."""


class Remote(Value, frozen=True, kw_only=True):
    """A repository as it is now. `license` is the id on its card, such as apache-2.0."""

    repository: str
    commit: str
    license: str = ""
    files: tuple[RemoteFile, ...]


class Hub:
    """The hub at `settings`. `free` tells a folder's free bytes."""

    def __init__(
        self, settings: HubSettings, *, free: Callable[[Path], int] = free_bytes, delay: float = 1.0
    ) -> None:
        self._settings, self._free, self._delay = settings, free, delay

    def look(self, repository: str) -> Remote:
        """What the repository has. Raises Unreachable, Gated, PullFailed."""
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

        api = HfApi(endpoint=self._settings.endpoint, token=self._settings.token, library_name="portico")
        try:
            found = api.model_info(repository, revision="main", files_metadata=True, timeout=LOOK_TIMEOUT)
        except HfHubHTTPError as error:
            raise explain(error.response, repository) from error
        except OfflineModeIsEnabled as error:
            raise Unreachable(f"{repository} is not fetched: HF_HUB_OFFLINE is set.") from error
        except (HFValidationError, ValueError, TypeError, KeyError) as error:
            raise PullFailed(f"{repository}: the hub's answer cannot be read ({error})") from error
        except httpx2.HTTPError as error:
            raise Unreachable(
                f"{api.endpoint} cannot be reached: {str(error) or type(error).__name__}."
            ) from error
        files = tuple(
            RemoteFile(
                path=file.rfilename,
                size=file.lfs.size if file.lfs else file.size or 0,
                sha256=file.lfs.sha256 if file.lfs else None,
                git=file.blob_id,
            )
            for file in found.siblings or []
        )
        card = found.card_data.get("license") if found.card_data else None
        return Remote(
            repository=found.id,
            commit=found.sha or "",
            license=card if isinstance(card, str) else "",
            files=files,
        )

    def read(self, remote: Remote, path: str, most: int) -> bytes:
        """The first `most` bytes of a file, or all of a shorter one. Raises Unreachable, Gated, PullFailed."""
        import httpx2
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(remote.repository, path, revision=remote.commit, endpoint=self._settings.endpoint)
        headers = build_hf_headers(token=self._settings.token, library_name="portico")
        headers |= {"Range": f"bytes=0-{most - 1}", "Accept-Encoding": "identity"}
        content = b""
        try:
            with get_session().stream(
                "GET", url, headers=headers, timeout=LOOK_TIMEOUT, follow_redirects=True
            ) as response:
                if response.status_code >= 400:
                    raise explain(response, remote.repository)
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) >= most:
                        break
        except httpx2.HTTPError as error:
            raise Unreachable(f"{url} cannot be reached: {str(error) or type(error).__name__}.") from error
        return content[:most]

    def plan(self, remote: Remote, choice: Choice) -> tuple[Snapshot, tuple[CachedFile, ...]]:
        """Where the chosen files will lie, and which are there already. Raises PullFailed for a name or a hash
        that cannot be one."""
        snapshot = Snapshot(cache=self._settings.cache, repository=remote.repository, commit=remote.commit)
        files = tuple(
            CachedFile(path=file.path, size=file.size, hash=(file.sha256 or file.git or "").lower())
            for file in choice.files
        )
        hubcache.check(snapshot, files)
        there = {file.path for file in files if hubcache.has(snapshot, file)}
        return snapshot, tuple(
            CachedFile(path=file.path, size=file.size, hash=file.hash, fetched=file.path not in there)
            for file in files
        )

    def fetch(self, snapshot: Snapshot, files: tuple[CachedFile, ...], report: Report, stop: Stop) -> None:
        """Brings the files into the cache, verified and under their names; those that are there are not
        fetched again. Raises NoSpace, Gated, PullFailed; Stopped when `stop` is set."""
        wanted = [file for file in files if not hubcache.has(snapshot, file)]
        self._make_room(snapshot, wanted)
        for file in files:
            report(_progress(file, file.size if file not in wanted else _arrived(snapshot, file)))
        transfer = self._transfer(snapshot, stop)
        try:
            for file in wanted:
                meter = _Meter(file, report)
                with _locked(snapshot, file, stop, partial(_look, snapshot, file, meter)):
                    if not hubcache.has(snapshot, file):
                        transfer.fetch(self._url(snapshot, file), file, snapshot.part(file.hash), meter)
                report(_progress(file, file.size))
            verifies = _Beat(report)
            for file in wanted:
                with _locked(snapshot, file, stop, verifies):
                    if not hubcache.has(snapshot, file):
                        transfer.verify(file, snapshot.part(file.hash), verifies)
                        os.replace(snapshot.part(file.hash), snapshot.blob(file.hash))
            for file in files:
                hubcache.link(snapshot, file)
            hubcache.set_reference(snapshot)
        except OSError as error:
            raise disk_error(
                error, snapshot.storage / "blobs", needed=sum(file.size for file in wanted)
            ) from error

    def _make_room(self, snapshot: Snapshot, wanted: list[CachedFile]) -> None:
        needed = sum(file.size - _arrived(snapshot, file) for file in wanted)
        free = self._free(Path(snapshot.cache))
        if needed and needed + SPARE > free:
            raise NoSpace(path=snapshot.cache, needed=needed + SPARE, free=free)
        try:
            (snapshot.storage / "blobs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, snapshot.storage / "blobs", needed=needed) from error

    def _transfer(self, snapshot: Snapshot, stop: Stop) -> Transfer:
        from huggingface_hub import get_session

        # Public, but exported in a way that mypy does not see.
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        def check(response: httpx2.Response) -> None:
            if response.status_code >= 400:
                raise explain(response, snapshot.repository)

        headers = build_hf_headers(token=self._settings.token, library_name="portico")
        return Transfer(get_session(), headers, stop, check=check, delay=self._delay)

    def _url(self, snapshot: Snapshot, file: CachedFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            snapshot.repository, file.path, revision=snapshot.commit, endpoint=self._settings.endpoint
        )


class _Meter:
    """Told of every piece that arrives; reports ten times a second, and never less than before."""

    def __init__(self, file: CachedFile, report: Report) -> None:
        self._file, self._report = file, report
        self._next = 0.0
        self._most = 0

    def __call__(self, completed: int) -> None:
        # A server that cannot continue sends the beginning again: the count waits until it is where it was.
        self._most = max(self._most, completed)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            self._report(_progress(self._file, self._most))


class _Beat:
    """Says that files are verified, at once and then every second as long as that goes on: hashing a large model takes
    minutes, and whoever hears nothing takes it for one that hangs."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._next = 0.0
        self()

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + BEAT
            self._report(VERIFYING)


def _look(snapshot: Snapshot, file: CachedFile, meter: _Meter) -> None:
    """Reports what another process, which fetches the same file, has of it."""
    meter(_arrived(snapshot, file))


def _progress(file: CachedFile, completed: int) -> Progress:
    if len(file.hash) != 64:
        return Progress(status=f"pulling {file.path}", total=file.size, completed=completed)
    digest = "sha256:" + file.hash
    return Progress(status=f"pulling {file.hash[:12]}", digest=digest, total=file.size, completed=completed)


def _arrived(snapshot: Snapshot, file: CachedFile) -> int:
    """Bytes of the file that an earlier, interrupted pull has left."""
    with contextlib.suppress(OSError):
        return min(snapshot.part(file.hash).stat().st_size, file.size)
    return 0


@contextlib.contextmanager
def _locked(snapshot: Snapshot, file: CachedFile, stop: Stop, waits: Callable[[], None]) -> Iterator[None]:
    """Keeps other processes, huggingface_hub's among them, from fetching the same file into the same part. `waits` is
    called again and again while one of them does."""
    from filelock import FileLock, Timeout  # huggingface_hub depends on it

    path = snapshot.lock(file.hash)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0.5, mode=0o664)
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            stop.check()
            waits()
        except NotImplementedError:
            break  # a file system without locks: two at once spoil a part, and verifying finds it
    try:
        yield
    finally:
        lock.release()


def explain(response: httpx2.Response, repository: str) -> LibraryError:
    """The hub's refusal in our words, its own reason included."""
    said = response.headers.get("X-Error-Message", "")
    code = response.headers.get("X-Error-Code", "")
    status = response.status_code
    reason = f" The hub says: {said}" if said else ""
    if code == "GatedRepo" or (status == 403 and "gated" in said.lower()):
        return Gated(
            f"{repository}: its owner asks you to accept a licence first. Accept it at "
            f"https://huggingface.co/{repository}, set HF_TOKEN to a token of that account, then pull again.{reason}"
        )
    if code == "EntryNotFound":
        return PullFailed(f"{repository} has no such file ({response.request.url.path}).{reason}")
    if code == "RevisionNotFound":
        return PullFailed(f"{repository} has no branch `main`.{reason}")
    if code == "RepoNotFound" or status in (401, 404):
        return PullFailed(
            f"there is no repository {repository} on the hub, or it is private and HF_TOKEN is not set to a token "
            f"that may read it.{reason}"
        )
    refused = Unreachable if status == 429 or status >= 500 else PullFailed
    return refused(f"{repository} cannot be fetched: the hub answered {status}.{reason}")
