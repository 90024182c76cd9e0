"""`portico serve` with one GGUF file, in a process of its own on a free port of this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1]
MODEL = FOLDER / "portico-tiny.gguf"
CLONE = FOLDER.parents[1]
START_SECONDS, STOP_SECONDS = 60.0, 20.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class ServerFailed(Exception):
    """It did not start, or it is gone; with what it said last."""


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str, body: Any, seconds: float = 60.0) -> Any:
        sent = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        try:
            with _direct(sent, timeout=seconds) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ServerFailed(f"{path} answered {error.code}: {error.read()[:500].decode()}") from None
        except OSError as error:
            raise self.failed(f"{path} was not answered: {error}") from None

    def gone(self) -> bool:
        """Whether the process has ended. Waits a moment: a connection breaks before its process is gone."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        return self.process.poll() is not None

    def failed(self, what: str) -> ServerFailed:
        self.gone()
        code = self.process.poll()
        state = "it still runs" if code is None else f"it ended with exit code {code}"
        return ServerFailed(f"{what}; {state}. It said last:\n{last_lines(self.log)}")


def last_lines(log: Path, count: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def portico() -> list[str]:
    """The command: Portico of this environment, else that of the clone."""
    if importlib.util.find_spec("portico") is not None:
        return [sys.executable, "-m", "portico"]
    return [str(CLONE / ".venv" / "bin" / "python"), "-m", "portico"]


@contextmanager
def serve(model: Path, *arguments: str) -> Iterator[Server]:
    """Raises ServerFailed if it does not start. Stopped at the end."""
    unwanted = ("PORTICO_", "OLLAMA_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    with tempfile.TemporaryDirectory(prefix="portico-tiny-") as home:
        environ |= {"PORTICO_HOME": home, "HF_HUB_OFFLINE": "1", "OLLAMA_MODELS": home}
        log = Path(home) / "server.log"
        command = [
            *portico(),
            "serve",
            str(model.resolve()),
            "--port",
            "0",
            "--json",
            "--log-level",
            "warning",
        ]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=home,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        try:
            yield Server(_started(process, log), process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(process: subprocess.Popen[bytes], log: Path) -> str:
    found: list[str] = []
    seen = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if not found and (port := _port(line)):
                    found.append(f"http://127.0.0.1:{port}")
                    seen.set()
        seen.set()

    threading.Thread(target=read, daemon=True).start()
    if not seen.wait(START_SECONDS) or not found:
        raise ServerFailed(f"the server did not start (exit code {process.poll()}):\n{last_lines(log)}")
    return found[0]


def _port(line: bytes) -> int | None:
    """The port, from the line that says that the server has started; None from any other."""
    if b'"server_started"' not in line:
        return None
    try:
        return int(json.loads(line)["port"])
    except (ValueError, KeyError, TypeError):
        return None


def parallel(count: int) -> Sequence[str]:
    return ("--parallel", str(count), "--keep-alive", "-1")
