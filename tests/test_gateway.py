"""The ASGI application by itself: ids, preflights, errors in each dialect, the account settled on every path."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from portico.config import Config
from portico.errors import (
    BodyTooLarge,
    Busy,
    ConnectionsFull,
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    PorticoError,
    RequestTimeout,
    ShuttingDown,
    UpstreamFailed,
    WaitedTooLong,
)
from portico.gateway.app import Gateway
from portico.gateway.log import Overheard, Records, RequestLog, seconds
from portico.gateway.meters import Histogram, Meters
from portico.inprocess import Portico
from portico.messages import Usage
from portico.web import Access, Request, Route, Routes


class Exchange:
    """One call of the application; what it sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.gone = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]


@contextmanager
def logged(
    form: Any = "text", level: str = "info", *, prompts: bool = False
) -> Iterator[tuple[RequestLog, Callable[[], str]]]:
    reading, writing = os.pipe()
    log = RequestLog(form=form, level=level, prompts=prompts, descriptor=writing)

    def read() -> str:
        log.flush()
        os.close(writing)
        with open(reading, "rb") as file:
            return file.read().decode()

    yield log, read


def gateway(*rows: Route, access: Access | None = None, log: RequestLog | None = None) -> Gateway:
    quiet = RequestLog(level="error", descriptor=os.open(os.devnull, os.O_WRONLY))
    return Gateway(Routes(rows), access or Access(), Meters(), log or quiet)


async def call(
    app: Gateway, path: str, method: str = "POST", body: bytes = b"{}", headers: dict[str, str] | None = None
) -> Exchange:
    exchange = Exchange()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await exchange.gone.wait()
        return {"type": "http.disconnect"}

    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await app({"type": "http", "method": method, "path": path, "headers": pairs}, receive, exchange.send)
    return exchange


def answering(path: str = "/api/x", error: Exception | None = None, dialect: Any = "ollama") -> Route:
    async def handle(request: Request) -> None:
        await request.body()
        if error is not None:
            raise error
        request.account.model = "m"
        request.account.usage = Usage(input_tokens=3, output_tokens=2)
        request.account.arrived()
        await request.answer(200, b"{}")

    return Route("POST", path, handle, dialect, "answers")


async def test_every_answer_has_an_id_and_a_given_one_comes_back() -> None:
    app = gateway(answering())
    one, two = await call(app, "/api/x"), await call(app, "/nowhere")
    assert one.headers["x-request-id"] != two.headers["x-request-id"]
    assert two.status == 404
    given = await call(app, "/api/x", headers={"x-request-id": "trace-7"})
    assert given.headers["x-request-id"] == "trace-7"
    strange = await call(app, "/api/x", headers={"x-request-id": "a b"})
    assert strange.headers["x-request-id"] != "a b"


@pytest.mark.parametrize("path", ["/api/x", "/unknown"])
async def test_a_browsers_preflight(path: str) -> None:
    app = gateway(answering(), access=Access(keys=["k"]))
    answer = await call(app, path, "OPTIONS", headers={"origin": "http://localhost:3000"})
    assert (answer.status, answer.body) == (204, b"") and "content-length" not in answer.headers
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "x-api-key" in answer.headers["access-control-allow-headers"]
    refused = await call(app, path, "OPTIONS", headers={"origin": "https://evil.example"})
    assert (refused.status, refused.body) == (403, b"")


async def test_keys_are_asked_for_in_each_dialect_and_not_where_it_is_open() -> None:
    async def handle(request: Request) -> None:
        await request.answer(200, b"OK", b"text/plain")

    rows = (
        answering(),
        answering("/v1/x", dialect="openai"),
        Route("GET", "/health", handle, "plain", "", open=True),
    )
    app = gateway(*rows, access=Access(keys=["secret"]))
    ollama, openai = await call(app, "/api/x"), await call(app, "/v1/x")
    assert ollama.status == openai.status == 401
    assert isinstance(json.loads(ollama.body)["error"], str)
    assert json.loads(openai.body)["error"]["code"] == "invalid_api_key"
    assert (await call(app, "/health", "GET")).status == 200
    assert (await call(app, "/v1/x", headers={"x-api-key": "secret"})).status == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("no", param="messages"), 400, "invalid_request"),
        (ContextLengthExceeded(tokens=9, limit=5), 400, "context_length_exceeded"),
        (ModelNotFound(model="x", nearest=["y"]), 404, "model_not_found"),
        (ShuttingDown(), 503, "shutting_down"),
        (ConnectionsFull(limit=3), 503, "overloaded"),
        (UpstreamFailed("slow down", status=429), 429, "upstream_error"),
        (PorticoError("broken"), 500, "internal"),
        (ZeroDivisionError("our bug"), 500, "internal"),
    ],
)
async def test_errors_keep_their_status_and_code_in_both_dialects(
    error: Exception, status: int, code: str
) -> None:
    app = gateway(answering(error=error), answering("/v1/x", error=error, dialect="openai"))
    ollama, openai = await call(app, "/api/x"), await call(app, "/v1/x")
    assert ollama.status == openai.status == status
    assert ollama.headers["content-type"].startswith("application/json")
    assert isinstance(json.loads(ollama.body)["error"], str)
    assert json.loads(openai.body)["error"]["code"] == code
    assert b"our bug" not in ollama.body + openai.body
    assert app.meters.in_flight == 0


@pytest.mark.parametrize("error", [Busy(), WaitedTooLong(seconds=3)])
async def test_a_full_queue_is_503_to_ollamas_clients_and_429_to_openais(error: Busy) -> None:
    rows = [answering(path, error) for path in ("/api/x", "/v1/x", "/tokenize")]
    app = gateway(*rows)
    ollama, *openai = [await call(app, row.path) for row in rows]
    assert ollama.status == 503
    assert json.loads(ollama.body)["error"].startswith("server busy, please try again.  ")
    for answer in openai:
        assert answer.status == 429
        told = json.loads(answer.body)["error"]
        assert (told["type"], told["code"]) == ("rate_limit_error", "overloaded")
    assert {answer.headers["retry-after"] for answer in (ollama, *openai)} == {"1"}
    assert sorted(status for *_, status in app.meters.requests) == [429, 429, 503]


async def test_every_path_is_counted_once() -> None:
    app = gateway(answering(), answering("/api/bad", error=InvalidRequest("no")))
    await call(app, "/api/x")
    await call(app, "/api/x")
    await call(app, "/api/bad")
    await call(app, "/nowhere")
    assert app.meters.requests == {
        ("ollama", "/api/x", "m", 200): 2,
        ("ollama", "/api/bad", "", 400): 1,
        ("plain", "", "", 404): 1,
    }
    assert app.meters.models["m"].output_tokens == 4
    assert app.meters.in_flight == 0


async def test_a_caller_who_leaves_is_counted_and_cancels_the_work() -> None:
    """By a server that has no hang-up extension: `receive` is watched."""
    working, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> None:
        await request.body()
        request.watch()
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    app = gateway(Route("POST", "/api/x", handle, "ollama", "hangs"))
    exchange = Exchange()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await exchange.gone.wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/api/x", "headers": []}
    task = asyncio.create_task(app(scope, receive, exchange.send))
    await working.wait()
    assert app.meters.in_flight == 1
    exchange.gone.set()
    await asyncio.wait_for(task, 1)
    assert cancelled.is_set()
    assert (app.meters.in_flight, app.meters.hung_up, exchange.status) == (0, 1, 0)
    assert app.meters.requests == {("ollama", "/api/x", "", 499): 1}


async def test_a_stopping_server_answers_503() -> None:
    working = asyncio.Event()

    async def handle(request: Request) -> None:
        working.set()
        await asyncio.Event().wait()

    app = gateway(Route("POST", "/v1/x", handle, "openai", "hangs"))
    task = asyncio.create_task(call(app, "/v1/x"))
    await working.wait()
    task.cancel()
    answer = await task
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "shutting_down"


async def test_the_log_has_a_line_for_a_request_and_no_secrets() -> None:
    with logged() as (log, read):
        app = gateway(answering(), access=Access(keys=["secret-key"]), log=log)
        await call(app, "/api/x", body=b'{"prompt":"private"}', headers={"x-api-key": "secret-key"})
    line = read()
    assert " 200 " in line and " x m " in line and "3 in  2 out" in line
    assert "secret-key" not in line and "private" not in line


async def test_the_log_as_json() -> None:
    with logged("json") as (log, read):
        app = gateway(answering(), answering("/api/bad", error=InvalidRequest("bad\nfield")), log=log)
        answer = await call(app, "/api/x")
        await call(app, "/api/bad")
    first, second = (json.loads(line) for line in read().splitlines())
    assert first["request_id"] == answer.headers["x-request-id"]
    assert (first["status"], first["model"], first["output_tokens"]) == (200, "m", 2)
    assert (second["status"], second["error"]) == (400, "bad\nfield")


@pytest.mark.parametrize("form", ["text", "json"])
async def test_prompts_and_answers_are_logged_only_when_asked_for(form: str) -> None:
    for prompts in (False, True):
        with logged(form, prompts=prompts) as (log, read):
            app = gateway(answering(), log=log)
            await call(
                app, "/api/x", body=b'{"prompt":"a \\u001b secret"}\n', headers={"x-api-key": "sk-key"}
            )
            await call(app, "/unknown", body=b"not for a model")
        text = read()
        assert ("a \\u001b secret" in text.replace("\\\\", "\\")) == prompts
        assert "not for a model" not in text and "sk-key" not in text
        if form == "json" and prompts:
            entry = json.loads(text.splitlines()[0])
            assert (entry["prompt"], entry["answer"]) == ('{"prompt":"a \\u001b secret"}\n', "{}")
        elif prompts:
            assert [line.split()[2] for line in text.splitlines()[1:3]] == ["prompt", "answer"]


async def test_what_the_listener_turns_away_has_an_id_and_is_counted_and_logged() -> None:
    with logged() as (log, read):
        app = gateway(answering("/v1/x", dialect="openai"), log=log)
        body, _, headers = app.turned_away("/v1/x", BodyTooLarge(limit=5))
        app.turned_away("/no/route/of/ours", RequestTimeout("Too slow."))
        ids = [dict(headers)[b"x-request-id"].decode()]
    text = read()
    assert json.loads(body)["error"]["code"] == "body_too_large"
    assert ids[0] in text.splitlines()[0] and "413" in text.splitlines()[0] and "Too slow." in text
    # A path that nobody serves is no label: callers could make up ever new ones.
    assert set(app.meters.requests) == {("openai", "/v1/x", "", 413), ("plain", "", "", 408)}


async def fails(request: Request) -> None:
    raise ZeroDivisionError("oh\x1b[31m")


@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_mistake_of_ours_is_one_line_of_the_log_with_its_traceback(form: str) -> None:
    with logged(form) as (log, read), Records(log):
        app = gateway(Route("POST", "/x", fails, "openai", ""), log=log)
        assert (await call(app, "/x", headers={"x-request-id": "id-1"})).status == 500
    told, asked = read().splitlines()
    assert "/x" in asked
    assert told.isprintable()  # nothing in it that a terminal would obey
    if form == "json":
        entry = json.loads(told)
        assert entry.pop("at").endswith("Z")
        trace = entry.pop("traceback")
        assert trace.startswith("Traceback") and "in fails" in trace and "ZeroDivisionError: oh" in trace
        message = "request id-1 failed"
        assert entry == {"event": "log", "level": "error", "logger": "portico.gateway", "message": message}
    else:
        assert " error portico.gateway: request id-1 failed  Traceback " in told
        assert "in fails" in told and "ZeroDivisionError: oh?[31m" in told


@pytest.mark.parametrize(("level", "shown"), [("debug", 3), ("info", 2), ("warning", 2), ("error", 1)])
def test_records_have_the_level_of_the_log_and_go_nowhere_else(
    level: str, shown: int, capfd: pytest.CaptureFixture[str]
) -> None:
    name = logging.getLogger("portico.listen")
    with logged(level=level) as (log, read), Records(log):
        name.debug("%s: not HTTP", "somebody")
        name.warning("late")
        logging.getLogger("asyncio").error("a task failed")
        logging.getLogger("somebody.else").error("not ours")
    name.warning("after it")  # whoever set up logging otherwise has it again
    lines = read().splitlines()
    assert len(lines) == shown
    assert "asyncio: a task failed" in lines[-1]
    assert "late" not in capfd.readouterr().err


async def test_a_server_inside_a_program_leaves_its_logging_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = (None, "portico", "asyncio")
    before = [(list(logger.handlers), logger.level) for logger in map(logging.getLogger, names)]
    portico = Portico(Config(home=tmp_path, port=0), {})
    await portico.start()
    try:
        assert [(list(logger.handlers), logger.level) for logger in map(logging.getLogger, names)] == before
        logging.getLogger("portico.gateway").warning("for the program")
    finally:
        await portico.stop(grace=0)
    assert "for the program" in caplog.text


def test_what_is_overheard_has_a_limit() -> None:
    said = Overheard({}, None, None)  # type: ignore[arg-type]
    for _ in range(3):
        said._keep(said._asked, {"body": b"x" * (said.MOST - 1)})
    assert said.prompt == "x" * said.MOST + f"... (cut after {said.MOST} bytes)"
    assert said.answer == ""


def test_a_histogram_cumulates() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert list(histogram.buckets()) == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 12.0


@pytest.mark.parametrize(
    ("value", "text"), [(0.0084, "8.4 ms"), (0.1424, "142 ms"), (5.42, "5.4 s"), (28.4, "28 s")]
)
def test_times_are_told_briefly(value: float, text: str) -> None:
    assert seconds(value) == text
