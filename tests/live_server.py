"""The real server, in a process of its own, as a user would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

START_SECONDS = 30.0
STOP_SECONDS = 20.0
_direct = build_opener(ProxyHandler({})).open  # this machine is never reached through a proxy


@dataclass
class LiveServer:
    """A running `portico serve`. `log` holds what it wrote to stderr."""

    url: str
    port: int
    model: str
    process: subprocess.Popen[bytes]
    log: Path
    key: str = ""

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """JSON in, JSON out, in the plainest way; raises HTTPError on an error's status."""
        payload = None if body is None else json.dumps(body).encode()
        keys = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = Request(self.url + path, payload, keys | (headers or {}), method=method)
        try:
            with _direct(request, timeout=30) as reply:
                raw = reply.read()
        except HTTPError as error:
            with error:  # else its socket is open until the collector finds it, in somebody else's test
                kept = BytesIO(error.read())
            raise HTTPError(error.url, error.code, error.msg, error.headers, kept) from None
        return json.loads(raw) if raw else None

    def ask_text(self, path: str) -> str:
        with _direct(self.url + path, timeout=10) as reply:
            return str(reply.read().decode())

    def health(self) -> dict[str, Any]:
        health = self.ask("GET", "/health")
        assert isinstance(health, dict)
        return health

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.ask_text("/metrics").splitlines()
        values = [float(line.split()[-1]) for line in lines if line.partition("{")[0].split()[0:1] == [name]]
        assert values, f"/metrics has no {name}"
        return sum(values)

    def stop(self) -> int:
        """SIGTERM, as a service manager does it; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop at SIGTERM:\n{self.log_text()}") from None

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def plain_environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without what would configure a server, and with an empty home."""
    unwanted = ("PORTICO_", "OLLAMA_", "XDG_", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    if "PYTHONPATH" in kept:  # the server's working folder is another one
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, kept["PYTHONPATH"].split(os.pathsep)))
    own = {"HOME": str(home), "PORTICO_HOME": str(home / "portico"), "HF_HUB_OFFLINE": "1"}
    # Said, because the models of an Ollama service of this machine would be found too.
    return kept | own | {"OLLAMA_MODELS": str(home / ".ollama" / "models"), **more}


@contextmanager
def serve(
    folder: Path,
    *arguments: str,
    environ: dict[str, str] | None = None,
    command: tuple[str, ...] = (sys.executable, "-m", "portico"),
    key: str = "",
    patience: float = START_SECONDS,
) -> Iterator[LiveServer]:
    """`portico serve --port 0 ARGUMENTS`, from an empty working folder; stopped at the end. `key` is one that it
    knows, if not by its environment."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--json", *arguments],
            cwd=folder,
            env=plain_environment(folder, **(environ or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        event = _started(process, log, patience)
        url = f"http://127.0.0.1:{event['port']}"
        key = key or (environ or {}).get("PORTICO_API_KEY", "").partition(",")[0]
        server = LiveServer(url, event["port"], "", process, log, key)
        server.model = _first_model(server)
        yield server
        server.stop()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _started(process: subprocess.Popen[bytes], log: Path, patience: float) -> dict[str, Any]:
    """The server_started event. The rest of its output is read and dropped, so that it never blocks."""
    found: list[dict[str, Any]] = []
    seen = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not seen.is_set() and b'"server_started"' in line:
                found.append(json.loads(line))
                seen.set()
        seen.set()

    threading.Thread(target=read, daemon=True).start()
    if not seen.wait(patience) or not found:
        raise AssertionError(
            f"the server did not start (exit code {process.poll()}):\n"
            + log.read_text(encoding="utf-8", errors="replace")
        )
    return found[0]


def _first_model(server: LiveServer) -> str:
    models = server.ask("GET", "/v1/models")["data"]
    assert models, "the server lists no model"
    return str(models[0]["id"])


def wait_until(condition: Any, *, seconds: float, what: str) -> float:
    """Polls every 5 ms; the seconds it took. For what happens in another process and sends no event."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return time.monotonic() - started
