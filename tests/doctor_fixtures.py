"""For the tests of `portico doctor`: servers that are something, nothing, or in the way."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cli_fixtures import environment, run

Say = Any | Callable[[dict[str, Any]], Any]
CHAT = "/v1/chat/completions"


@dataclass
class Place:
    """A server with a table of routes: what each answers (JSON, a status with JSON, bytes, or a function of the
    request's body), and the event HANG. Everything it was asked is kept."""

    routes: dict[str, Say] = field(default_factory=dict)
    server: str = "place"
    key: str | None = None
    """Routes below /v1 and /api want it."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, Authorization."""
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]

    def keys(self) -> set[str | None]:
        return {key for _, _, key in self.asked}


HANG = object()


@contextlib.contextmanager
def serving(place: Place) -> Iterator[Place]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def version_string(self) -> str:
            return place.server

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            key = self.headers.get("Authorization")
            place.asked.append((self.command, self.path, key))
            place.bodies.append((self.path, body))
            guarded = self.path.startswith(("/v1", "/api"))
            if place.key is not None and guarded and key != f"Bearer {place.key}":
                return self._send(401, {"error": {"message": f"Incorrect API key provided: {key}"}})
            said = place.routes.get(self.path, (404, {"detail": "Not Found"}))
            if callable(said):
                said = said(body)
            if said is HANG:
                place.released.wait(30)
                self.close_connection = True
                return
            status, value = said if isinstance(said, tuple) else (200, said)
            self._send(status, value)

        do_POST = do_GET

        def _send(self, status: int, value: Any) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            with contextlib.suppress(OSError):  # the doctor may have left
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status in (301, 302, 307):
                    self.send_header("Location", value["to"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    place.port = httpd.server_port
    try:
        yield place
    finally:
        place.released.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def listed(*names: str, owned_by: str = "vllm", **more: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "owned_by": owned_by, **more} for name in names]}


def vllm(*names: str, **routes: Say) -> Place:
    """As vLLM: only what it has when nothing special was asked at its start."""
    return Place(
        {
            "/v1/models": listed(*(names or ("qwen",)), max_model_len=4096),
            "/version": {"version": "0.32.0"},
            "/health": b"",
            CHAT: vllms_chat,
            "/tokenize": {"count": 1, "tokens": [9707], "max_model_len": 4096},
            **routes,
        },
        server="uvicorn",
    )


def vllms_chat(body: dict[str, Any], *, parser: bool = False) -> Any:
    """vLLM without details of prompt tokens; `parser`: it was started with one for tools. Its words are those of
    0.32."""
    if "tools" in body and not parser:
        asked = '"auto" tool choice requires --enable-auto-tool-choice and'
        asked = asked if body["tool_choice"] == "auto" else 'tool_choice="required" requires'
        text = f"{asked} --tool-call-parser to be set"
        return 400, {"error": {"message": text, "type": "BadRequestError", "code": 400}}
    message: dict[str, Any] = {"role": "assistant", "content": "Hello", "tool_calls": []}
    if body.get("tool_choice") == "required":
        message |= {
            "content": "",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "go"}}],
        }
    if "response_format" in body:
        message |= {"content": ' "yes" '}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [{"token": "Hello", "logprob": -0.1, "top_logprobs": []}]}
    usage = {"prompt_tokens": 130, "completion_tokens": 1, "total_tokens": 131, "prompt_tokens_details": None}
    return {"id": "1", "object": "chat.completion", "model": "qwen", "choices": [choice], "usage": usage}


def ollama(*names: str, **routes: Say) -> Place:
    names = names or ("toy:latest",)
    return Place(
        {
            "/v1/models": listed(*names, owned_by="library"),
            "/api/version": {"version": "0.33.0"},
            "/api/ps": {
                "models": [{"name": names[0], "size": 4 << 30, "size_vram": 1 << 30, "context_length": 8192}]
            },
            "/api/chat": ollamas_chat,
            **routes,
        }
    )


def ollamas_chat(body: dict[str, Any]) -> Any:
    message: dict[str, Any] = {"role": "assistant", "content": "Hello"}
    if "tools" in body:
        message |= {"content": "", "tool_calls": [{"function": {"name": "go", "arguments": {}}}]}
    if "format" in body:
        message |= {"content": '"no"'}
    logprobs = {"logprobs": [{"token": "Hello", "logprob": -0.1}]} if body.get("logprobs") else {}
    return {"model": body["model"], "message": message, "done": True, "done_reason": "stop", **logprobs}


def refused_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def surroundings(home: Path, **variables: str) -> dict[str, str]:
    """An environment in which no client's variable is set but these."""
    found = environment(home)
    return {
        name: value for name, value in found.items() if not name.startswith(("VLLM_", "OPENAI_"))
    } | variables


def doctor(*arguments: str, home: Path, **variables: str) -> tuple[list[dict[str, Any]], int, str]:
    """The lines of `portico doctor --json`, its exit code, and all it wrote."""
    done = run("doctor", *arguments, "--json", env=surroundings(home, **variables))
    answer = json.loads(done.stdout)
    assert answer.keys() == {"schema", "checks"} and answer["schema"] == 1
    for check in answer["checks"]:
        assert check.keys() == {"group", "name", "state", "found", "do"}
    return answer["checks"], done.returncode, done.stdout + done.stderr


def line(checks: list[dict[str, Any]], name: str, group: str = "") -> dict[str, Any]:
    (found,) = [one for one in checks if one["name"] == name and one["group"].startswith(group)]
    return found


def states(checks: list[dict[str, Any]]) -> Mapping[str, str]:
    return {one["name"]: one["state"] for one in checks}
