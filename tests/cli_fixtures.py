"""For the tests of the command line: a small Ollama server with a script, over real sockets, and a terminal."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from live_server import plain_environment

MODEL = {
    "name": "toy:latest",
    "model": "toy:latest",
    "size": 2_600_000_000,
    "digest": "6f2a91c0" * 8,
    "modified_at": "2026-11-03T10:00:00.123456789Z",
    "details": {
        "family": "toy",
        "parameter_size": "4.0B",
        "quantization_level": "Q4_K_M",
        "context_length": 40960,
    },
    "capabilities": ["completion", "tools"],
}


class Ollama:
    """What the server knows and what it was asked. `say` gives the pieces of an answer for a request body;
    it may wait on events, so that a test decides when the next piece comes. `lines` replaces the whole answer;
    `beside_models` is what /api/tags has besides; `refuses` is a field that is answered with 400;
    `raw_text` sends characters as they are, without JSON's escapes."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = [MODEL]
        self.beside_models: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.say: Callable[[dict[str, Any]], Iterator[str]] = lambda body: iter(["Hel", "lo."])
        self.thoughts = ""
        self.pulls: list[dict[str, Any]] = [{"status": "pulling manifest"}, {"status": "success"}]
        self.error: tuple[int, str] | None = None
        self.refuses = ""
        self.health: dict[str, Any] | None = None
        self.lines: list[dict[str, Any]] | None = None
        self.raw_text = False
        self.hung_up = threading.Event()
        self.url = ""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for _, asked, body in self.asked if asked == path]


@contextmanager
def serving(ollama: Ollama) -> Iterator[Ollama]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _answering(ollama))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    ollama.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield ollama
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answering(ollama: Ollama) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            self._heard()
            match self.path:
                case "/api/version":
                    self._json({"version": "0.33.0"})
                case "/api/tags":
                    self._json({"models": ollama.models, **ollama.beside_models})
                case "/api/ps":
                    loaded = {
                        "name": "toy:latest",
                        "size": 10 * 2**30,
                        "size_vram": 0,
                        "expires_at": "2318-11-03T10:00:00Z",
                        "context_length": 8192,
                    }
                    self._json({"models": [loaded] if ollama.models else []})
                case "/health" if ollama.health is not None:
                    self._json(ollama.health, 503)  # as with an engine that failed
                case "/v1/models":
                    self._json({"object": "list", "data": [{"id": "toy"}]})
                case _:
                    self._text(404, "404 page not found")

        def do_DELETE(self) -> None:
            body = self._heard()
            if self._known(body.get("model", "")):
                self._text(200, "")

        def do_POST(self) -> None:
            body = self._heard()
            if ollama.refuses and ollama.refuses in body:
                self._json({"error": {"message": f"unknown field {ollama.refuses}"}}, 400)
                return
            if ollama.error is not None:
                self._json({"error": ollama.error[1]}, ollama.error[0])
                return
            if self.path == "/api/pull":
                self._lines(iter(ollama.pulls))
                return
            if not self._known(body.get("model") or body.get("source") or ""):
                return
            match self.path:
                case "/api/show":
                    self._json(SHOWN)
                case "/api/copy":
                    self._text(200, "")
                case "/api/generate" if not body.get("prompt"):
                    self._json({"model": body["model"], "response": "", "done": True, "done_reason": "load"})
                case "/api/chat" | "/api/generate":
                    self._lines(self._answer(body) if ollama.lines is None else iter(ollama.lines))
                case "/v1/chat/completions":
                    self._events(body)
                case _:
                    self._text(404, "404 page not found")

        def _answer(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
            chat = self.path == "/api/chat"
            if ollama.thoughts:
                thought = {"role": "assistant", "content": "", "thinking": ollama.thoughts}
                yield {"message": thought} if chat else {"response": "", "thinking": ollama.thoughts}
            count = 0
            for piece in ollama.say(body):
                count += 1
                yield {"message": {"role": "assistant", "content": piece}} if chat else {"response": piece}
            end = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
            figures = {"prompt_eval_count": 7, "eval_count": count}
            yield end | {"done": True, "done_reason": "stop"} | figures

        def _events(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                count = self._said(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
                ollama.hung_up.set()
                return
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count}})
            self._piece(b"data: [DONE]\n\n")
            self._piece(b"")

        def _said(self, body: dict[str, Any]) -> int:
            count = 0
            for piece in ollama.say(body):
                count += 1
                self._event({"choices": [{"index": 0, "delta": {"content": piece}}]})
            return count

        def _event(self, value: dict[str, Any]) -> None:
            self._piece(b"data: " + json.dumps(value).encode() + b"\n\n")

        def _lines(self, lines: Iterator[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for line in lines:
                    text = json.dumps({"model": "toy", **line}, ensure_ascii=not ollama.raw_text)
                    self._piece(text.encode() + b"\n")
                self._piece(b"")
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
                ollama.hung_up.set()

        def _piece(self, piece: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()

        def _known(self, model: str) -> bool:
            names = {row["name"] for row in ollama.models}
            if model in names or f"{model}:latest" in names:
                return True
            self._json({"error": f"model '{model}' not found"}, 404)
            return False

        def _heard(self) -> dict[str, Any]:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            ollama.asked.append((self.command, self.path, body))
            ollama.keys.append(self.headers.get("Authorization"))
            return body

        def _json(self, value: Any, status: int = 200) -> None:
            self._send(status, "application/json", json.dumps(value).encode())

        def _text(self, status: int, text: str) -> None:
            self._send(status, "text/plain", text.encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Answering


SHOWN = {
    "details": MODEL["details"],
    "capabilities": ["completion", "tools"],
    "model_info": {
        "general.architecture": "toy",
        "general.parameter_count": 4_000_000_000,
        "toy.context_length": 40960,
    },
    "template": "{{ .Prompt }}",
    "parameters": 'stop                           "###"',
    "license": "Apache-2.0\nand the rest of it",
    "modified_at": MODEL["modified_at"],
}


# ---- running the program -----------------------------------------------------------------------


UNWANTED = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "no_color", "force_color", "columns", "ci")


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without what would decide something, and with a data folder of its own."""
    kept = {name: value for name, value in plain_environment(home).items() if name.lower() not in UNWANTED}
    return kept | {"TERM": "xterm", **more}


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "portico", *arguments]


def run(
    *arguments: str, env: Mapping[str, str], stdin: str | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[str]:
    """The program as a child process, with pipes."""
    return subprocess.run(
        program(*arguments),
        env=env,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class Terminal:
    """The program in a pseudo-terminal of its own, as somebody would use it."""

    def __init__(self, *arguments: str, env: Mapping[str, str]) -> None:
        import pty

        self._ours, theirs = pty.openpty()
        # The terminal must be the child's controlling one, or Ctrl-C would be a character like any other.
        controlling = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", controlling, "-m", "portico", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, as late as a person's: CPython's readline overlooks a signal that comes while it still
        draws the last key, until the next key."""
        time.sleep(0.15)
        self.type("\x03")

    def wait_for(self, text: str, *, seconds: float = 20) -> str:
        """What is on the screen since the last call, up to and including `text`."""
        until = time.monotonic() + seconds
        while text not in self.seen[self._read :]:
            assert time.monotonic() < until, f"no {text!r} in {self.seen[self._read :]!r}"
            if not self._more(0.1) and self.process.poll() is not None:
                while self._more(0.05):
                    pass
                assert text in self.seen[self._read :], f"ended without {text!r}: {self.seen[self._read :]!r}"
        end = self.seen.index(text, self._read) + len(text)
        found, self._read = self.seen[self._read : end], end
        return found

    def end(self, *, seconds: float = 20) -> int:
        """The exit code, once it has ended; everything it wrote is in `seen`."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, f"still running: {self.seen!r}"
            self._more(0.05)
        while self._more(0.05):
            pass
        return self.process.returncode

    def _more(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # Linux says so when the other side has gone
            return False
        self.seen += piece.decode("utf-8", "replace")
        return bool(piece)
