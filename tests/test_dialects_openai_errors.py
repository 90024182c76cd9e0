"""Errors in OpenAI's form, written for callers and read from engines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portico.dialects import openai
from portico.errors import (
    Busy,
    ConnectionsFull,
    ContextLengthExceeded,
    EngineDied,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    PorticoError,
    ShuttingDown,
    TookTooLong,
    Unauthorized,
    UpstreamFailed,
    WaitedTooLong,
)


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (InvalidRequest("bad", param="n"), "invalid_request_error", "invalid_request", "n"),
        (
            ContextLengthExceeded(tokens=5, limit=4),
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
        (Unauthorized(), "authentication_error", "invalid_api_key", None),
        (Forbidden("no"), "permission_error", "forbidden", None),
        (ModelNotFound(model="x"), "invalid_request_error", "model_not_found", None),
        (UpstreamFailed("slow down", status=429), "rate_limit_error", "upstream_error", None),
        (EngineDied(model="x"), "server_error", "engine_died", None),
        (Busy(), "rate_limit_error", "overloaded", None),
        (WaitedTooLong(seconds=3), "rate_limit_error", "overloaded", None),
        (ConnectionsFull(limit=3), "overloaded_error", "overloaded", None),
        (ShuttingDown(), "overloaded_error", "shutting_down", None),
        (TookTooLong(seconds=3), "server_error", "request_too_long", None),
        (PorticoError("?"), "server_error", "internal", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PorticoError) else None,
)
def test_each_error_has_its_type_and_code(
    error: PorticoError, kind: str, code: str, param: str | None
) -> None:
    body = json.loads(openai.error_body(error))["error"]
    assert (body["type"], body["code"], body["param"]) == (kind, code, param)
    assert isinstance(body["message"], str) and body["message"]


def test_an_unknown_model_does_not_exist() -> None:
    body = json.loads(openai.error_body(ModelNotFound(model="gpt-9", nearest=["gpt-4"])))["error"]
    assert body["message"] == "The model 'gpt-9' does not exist. Nearest: gpt-4"


def test_half_a_surrogate_pair_in_a_message_is_no_failure() -> None:
    assert openai.error_body(InvalidRequest("bad \ud800"))


def told(message: str, **fields: Any) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400, **fields}}
    ).encode()


CONTEXT = "This model's maximum context length is 4096 tokens. "


@pytest.mark.parametrize(
    ("body", "tokens", "limit"),
    [
        (told(CONTEXT + "However, you requested 5000 tokens (4900 in the messages, 100 in the completion). Please reduce"), 4900, 4096),
        (told(CONTEXT + "However, you requested 5000 tokens in the messages, Please reduce the length."), 5000, 4096),
        (told(CONTEXT + "However, you requested 100 output tokens and your prompt contains at least 3997 input tokens, for a total of at least 4097 tokens."), 3997, 4096),
        (told("'max_tokens' is too large: 9000. " + CONTEXT[:-2] + " and your request has 100 input tokens (9000 > 4096 - 100)."), 100, 4096),
        (told("You passed 4097 input tokens and requested 1 output tokens. However, the model's context length is only 4096 tokens, resulting in", param="input_tokens"), 4097, 4096),
        (told("The decoder prompt (length 5951) is longer than the maximum model length of 4096. Make sure that"), 5951, 4096),
        (told(CONTEXT + "However, your messages resulted in 5000 tokens.", code="context_length_exceeded", param="messages"), 5000, 4096),
        (told("request (1407 tokens) exceeds the available context size (256 tokens), try increasing it", type="exceed_context_size_error", n_prompt_tokens=1407, n_ctx=256), 1407, 256),
        (told("the request exceeds the available context size. try increasing the context size"), None, None),
        (json.dumps({"object": "error", "message": CONTEXT + "However, you requested 5000 tokens (4900 in the messages, 100 in the completion).", "type": "BadRequestError", "code": 400}).encode(), 4900, 4096),
        (json.dumps({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 200 `max_new_tokens`", "error_type": "validation"}).encode(), 4000, 4096),
        (json.dumps({"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2233", "error_type": "validation"}).encode(), 2233, 1024),
    ],
)  # fmt: skip
def test_a_prompt_that_does_not_fit_is_recognised(body: bytes, tokens: int | None, limit: int | None) -> None:
    error = openai.read_error(400, body)
    assert isinstance(error, ContextLengthExceeded)
    assert (error.tokens, error.limit, error.param) == (tokens, limit, "messages")


def test_llamacpp_says_so_with_any_status() -> None:
    body = told("too long", type="exceed_context_size_error", n_prompt_tokens=9, n_ctx=8, code=500)
    error = openai.read_error(500, body)
    assert isinstance(error, ContextLengthExceeded) and (error.tokens, error.limit) == (9, 8)


def test_a_failure_that_mentions_the_context_is_still_a_failure() -> None:
    error = openai.read_error(500, told("Could not allocate: maximum context length is 4096 tokens"))
    assert isinstance(error, UpstreamFailed) and error.status == 500


@pytest.mark.parametrize(
    ("status", "body", "message", "code"),
    [
        (
            400,
            told("stop must be a list", param="stop", code="invalid_value"),
            "stop must be a list",
            "invalid_value",
        ),
        (500, told("boom", code=500), "boom", "upstream_error"),
        (503, told("Loading model", type="unavailable_error", code=503), "Loading model", "overloaded"),
        (404, b'{"detail":"Not Found"}', "Not Found", "upstream_error"),
        (422, b'{"detail":[{"loc":["body"]}]}', '[{"loc":["body"]}]', "invalid_request"),
        (400, b'{"error":"model is required"}', "model is required", "invalid_request"),
        (502, b"<html>Bad Gateway</html>", "The engine answered with status 502.", "upstream_error"),
        (500, b"", "The engine answered with status 500.", "upstream_error"),
        (500, b"null", "null", "upstream_error"),
        (
            424,
            b'{"error":"Request failed during generation","error_type":"generation"}',
            "Request failed during generation",
            "upstream_error",
        ),
        (500, b"[" * 100_000, "[" * 500, "upstream_error"),
        (500, b'{"error":{"message":null}}', "The engine failed.", "upstream_error"),
        (500, b"\xff\xfe", "��", "upstream_error"),
    ],
)
def test_everything_else_keeps_the_engines_status_and_words(
    status: int, body: bytes, message: str, code: str
) -> None:
    error = openai.read_error(status, body)
    assert isinstance(error, UpstreamFailed)
    assert (error.status, str(error), error.code) == (status, message, code)


def test_what_was_written_is_read() -> None:
    error = openai.read_error(400, openai.error_body(InvalidRequest("bad n", param="n")))
    assert (error.status, error.code, error.param, str(error)) == (400, "invalid_request", "n", "bad n")


@pytest.mark.parametrize(("kind", "status"), [("validation", 422), ("overloaded", 429), ("generation", 500)])
def test_tgis_words_stand_for_a_status_that_a_stream_does_not_have(kind: str, status: int) -> None:
    body = json.dumps({"error": "no", "error_type": kind}).encode()
    assert openai.read_error(500, body).status == status
