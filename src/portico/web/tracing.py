"""Traces: the context that a caller sends goes on to the engine, and with OpenTelemetry each request is a span.

W3C's headers (https://www.w3.org/TR/trace-context/) are passed on always. Spans are made only where somebody collects
them: the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT, as OpenTelemetry has it), or the program that
Portico runs in has set a tracer provider. Nothing of OpenTelemetry is imported otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from portico.errors import ConfigError
from portico.web.account import Account

if TYPE_CHECKING:
    from portico.web.request import Request

Headers = tuple[tuple[bytes, bytes], ...]
_CONTEXT = (b"traceparent", b"tracestate")
passed_on: ContextVar[Headers] = ContextVar("passed_on", default=())
"""What goes with every request to an engine that is made for the caller at hand."""


class Tracing:
    """Passes a caller's context on; makes no spans."""

    def begin(self, request: Request) -> Callable[[int], None] | None:
        """Called when a request comes; what is returned is called with the status when it has ended."""
        headers = request.headers
        if _CONTEXT[0] in headers:
            passed_on.set(tuple((name, headers[name]) for name in _CONTEXT if name in headers))
        elif passed_on.get():
            passed_on.set(())  # the task has answered another request before
        return None

    def close(self) -> None: ...


class Spans(Tracing):
    """A span for each request that asks a model."""

    def __init__(self, provider: Any = None) -> None:
        """`provider`: OpenTelemetry's tracer provider; None: the program's."""
        from opentelemetry import propagate, trace

        self._trace, self._propagate, self._provider = trace, propagate, provider
        self._tracer = trace.get_tracer("portico", tracer_provider=provider)

    def begin(self, request: Request) -> Callable[[int], None] | None:
        if request.method != "POST":
            passed_on.set(())
            return None
        came = {
            name.decode(): value.decode("latin-1")
            for name, value in request.headers.items()
            if name in _CONTEXT
        }
        span = self._tracer.start_span(
            f"POST {request.path}",
            context=self._propagate.extract(came),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "http.request.method": "POST",
                "url.path": request.path,
                "portico.request_id": request.tag,
            },
        )
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, self._trace.set_span_in_context(span))
        passed_on.set(tuple((name.encode(), value.encode()) for name, value in carrier.items()))

        def end(status: int) -> None:
            account = request.account
            if account.model:
                span.update_name(f"{_operation(request.path)} {account.model}")
            span.set_attributes(_attributes(account, request.path, status))
            if status >= 500 or account.finish == "error":
                span.set_status(self._trace.StatusCode.ERROR)
            span.end()

        return end

    def close(self) -> None:
        """What is not sent yet is, before the program ends."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            shutdown()


def _operation(path: str) -> str:
    """As OpenTelemetry's conventions for generative AI call it."""
    if "chat" in path:
        return "chat"
    return "embeddings" if "embed" in path else "text_completion"


def _attributes(account: Account, path: str, status: int) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {"http.response.status_code": status}
    if not account.model:
        return found
    found |= {
        "gen_ai.operation.name": _operation(path),
        "gen_ai.request.model": account.model,
        "portico.dialect": account.dialect,
        "portico.replica": account.replica,
        "portico.attempts": account.attempts,
        "portico.queue_ms": (account.load_ns + account.queue_ns) / 1e6,
    }
    if account.fallback:
        found["portico.fallback"] = account.fallback
    if account.first:
        found["portico.time_to_first_token_ms"] = (account.first - account.started) / 1e6
    if account.usage is not None:
        found["gen_ai.usage.input_tokens"] = account.usage.input_tokens
        found["gen_ai.usage.output_tokens"] = account.usage.output_tokens
    return found


def tracing(environ: Mapping[str, str]) -> Tracing:
    """What this environment asks for. Raises ConfigError where it wants spans and OpenTelemetry's SDK is not there."""
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    if any(environ.get(name) for name in named):
        return Spans(_exporting(environ.get("OTEL_SERVICE_NAME") or "portico"))
    # A program that uses OpenTelemetry itself has imported it by now.
    api = sys.modules.get("opentelemetry.trace")
    if api is not None and type(api.get_tracer_provider()).__name__ != "ProxyTracerProvider":
        return Spans()
    return Tracing()


def _exporting(service: str) -> Any:
    """A provider that sends to the collector that the environment names."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry's SDK is not installed: pip install 'portico[otel]', "
            "or unset the variable"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
