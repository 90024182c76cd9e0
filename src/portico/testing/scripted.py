"""A model whose answers a test has written, on a real socket, in OpenAI's dialect and in Ollama's.

    with ScriptedModel() as model:
        model.say("Hello!", Call("get_weather", city="Oslo"), {"name": "Ada"}, Failure(503, "busy"), Dropped("Hel"))
        client = portico.Client(model.url)
        ...
    assert model.asked[0].prompt == "Hi"

It is strict: a request for which there is no answer is answered with an error, and at the end the test fails with a list of
such requests; so it does when answers are left that nobody asked for. Tokens are words, for lack of better ones. Each
request has a connection of its own: one that breaks is then never taken for a kept one that has grown old, and asked again.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from portico.dialects import ollama, openai
from portico.errors import PorticoError
from portico.messages import (
    ChatRequest,
    Choice,
    CompletionRequest,
    Event,
    Finished,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    Used,
)

CHATS = ("/v1/chat/completions", "/api/chat")
_ANSWERED = (*CHATS, "/v1/completions", "/api/generate")


class Call:
    """A tool call: Call("get_weather", city="Oslo")."""

    def __init__(self, name: str, /, **arguments: Any) -> None:
        self.name, self.arguments = name, arguments

    def __repr__(self) -> str:
        given = [f", {name}={value!r}" for name, value in self.arguments.items()]
        return f"Call({self.name!r}{''.join(given)})"


class Failure(msgspec.Struct, frozen=True):
    """An error as servers send it."""

    status: int
    message: str = "It is told to fail."
    code: str = ""
    headers: Mapping[str, str] = {}
    """As retry-after."""


class Dropped(msgspec.Struct, frozen=True):
    """The connection is reset after so much text of a stream; without text, or where no stream is asked for, before the
    first byte."""

    text: str = ""


Answer = str | Call | Failure | Dropped | Mapping[str, Any] | Sequence[Any]
"""A text; tool calls, one or a list of them; an error; or a value that is sent as JSON."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By names in lower case."""
    body: Mapping[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages") or ())

    @property
    def prompt(self) -> str:
        """The text of the last message, or of the prompt."""
        said: Any = self.messages[-1].get("content") if self.messages else self.body.get("prompt")
        if isinstance(said, list):
            said = "".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
        return str(said or "")

    @property
    def tools(self) -> list[str]:
        """Names of the tools that were offered."""
        return [str(tool.get("function", {}).get("name")) for tool in self.body.get("tools") or ()]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.prompt[:200]!r}"


class _Script(msgspec.Struct, kw_only=True):
    answer: Answer | Callable[[Asked], Answer]
    when: str | Callable[[Asked], bool] | None
    delay: float
    pause: float
    reasoning: str

    def fits(self, asked: Asked) -> bool:
        if self.when is None:
            return True
        return self.when in asked.prompt if isinstance(self.when, str) else self.when(asked)


class ScriptedModel:
    """Owns a server in threads of its own. `url` is what a client is given; `asked` are the requests for answers, in order."""

    def __init__(self, *, name: str = "scripted", context: int = 8192) -> None:
        self.name, self.context = name, context
        self.asked: list[Asked] = []
        self._scripts: list[_Script] = []
        self._unexpected: list[Asked] = []
        self._raised: list[tuple[Asked, Exception]] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._server: _Server | None = None

    # ---- what a test says

    def say(
        self,
        *answers: Answer | Callable[[Asked], Answer],
        when: str | Callable[[Asked], bool] | None = None,
        delay: float = 0.0,
        pause: float = 0.0,
        reasoning: str = "",
    ) -> ScriptedModel:
        """The next answers, one a request. A function is given the request and returns the answer.

        when: only for requests whose prompt holds this text, or for which this function is true; requests that come side
            by side get their answers so. delay: seconds before the first byte; pause: between the pieces of a stream.
        reasoning: said before a text or a call.
        """
        with self._lock:
            self._scripts += [
                _Script(answer=answer, when=when, delay=delay, pause=pause, reasoning=reasoning)
                for answer in answers
            ]
        return self

    @property
    def left(self) -> int:
        """Answers that nobody has asked for."""
        with self._lock:
            return len(self._scripts)

    def check(self) -> None:
        """Raises AssertionError for requests without an answer, answers without a request, and answers' functions that
        raised."""
        with self._lock:
            unexpected, left = [*self._unexpected], [script.answer for script in self._scripts]
            raised = [*self._raised]
        told = [
            f"The function that was to answer {asked} raised {type(error).__name__}: {error}"
            for asked, error in raised
        ]
        if unexpected:
            told.append(f"{len(unexpected)} requests came for which there was no answer:")
            told += [f"  {asked}" for asked in unexpected]
        if left:
            told.append(f"{len(left)} answers were not asked for:")
            told += [f"  {str(answer)[:200]!r}" for answer in left]
        if told:
            raise AssertionError("\n".join(told))

    # ---- its life

    def __enter__(self) -> ScriptedModel:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        assert self._server is not None
        self._over.set()
        self._server.end()
        try:
            self.check()
        except AssertionError as wrong:
            if error is None:
                raise
            error.add_note(
                f"The scripted model: {wrong}"
            )  # it may be the cause, and must not hide what came of it

    @property
    def url(self) -> str:
        assert self._server is not None, "it runs inside its `with` block"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # ---- inside

    def _take(self, asked: Asked) -> _Script | None:
        with self._lock:
            self.asked.append(asked)
            for at, script in enumerate(self._scripts):
                if script.fits(asked):
                    return self._scripts.pop(at)
            self._unexpected.append(asked)
            return None

    def _wrong(self, asked: Asked, error: Exception) -> Failure:
        with self._lock:
            self._raised.append((asked, error))
        return Failure(
            501, f"The answer's function raised {type(error).__name__}: {error}", code="unscripted"
        )

    def wait(self, seconds: float) -> bool:
        """Whether so many seconds passed before the end of the test."""
        return not self._over.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Connection)

    def end(self) -> None:
        """Also of the connections that callers keep: nobody is answered after the test."""
        self.shutdown()
        self.server_close()
        for connection in [*self.connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Closed at once: its end would otherwise be told in order, also where it is to be reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller who leaves is no error."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    wbufsize = 0

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test says what it wants to see."""

    def do_GET(self) -> None:
        model, path = self.server.model, self.path.partition("?")[0]
        if path == "/v1/models":
            card = {"id": model.name, "object": "model", "created": 0, "owned_by": "test"}
            self._json(200, {"object": "list", "data": [{**card, "max_model_len": model.context}]})
        elif path == "/api/tags":
            self._json(200, {"models": [{"name": model.name, "model": model.name}]})
        elif path == "/api/version":
            self._json(200, {"version": "0.0.0"})
        elif path in ("/", "/health"):
            self._json(200, {"status": "ok"})
        else:
            self._json(404, {"error": {"message": f"The scripted model has no route {path}.", "code": 404}})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if path not in _ANSWERED:
            told = {"message": f"The scripted model has no route {path}.", "code": "not_found"}
            return self._json(404, {"error": told})
        try:
            asked = Asked(
                method="POST",
                path=path,
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(body),
            )
            request = _request(path, body)
        except (ValueError, PorticoError) as error:
            return self._fail(Failure(400, str(error)))
        script = self.server.model._take(asked)
        if script is None:
            lacking = f"The scripted model has no answer to this request: {asked}"
            return self._fail(Failure(501, lacking, code="unscripted"))
        try:
            answer = script.answer(asked) if callable(script.answer) else script.answer
        except Exception as error:  # the test's own mistake, or an assertion of its: told where it is seen
            return self._fail(self.server.model._wrong(asked, error))
        if script.delay and not self.server.model.wait(script.delay):
            return self._reset()
        if isinstance(answer, Failure):
            return self._fail(answer)
        self._answer(request, answer, script, len(asked.prompt.split()) or 1)

    # ---- inside

    def _answer(
        self, request: ChatRequest | CompletionRequest, answer: Any, script: _Script, read: int
    ) -> None:
        result = _result(answer, script.reasoning, read)
        writer = _Writer(self.path.partition("?")[0], request)
        dropped = isinstance(answer, Dropped)
        if not request.stream:
            return self._reset() if dropped else self._send(200, writer.whole(result), "application/json")
        if dropped and not answer.text:
            return self._reset()
        self.send_response(200)
        self.send_header("content-type", writer.type)
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        events = list(_events(result))
        for at, event in enumerate(events[:-2] if dropped else events):
            if at and script.pause and not self.server.model.wait(script.pause):
                return self._reset()
            self._chunk(writer.write(event))
        if dropped:
            return self._reset()
        self._chunk(writer.end())
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _fail(self, failure: Failure) -> None:
        if self.path.startswith("/api/"):
            return self._json(failure.status, {"error": failure.message}, failure.headers)
        told = {"message": failure.message, "type": "error", "param": None, "code": failure.code or None}
        self._json(failure.status, {"error": told}, failure.headers)

    def _json(self, status: int, body: Any, headers: Mapping[str, str] = {}) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", headers)

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": kind,
            **headers,
            "content-length": str(len(body)),
            "connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# ---- answers


def _request(path: str, body: bytes) -> ChatRequest | CompletionRequest:
    if path == "/v1/chat/completions":
        return openai.read_chat(body)
    if path == "/v1/completions":
        return openai.read_completion(body)
    return ollama.read_chat(body) if path == "/api/chat" else ollama.read_generate(body).request


def _result(answer: Any, reasoning: str, read: int) -> Result:
    text, calls = "", tuple[Call, ...]()
    if isinstance(answer, str | Dropped):
        text = answer if isinstance(answer, str) else answer.text
    elif isinstance(answer, Call):
        calls = (answer,)
    elif isinstance(answer, list | tuple) and answer and all(isinstance(each, Call) for each in answer):
        calls = tuple(answer)
    else:
        text = json.dumps(answer, ensure_ascii=False)
    made = tuple(
        ToolCall(
            id=f"call_{at}", name=call.name, arguments=json.dumps(dict(call.arguments), ensure_ascii=False)
        )
        for at, call in enumerate(calls, 1)
    )
    choice = Choice(
        text=text, reasoning=reasoning, tool_calls=made, finish_reason="tool_calls" if made else "stop"
    )
    written = len(_pieces(text)) + len(_pieces(reasoning)) + len(made)
    return Result(choices=(choice,), usage=Usage(input_tokens=read, output_tokens=written))


def _pieces(text: str) -> list[str]:
    """Words, each with the space behind it."""
    return re.findall(r"\s*\S+\s*", text) or ([text] if text else [])


def _events(result: Result) -> Iterator[Event]:
    choice = result.choices[0]
    yield from (ReasoningDelta(text=piece) for piece in _pieces(choice.reasoning))
    yield from (TextDelta(text=piece) for piece in _pieces(choice.text))
    for at, call in enumerate(choice.tool_calls):
        half = len(call.arguments) // 2
        yield ToolCallDelta(call=at, id=call.id, name=call.name, arguments=call.arguments[:half])
        yield ToolCallDelta(call=at, arguments=call.arguments[half:])
    yield Finished(finish_reason=choice.finish_reason)
    yield Used(usage=result.usage)


class _Writer:
    """One reply in the dialect of its path."""

    def __init__(self, path: str, request: ChatRequest | CompletionRequest) -> None:
        self._ollama: ollama.ChatWriter | ollama.GenerateWriter | None = None
        self.type = "text/event-stream"
        if path.startswith("/api/"):
            self._ollama = (ollama.ChatWriter if path == "/api/chat" else ollama.GenerateWriter)(
                request.model
            )
            self.type = "application/x-ndjson"
        kind = openai.ChatWriter if path in CHATS else openai.CompletionWriter
        self._openai = kind(request.model, include_usage=request.include_usage)

    def write(self, event: Event) -> bytes:
        if self._ollama is not None:
            return self._ollama.write(event, created_at=_now())
        return self._openai.write(event)

    def end(self) -> bytes:
        if self._ollama is not None:
            return self._ollama.final(ollama.Timing(), created_at=_now())
        return self._openai.end()

    def whole(self, result: Result) -> bytes:
        if self._ollama is not None:
            return self._ollama.whole(result, ollama.Timing(), created_at=_now())
        return self._openai.whole(result)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
