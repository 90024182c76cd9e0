"""Errors as bytes, in the form that the path's dialect gives them."""

from __future__ import annotations

import msgspec

from portico.dialects import ollama, openai
from portico.errors import MethodNotAllowed, PorticoError, RouteNotFound
from portico.web.request import JSON_TYPE

_TEXT = b"text/plain"
_MESSAGES = "/v1/messages"
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def status(path: str, error: PorticoError) -> int:
    """The status of an answer that is `error`, to a request for `path`."""
    return openai.error_status(error) if _is_openais(path) else error.status


def render(path: str, error: PorticoError) -> tuple[bytes, bytes]:
    """(body, content type) of that answer."""
    if path.startswith(_MESSAGES):
        kind = _ANTHROPIC.get(error.status, "api_error")
        told = {"type": kind, "message": str(error), "param": error.param, "code": error.code}
        return msgspec.json.encode({"type": "error", "error": told, "request_id": None}), JSON_TYPE
    if _is_openais(path):
        return openai.error_body(error), JSON_TYPE
    if isinstance(error, RouteNotFound):
        return b"404 page not found", _TEXT  # gin's words, which Ollama's clients know
    if isinstance(error, MethodNotAllowed):
        return b"405 method not allowed", _TEXT
    return ollama.error_body(error), JSON_TYPE


def _is_openais(path: str) -> bool:
    if path.startswith(_MESSAGES):
        return False
    return path.startswith("/v1/") or path in ("/tokenize", "/detokenize")
