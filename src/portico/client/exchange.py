"""One call of a server: sent, sent again where that helps, and its errors in our words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar
from uuid import uuid4

from portico import recording
from portico.client.budget import Hold
from portico.client.prices import Cost, Tariff, cost
from portico.client.results import Attempt
from portico.client.settings import Retry
from portico.client.wishes import Answer, Delay, Flow, Send, Stream
from portico.dialects import openai
from portico.errors import (
    ClientError,
    ContextLengthExceeded,
    Malformed,
    NoSuchModel,
    NotSupported,
    OutOfMemory,
    PromptTooLong,
    RateLimited,
    Refused,
    ServerFailed,
    TimedOut,
    UpstreamFailed,
    WrongKey,
)
from portico.messages import Usage

T = TypeVar("T")
_TRIED = "x-portico-attempts"
_IDS = ("x-request-id", "request-id")


def pause(seconds: float) -> Delay:
    """Before a server is asked again; in a replay none is asked."""
    return Delay(0.0 if isinstance(recording.current(), recording.Player) else seconds)


class Exchanged:
    """What came of a call: the reply, and how it came about. `url` and `model` are those of the last attempt."""

    __slots__ = ("as_json", "attempts", "hold", "reply", "request_id", "tariff")

    def __init__(self, reply: Answer | Stream, attempts: tuple[Attempt, ...], tag: str = "") -> None:
        self.reply, self.attempts = reply, attempts
        self.request_id = request_id(reply.headers) or tag
        self.as_json = False
        """The text that was asked for is the value of a JSON object (portico.client.enforced)."""
        self.hold: Hold | None = None
        """What was set aside for it in budgets; whoever reads the reply ends it (`settle`)."""
        self.tariff = Tariff(price=None, why="not asked")

    def settle(self, usage: Usage | None) -> Cost:
        """What it took in the end; None: nobody knows. Gives what that costs."""
        if self.hold is not None:
            self.hold.settle(usage)
        return cost(self.tariff, usage or Usage())

    def read(self, read: Callable[[bytes], T], expected: str) -> T:
        """The body as `read` reads it. Raises Malformed, which shows how it begins."""
        try:
            return decoded(self.reply, read, expected)
        except Malformed as error:
            self.settle(None)
            error.url, error.request_id, error.tried = self.url, self.request_id, self.attempts
            error.attempts = len(self.attempts)
            raise

    @property
    def url(self) -> str:
        return self.attempts[-1].url

    @property
    def model(self) -> str:
        return self.attempts[-1].model

    def after(self, tried: tuple[Attempt, ...]) -> Exchanged:
        """The same, after attempts at other servers."""
        self.attempts = (*tried, *self.attempts)
        return self


def exchange(
    send: Send,
    *,
    url: str,
    model: str,
    retry: Retry,
    total: float = 0.0,
    began: float | None = None,
    again: Callable[[ClientError], None] | None = None,
) -> Flow[Exchanged]:
    """The reply, whose status is 200. `total`: seconds that everything may take, from `began` on; 0: no limit. `again` hears of
    each failed attempt before the next, and may forbid it by raising. Raises ClientError."""
    deadline = (time.monotonic() if began is None else began) + total if total else math.inf
    attempts: list[Attempt] = []
    # What the server's log calls it, also where no reply comes that would tell. A recording has none of its own, since the
    # text of an error may be part of a later prompt.
    tag = uuid4().hex[:16] if recording.current() is None else ""
    for number in range(1, retry.attempts + 1):
        sent = time.monotonic()
        headers: Mapping[str, str] = {}
        try:
            reply = yield send._replace(deadline=deadline, request_id=tag)
            if isinstance(reply, Stream) or reply.status == 200:
                attempts.append(Attempt(url=url, status=200, seconds=time.monotonic() - sent, model=model))
                return Exchanged(reply, tuple(attempts), tag)
            headers = reply.headers
            error: ClientError = told(reply, model=model)
        except ClientError as failed:
            error = failed
        seconds = time.monotonic() - sent
        attempts.append(
            Attempt(url=url, status=error.status, seconds=seconds, error=error.args[0], model=model)
        )
        error.url, error.request_id, error.attempts = url, request_id(headers) or tag, number
        error.tried = tuple(attempts)
        wait = retry.again(error, number, tried_there=_number(headers.get(_TRIED)) > 1)
        if wait is None:
            raise error
        if time.monotonic() + wait > deadline:
            late = TimedOut(which="total", seconds=total)
            late.url, late.request_id, late.attempts = url, error.request_id, number
            late.tried = tuple(attempts)
            raise late from error
        if again is not None:
            again(error)
        yield pause(wait)
    raise AssertionError("the last attempt returns or raises")


def told(reply: Answer, *, model: str) -> ClientError:
    """An error's reply as the error it is."""
    error = openai.read_error(reply.status, reply.body)
    text, status = str(error), reply.status
    lower = text.lower()
    if isinstance(error, ContextLengthExceeded):
        return PromptTooLong(tokens=error.tokens, limit=error.limit)
    code = error.code if isinstance(error, UpstreamFailed) else ""
    if "out of memory" in lower or code == "out_of_memory":
        return OutOfMemory(text)
    if status in (401, 403):
        return WrongKey(
            f"The server refuses the key: {text} Set it with api_key=, or in the variable of this server."
        )
    if status == 404 and (code == "model_not_found" or ("model" in lower and "not" in lower)):
        return NoSuchModel(model=model, said=text)
    if status == 429:
        return RateLimited(text, retry_after=retry_after(reply.headers))
    if feature := _feature(lower):
        return NotSupported(text, feature=feature[0], flag=feature[1])
    if status == 400 and code == "unsupported":
        return NotSupported(text, feature=code)
    if 300 <= status < 400 and (elsewhere := reply.headers.get("location")):
        return Refused(f"The server sends on to {elsewhere}: name that address, url=.", status=status)
    if status < 500:
        again = retry_after(reply.headers)
        return Refused(text, status=status, code=code, param=error.param, retry_after=again)
    return ServerFailed(text, status=status, code=code, retry_after=retry_after(reply.headers))


_FEATURES = {
    "tool choice requires": ("tools", "--enable-auto-tool-choice --tool-call-parser PARSER"),
    "requires --tool-call-parser": ("tools", "--enable-auto-tool-choice --tool-call-parser PARSER"),
    "--enable-auto-tool-choice": ("tools", "--enable-auto-tool-choice --tool-call-parser PARSER"),
    "scheduling-policy": ("priority", "--scheduling-policy priority"),
    "max-logprobs": ("logprobs", "--max-logprobs N"),
    "logprobs of": ("logprobs", "--max-logprobs N"),  # vLLM 0.32: greater than max allowed
    "--trust-request-chat-template": ("chat_template", "--trust-request-chat-template"),
    "reasoning_config is not configured": ("thinking_token_budget", "--reasoning-parser PARSER"),
    "unimplemented keys": (
        "json_schema",
        "",
    ),  # the schema's, which vLLM's grammars do not know: it names them
    "does not support tools": ("tools", ""),  # Ollama, of a model whose template has none
    "chat template is no longer allowed": ("chat", "--chat-template FILE"),
    "no chat template": ("chat", ""),  # Portico, which says the rest
    "does not support embeddings": ("embeddings", ""),
}
"""What servers say of a feature that they lack or that is switched off: words -> our name of it, and the server's flag."""


def _feature(text: str) -> tuple[str, str] | None:
    return next((named for words, named in _FEATURES.items() if words in text), None)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server wants to be left alone: retry-after-ms, or Retry-After as seconds or as a date (RFC 9110,
    10.2.3). None: it does not say."""
    if (exact := headers.get("retry-after-ms")) is not None:
        return max(0.0, _number(exact) / 1000)
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(said).timestamp()
    except ValueError:
        return None
    return max(0.0, at - (time.time() if now is None else now))


def request_id(headers: Mapping[str, str]) -> str:
    return next((headers[name] for name in _IDS if name in headers), "")


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def decoded(reply: Answer | Stream, read: Callable[[bytes], T], expected: str) -> T:
    """The body as `read` reads it. Raises Malformed, which shows how it begins."""
    assert isinstance(reply, Answer), "a stream is not read here"
    try:
        return read(reply.body)
    except (ValueError, KeyError, TypeError, UpstreamFailed) as error:  # msgspec's errors are ValueErrors
        raise Malformed(body=reply.body, expected=expected) from error
