"""Traces, from a caller's header through the server to the engine, and to a collector that is a real HTTP server."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from live_server import LiveServer
from portico.errors import ConfigError
from portico.web.tracing import Spans, Tracing, tracing
from scripted_answers import reply
from scripted_upstream import ScriptedUpstream

CHAT = "/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CAME = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
BODY = {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}


class Collector:
    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                sent = ExportTraceServiceRequest.FromString(body)
                for resource in sent.resource_spans:
                    names = {one.key: one.value.string_value for one in resource.resource.attributes}
                    outer.services.add(names["service.name"])
                    for scope in resource.scope_spans:
                        outer.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_a_callers_context_goes_on_to_the_engine(
    gateway: LiveServer, upstream: ScriptedUpstream, path: str
) -> None:
    """Without a collector too: the engine, or what stands behind it, may have one."""
    httpx2.post(gateway.url + path, json=BODY, headers=CAME)
    sent = upstream.requests(CHAT)[-1].headers
    assert {name: sent[name] for name in CAME} == CAME
    httpx2.post(gateway.url + path, json=BODY)
    assert "traceparent" not in upstream.requests(CHAT)[-1].headers


def test_a_request_is_a_span_and_the_engines_parent(gateway_for: Any, collector: Collector) -> None:
    with ScriptedUpstream() as upstream:
        server = gateway_for(upstream, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        httpx2.post(server.url + CHAT, json=BODY, headers=CAME)
        httpx2.post(server.url + "/api/chat", json=BODY)
        upstream.script(CHAT, reply(500, {"error": {"message": "no"}}))
        httpx2.post(server.url + CHAT, json=BODY)
        httpx2.get(server.url + "/health")
        server.stop()
        sent = [
            re.fullmatch(r"00-(\w{32})-(\w{16})-01", one.headers["traceparent"])
            for one in upstream.requests(CHAT)
        ]
    assert collector.services == {"portico"}
    assert [span.name for span in collector.spans] == ["chat mock-model"] * 3, "health checks are no spans"
    ours, alone, failed = collector.spans
    assert (ours.trace_id.hex(), ours.parent_span_id.hex()) == (TRACE, PARENT)
    assert sent[0] is not None and (sent[0][1], sent[0][2]) == (TRACE, ours.span_id.hex())
    assert not alone.parent_span_id and alone.trace_id.hex() != TRACE
    found = attributes(ours)
    assert found["gen_ai.operation.name"] == "chat" and found["gen_ai.request.model"] == "mock-model"
    assert found["gen_ai.usage.input_tokens"] == 7 and found["gen_ai.usage.output_tokens"] == 3
    assert found["http.response.status_code"] == 200 and found["portico.attempts"] == 1
    assert attributes(alone)["portico.dialect"] == "ollama"
    assert attributes(failed)["http.response.status_code"] == 500 and failed.status.code == 2


def test_nobody_collects() -> None:
    assert type(tracing({})) is Tracing
    assert type(tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"})) is Tracing


def test_nothing_of_opentelemetry_is_loaded_unless_it_is_wanted() -> None:
    code = "import sys, portico.inprocess; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_spans_without_the_sdk_are_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigError, match=r"pip install 'portico\[otel\]'"):
        tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})


def test_a_program_that_traces_itself_gets_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.setattr(trace, "get_tracer_provider", lambda: TracerProvider())
    assert isinstance(tracing({}), Spans)
