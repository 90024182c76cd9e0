"""`portico.local()`: a server of this program's own, in the background, that ends with it.

It is `portico serve` in a process of its own behind guard.py, which holds our end of a pipe: when this program ends, however
that is, also by kill -9, the pipe ends, and server and engine with it. (Windows has no guard: there a program that is killed
leaves its server behind.) It listens on a free port of loopback and answers only to a key that this program made up. It reads
no settings but what it is given here, and no other server is looked for or touched.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portico import guard, recording
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.errors import NotRunning
from portico.process import Log

BUNDLED = "portico-tiny"
_GRACE = 3.0
"""Seconds that it gets to end in order."""
_NOBODY = "http://127.0.0.1:9"
"""Whom a replay would ask, if it asked."""
_KEPT = ("PORTICO_HOME", "OLLAMA_MODELS")


def local(
    model: str = BUNDLED,
    *,
    engine: str = "llamacpp",
    context: int | None = None,
    parallel: int | None = None,
    seconds: float = 300.0,
    **client: Any,
) -> Client:
    """A client of a server in the background, started if this program has none for this model yet. It takes about a second
    with the bundled model, which works offline; a further call costs nothing. The server ends with the program.

    model: as in `portico serve MODEL`. context, parallel: tokens, and answers at once; else the model's and the engine's.
    seconds: how long its start may take. `client`: further arguments of Client.
    In a replay (portico.replay) nothing is started. Raises NotRunning with the reason, for one that does not start.
    """
    if _is_replayed():
        return Client(_NOBODY, **client)
    server = _ensure(model, engine, context, parallel, seconds)
    return Client(server.url, api_key=server.key, **client)


async def alocal(
    model: str = BUNDLED,
    *,
    engine: str = "llamacpp",
    context: int | None = None,
    parallel: int | None = None,
    seconds: float = 300.0,
    **client: Any,
) -> AsyncClient:
    """The same for an event loop, which is not held up by the start."""
    if _is_replayed():
        return AsyncClient(_NOBODY, **client)
    server = await asyncio.to_thread(_ensure, model, engine, context, parallel, seconds)
    return AsyncClient(server.url, api_key=server.key, **client)


def _is_replayed() -> bool:
    """A replay asks nobody: nothing is started for it."""
    return isinstance(recording.current(), recording.Player)


def stop() -> None:
    """Ends every server that `local` has started in this program. It is called when the program ends."""
    with _lock:
        running = [*_running.values()]
        _running.clear()
    for server in running:
        server.stop()


class _Server:
    """A `portico serve` of ours. Owns its process and the lifeline."""

    def __init__(self, arguments: list[str], seconds: float) -> None:
        self.key = f"local-{secrets.token_urlsafe(24)}"
        self.url = ""
        self._log, self._known = Log(), threading.Event()
        # -P: a file of the folder in which the program runs is none of its modules.
        command = [sys.executable, "-P", "-m", "portico", "serve", *arguments]
        if sys.platform != "win32":
            command = [sys.executable, "-P", str(guard.__file__), *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(os.environ, self.key),
            start_new_session=sys.platform != "win32",
        )
        threads = [threading.Thread(target=read, daemon=True) for read in (self._read_out, self._read_log)]
        for thread in threads:
            thread.start()
        if not self._known.wait(seconds) or not self.url:
            late = "" if self._known.is_set() else f" within {seconds:g} s"
            self.stop()
            for thread in threads:
                thread.join(_GRACE)
            raise NotRunning(
                f"The server of this program did not start{late}: {_reason(self._log).rstrip('.')}. "
                f"`portico serve {arguments[0]}` shows more."
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        process = self._process
        if process.poll() is None:
            if sys.platform == "win32":
                process.terminate()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)  # the guard overhears it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        self.hang_up()
        process.wait(_GRACE)

    def hang_up(self) -> None:
        """Lets go of the lifeline: what is left is killed."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if self.url:
                    continue
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "server_started":
                        self.url = str(event["url"])
                        self._known.set()
        self._known.set()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            while piece := os.read(pipe.fileno(), 65536):
                self._log.write(piece)


def _reason(log: Log) -> str:
    """What it said last: one line of JSON, unless it did not come so far."""
    last = log.tail(1)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(last)["error"]["message"])
    return log.tail(6)


_running: dict[tuple[Any, ...], _Server] = {}
_lock, _starting = threading.Lock(), threading.Lock()


def _ensure(model: str, engine: str, context: int | None, parallel: int | None, seconds: float) -> _Server:
    name = (model, engine, context, parallel)
    with _starting:  # who comes while it starts waits for the same one
        with _lock:
            found = _running.get(name)
        if found is not None and found.alive:
            return found
        if found is not None:
            found.stop()
        arguments = [model, "--engine", engine, "--host", "127.0.0.1", "--port", "0", "--json"]
        arguments += ["--config", os.devnull, "--keep-alive=-1", "--log-level", "error"]
        arguments += ["--context", str(context)] if context is not None else []
        arguments += ["--parallel", str(parallel)] if parallel is not None else []
        started = _Server(arguments, seconds)
        with _lock:
            _running[name] = started
        return started


def _environment(environ: Mapping[str, str], key: str) -> dict[str, str]:
    """Ours, without what would configure another server."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _KEPT or not name.startswith(("PORTICO_", "OLLAMA_"))
    }
    here = str(Path(__file__).parent.parent)
    paths = [here, *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PORTICO_API_KEY": key, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _forked() -> None:
    """A forked child has its parent's servers not, and must not keep their lifelines open."""
    global _lock, _starting
    _lock, _starting = threading.Lock(), threading.Lock()
    for server in _running.values():
        server.hang_up()
    _running.clear()


atexit.register(stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
