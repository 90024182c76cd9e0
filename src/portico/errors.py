"""The one tree of errors. Each says what went wrong, with which thing, and what to do.

    PorticoError
    ├── ConfigError                 a setting is wrong: names file, key and the nearest known key
    ├── CannotListen                the address is taken or not ours: says by whom, and what to type
    ├── RequestError                the caller can mend it                        400
    │   ├── InvalidRequest          a field is wrong or missing                   400
    │   ├── ContextLengthExceeded   the prompt does not fit: both numbers         400
    │   ├── Unsupported             this model or engine cannot do that           400
    │   ├── TemplateMissing         a base model was asked to chat                400
    │   ├── Unauthorized            no key or a wrong one                         401
    │   ├── Forbidden               origin or host not allowed                    403
    │   ├── RouteNotFound           no such path                                  404
    │   ├── ModelNotFound           no such model: names the nearest              404
    │   ├── MethodNotAllowed        the path has other methods                    405
    │   ├── RequestTimeout          the caller stopped sending its request        408
    │   ├── BodyTooLarge            over the limit: both numbers                  413
    │   └── HeadersTooLarge         over a limit: both numbers                    431
    ├── EngineError                 the engine could not do its part
    │   ├── EngineStartFailed       with the log's last lines                     500
    │   ├── EngineDied              while answering, with the log's last lines    502
    │   ├── UpstreamUnreachable     nothing answers at that URL                   502
    │   │   ├── UpstreamUntrusted   its certificate is refused, or ours           502
    │   │   └── ProxyFailed         the proxy before it does not let us through   502
    │   ├── UpstreamClosed          it ended the connection before its reply      502
    │   ├── UpstreamFailed          it answered with an error of its own          its status
    │   ├── UpstreamTimeout         it was silent for too long                    504
    │   ├── TookTooLong             the whole answer is over its limit            504
    │   ├── Busy                    queue full                 503, in OpenAI's dialect 429
    │   │   └── WaitedTooLong       its turn did not come                     the same two
    │   ├── ConnectionsFull         more connections than are allowed             503
    │   └── ShuttingDown            the server is stopping                        503
    ├── LibraryError                models on disk and on the hub
    │   ├── PullFailed              with the hub's own reason                     500
    │   ├── Gated                   its owner wants a licence accepted            403
    │   ├── DamagedFile             not a model, or a broken one                  400
    │   └── NoSpace                 the disk is too small: both numbers           507
    └── ClientError                 what portico.Client met; `url`, `request_id`, `attempts`
        ├── NotRunning              nothing answers there: how to start a server
        ├── NotTrusted              there is no TLS connection, or the proxy refuses
        ├── WrongKey                the server wants a key, or does not know this one
        ├── NoSuchModel             names what the server lists
        ├── PromptTooLong           both numbers, where they are known
        ├── OutOfMemory             the engine's memory is too small for it
        ├── NotSupported            the feature, and the server's flag that turns it on
        ├── Refused                 any other 4xx, in the server's own words
        ├── RateLimited             429: when to come again
        ├── ServerFailed            5xx, in the server's own words
        ├── TimedOut                which limit: connect, first_token, between_tokens, total
        ├── CutOff                  the reply ended before it was whole
        ├── Malformed               the reply cannot be read: its first bytes
        ├── WrongAnswer             the model's answer does not keep to the schema
        ├── OverBudget              a call would go over its budget: both numbers
        ├── PriceUnknown            a budget of money, and a model without a price
        ├── InUse                   another run writes to the same file
        └── ReplayDiffers           a replayed run asks something else: shows the difference

A dialect turns `status`, `code` and the message into its own form. `code` is stable: it is part of the API,
of `--json` and of the log. Facts stay attributes, so that nobody parses a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any


class PorticoError(Exception):
    """What every error here derives from: `except PorticoError as error: print(error.code, error)`."""

    status = 500
    code = "internal"
    param: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def message(self) -> str:
        return str(self)


def near(names: Sequence[str]) -> str:
    """`. Nearest: a, b` for the end of an error, or nothing."""
    return f". Nearest: {', '.join(names)}" if names else ""


class ConfigError(PorticoError):
    status, code = 500, "config"


class CannotListen(PorticoError):
    """The address is another program's, or none of this machine's; the message says what to type."""

    status, code = 500, "port"


# ---- the caller can mend it --------------------------------------------------------------------


class RequestError(PorticoError):
    status, code = 400, "invalid_request"


class InvalidRequest(RequestError):
    """A field is wrong or missing; `param` is its path in the body, such as `messages[0].role`."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"

    def __init__(self, *, tokens: int | None, limit: int | None, param: str | None = "messages") -> None:
        has = f"has {tokens} tokens" if tokens else "is too long"
        fits = f"the model's context is {limit} tokens" if limit else "it is over the model's context"
        super().__init__(f"The prompt {has}, but {fits}. Shorten the prompt.")
        self.tokens, self.limit, self.param = tokens, limit, param


class Unsupported(RequestError):
    """`feature` is named in the field's words: images, embeddings, suffix, tools, thinking."""

    code = "unsupported"

    def __init__(self, message: str, *, model: str, feature: str) -> None:
        super().__init__(message)
        self.model, self.feature = model, feature


class TemplateMissing(RequestError):
    code = "chat_template_missing"

    def __init__(self, *, model: str) -> None:
        super().__init__(
            f"Model {model!r} has no chat template, so it cannot chat. Use generate or completions, start the "
            "server with --chat-template FILE, or with --chat-fallback prompt."
        )
        self.model = model


class Unauthorized(RequestError):
    status, code = 401, "invalid_api_key"
    headers = ((b"www-authenticate", b"Bearer"),)

    def __init__(self) -> None:
        super().__init__(
            "This server wants an API key: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
        )


class Forbidden(RequestError):
    status, code = 403, "forbidden"


class RouteNotFound(RequestError):
    status, code = 404, "not_found"


class ModelNotFound(RequestError):
    status, code = 404, "model_not_found"

    def __init__(self, *, model: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(f"model {model!r} not found{near(nearest)}")
        self.model, self.nearest = model, tuple(nearest)


class MethodNotAllowed(RequestError):
    status, code = 405, "method_not_allowed"

    def __init__(self, message: str, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.headers = ((b"allow", ", ".join(allowed).encode()),)


class RequestTimeout(RequestError):
    status, code = 408, "request_timeout"


class BodyTooLarge(RequestError):
    status, code = 413, "body_too_large"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"The request's body is larger than {limit} bytes (--max-body-bytes).")
        self.limit = limit


class HeadersTooLarge(RequestError):
    status, code = 431, "headers_too_large"

    def __init__(self, *, limit: int, count: int) -> None:
        super().__init__(
            f"The request's headers are larger than {limit} bytes (max_header_bytes) or more than {count}."
        )
        self.limit, self.count = limit, count


# ---- the engine could not do its part ----------------------------------------------------------


class EngineError(PorticoError):
    status, code = 500, "engine_error"


class EngineStartFailed(EngineError):
    code = "engine_start_failed"

    def __init__(
        self,
        *,
        model: str,
        reason: str,
        exit_code: int | None = None,
        log_tail: str = "",
        out_of_memory: bool = False,
        gpus: frozenset[str] = frozenset(),
    ) -> None:
        """`gpus`: those that it was to use, as its engine names them."""
        ended = f" (exit code {exit_code})" if exit_code is not None else ""
        tail = f" Its last lines: {log_tail}" if log_tail else ""
        super().__init__(f"The engine for {model!r} did not start{ended}: {reason}{tail}")
        self.model, self.reason, self.exit_code, self.log_tail = model, reason, exit_code, log_tail
        self.out_of_memory, self.gpus = out_of_memory, gpus


class EngineDied(EngineError):
    status, code = 502, "engine_died"

    def __init__(self, *, model: str, log_tail: str = "") -> None:
        tail = f" Its last lines: {log_tail}" if log_tail else ""
        super().__init__(f"The engine of {model!r} ended while it was answering; it is restarted.{tail}")
        self.model, self.log_tail = model, log_tail


class UpstreamUnreachable(EngineError):
    status, code = 502, "upstream_unreachable"

    def __init__(self, *, url: str, reason: str = "") -> None:
        super().__init__(f"Nothing answers at {url}{': ' + reason if reason else ''}.")
        self.url = url


class UpstreamUntrusted(UpstreamUnreachable):
    """Something answers, but there is no TLS connection: its certificate is refused, or ours."""

    code = "upstream_untrusted"

    def __init__(self, *, url: str, reason: str) -> None:
        EngineError.__init__(self, f"There is no secure connection to {url}: {reason}.")
        self.url = url


class ProxyFailed(UpstreamUnreachable):
    """The proxy before a server does not let us through; `proxy` is its address, without user and password."""

    code = "proxy_failed"

    def __init__(self, *, proxy: str, url: str, reason: str) -> None:
        EngineError.__init__(self, f"The proxy {proxy} before {url} {reason}.")
        self.proxy, self.url = proxy, url


class UpstreamClosed(EngineError):
    """The engine closed the connection before its reply was whole."""

    status, code = 502, "upstream_closed"

    def __init__(self, *, url: str) -> None:
        super().__init__(f"The engine at {url} closed the connection before its reply was whole.")
        self.url = url


class UpstreamFailed(EngineError):
    """The engine answered with an error; the message is its own, and so is `status`, if it is an error's."""

    code = "upstream_error"

    def __init__(
        self, message: str, *, status: int, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param = status if 400 <= status <= 599 else 502, param
        if code:
            self.code = code


class UpstreamTimeout(EngineError):
    """`setting` is the limit's name: first_token_timeout or token_timeout; none for one that cannot be set."""

    status, code = 504, "upstream_timeout"

    def __init__(self, *, url: str, seconds: float, setting: str | None = None) -> None:
        what = (
            "stopped in the middle of its answer" if setting == "token_timeout" else "did not begin to answer"
        )
        named = f" ({setting})" if setting else ""
        super().__init__(f"The engine at {url} {what}: it sent nothing for {seconds:g} s{named}.")
        self.url, self.seconds, self.setting = url, seconds, setting


class TookTooLong(EngineError):
    status, code = 504, "request_too_long"

    def __init__(self, *, seconds: float) -> None:
        super().__init__(f"The request was not answered in full within {seconds:g} s (request_timeout).")
        self.seconds = seconds


class Busy(EngineError):
    """Too many wait already. OpenAI's clients know 429 for it."""

    status, code = 503, "overloaded"
    headers = ((b"retry-after", b"1"),)

    def __init__(
        self, message: str = "server busy, please try again.  maximum pending requests exceeded"
    ) -> None:
        super().__init__(message)


class WaitedTooLong(Busy):
    def __init__(self, *, seconds: float) -> None:
        super().__init__(
            f"server busy, please try again.  The request waited {seconds:g} s for its turn (queue_timeout)."
        )
        self.seconds = seconds


class ConnectionsFull(EngineError):
    status, code = 503, "overloaded"
    headers = ((b"retry-after", b"1"),)

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"The server has {limit} connections open, and takes no more; try again.")
        self.limit = limit


class ShuttingDown(EngineError):
    status, code = 503, "shutting_down"

    def __init__(self) -> None:
        super().__init__("The server is stopping; nothing more is started. Send the request again later.")


# ---- models on disk and on the hub -------------------------------------------------------------


class LibraryError(PorticoError):
    status, code = 500, "library"


class PullFailed(LibraryError):
    code = "pull_failed"


class Gated(LibraryError):
    status, code = 403, "gated"


class DamagedFile(LibraryError):
    status, code = 400, "damaged_file"

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path} cannot be loaded: {reason}.")
        self.path, self.reason = path, reason


class NoSpace(LibraryError):
    status, code = 507, "no_space"

    def __init__(self, *, path: str, needed: int, free: int) -> None:
        super().__init__(
            f"{path} has {free} bytes free, but {needed} are needed. Free some space and run it again."
        )
        self.path, self.needed, self.free = path, needed, free


# ---- what a client met -------------------------------------------------------------------------


class ClientError(PorticoError):
    """What every error of `portico.Client` derives from. `url` is the server's, without a password; `request_id` is what
    its log calls the request; `attempts` is how often it was asked; `todo` is what helps, where the server's own words stand
    before it."""

    todo: str = ""
    url: str = ""
    request_id: str = ""
    attempts: int = 1
    tried: tuple[Any, ...] = ()
    """Every attempt (portico.client.results.Attempt), with those at servers that were asked before this one."""

    def __str__(self) -> str:
        about = [f"server {self.url}"] if self.url else []
        about += [f"request {self.request_id}"] if self.request_id else []
        about += [f"{self.attempts} attempts"] if self.attempts > 1 else []
        said = super().__str__().rstrip()
        if self.todo:
            said = f"{said}{'' if said[-1:] in '.!?' else '.'} {self.todo}"
        said = f"{said} ({', '.join(about)})" if about else said
        before = {each.url: each.error for each in self.tried if each.url != self.url}
        return said + "".join(f" Before it, {url}: {error}" for url, error in before.items())


class NotRunning(ClientError):
    status, code = 502, "not_running"

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "Nothing answers there. Start a server with `portico serve` (on another machine with --host 0.0.0.0, and its port "
            "open in the firewall), or name another one: url=, PORTICO_HOST or VLLM_BASE_URL."
        )


class NotTrusted(ClientError):
    status, code = 502, "not_trusted"


class WrongKey(ClientError):
    status, code = 401, "invalid_api_key"


class NoSuchModel(ClientError):
    """`served` are the models that the server lists."""

    status, code = 404, "model_not_found"

    todo = "Name one that it has: model= or VLLM_MODEL_NAME; client.models() lists them."

    def __init__(self, *, model: str, served: Sequence[str] = (), said: str = "") -> None:
        """`said`: the server's own words, where the list would not tell more."""
        told = f" It has: {', '.join(served)}." if served else f" It says: {said}" if said else ""
        super().__init__(f"The server has no model {model!r}.{told}")
        self.model, self.served = model, tuple(served)


class PromptTooLong(ClientError):
    """`tokens` are the prompt's, `limit` is what the model's context holds, `wanted` what the answer may take."""

    status, code = 400, "context_length_exceeded"

    def __init__(self, *, tokens: int | None, limit: int | None, wanted: int | None = None) -> None:
        has = f"has {tokens} tokens" if tokens is not None else "is too long"
        fits = (
            f"the model's context is {limit} tokens"
            if limit is not None
            else "it is over the model's context"
        )
        more = f" and max_tokens asks for {wanted} more" if wanted is not None else ""
        less = " or lower max_tokens" if wanted is not None else ""
        super().__init__(f"The prompt {has}{more}, but {fits}. Shorten the prompt{less}.")
        self.tokens, self.limit, self.wanted = tokens, limit, wanted


class OutOfMemory(ClientError):
    status, code = 507, "out_of_memory"
    todo = (
        "Send less at once, shorten the prompt, or take a smaller or quantized model; at vLLM: --max-num-seqs, --max-model-len, "
        "--gpu-memory-utilization."
    )


class NotSupported(ClientError):
    """`feature` is the client's word for it; `flag` turns it on at the server, where there is such a flag."""

    status, code = 400, "unsupported"

    def __init__(self, message: str, *, feature: str, flag: str = "") -> None:
        super().__init__(message + (f" Start the server with {flag}." if flag else ""))
        self.feature, self.flag = feature, flag


class Refused(ClientError):
    """The server's words say what to change; `status` is its own."""

    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.retry_after = status, param, retry_after
        if status in (404, 405):
            self.todo = "There is no such route: is the address right? Both http://HOST:PORT and http://HOST:PORT/v1 are understood."
        if code:
            self.code = code


class RateLimited(ClientError):
    """`retry_after`: seconds after which the server wants to be asked again; None: it does not say."""

    status, code = 429, "rate_limited"
    todo = "Send less at once, or later; retry=Retry(attempts=...) asks more often."

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        again = f" It can be asked again in {retry_after:g} s." if retry_after is not None else ""
        super().__init__(message + again)
        self.retry_after = retry_after


class ServerFailed(ClientError):
    code = "server_failed"
    todo = "The server's log says why; behind Portico: portico logs MODEL."

    def __init__(
        self, message: str, *, status: int, code: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        if status == 503:
            self.todo = "It is busy, or not ready yet: send less at once, or later."
        if code:
            self.code = code


class TimedOut(ClientError):
    """`which` limit it was: connect, first_token, between_tokens or total; `seconds` is its value."""

    status, code = 504, "timed_out"

    def __init__(self, *, which: str, seconds: float) -> None:
        what = {
            "connect": "No connection could be made",
            "first_token": "The answer did not begin",
            "between_tokens": "The answer stopped in the middle",
            "total": "The answer was not whole",
        }[which]
        super().__init__(f"{what} within {seconds:g} s (timeouts={which}).")
        self.todo = {
            "connect": "The machine is off, a firewall drops the connection, or the address is another's.",
            "first_token": "The server loads the model, or has more to do than it can: look at its GPU (`portico ps`, nvidia-smi), "
            "take a smaller model, or give it more time: Timeouts(first_token=...).",
            "between_tokens": "Its log says whether the engine still works; or give it more time: Timeouts(between_tokens=...).",
            "total": "Give it more time, Timeouts(total=...), or fewer max_tokens.",
        }[which]
        self.which, self.seconds = which, seconds


class CutOff(ClientError):
    """`text` is what had come."""

    status, code = 502, "cut_off"
    todo = "Ask again; if it happens again, the server's log says why."

    def __init__(self, message: str = "The reply ended before it was whole.", *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class Malformed(ClientError):
    status, code = 502, "malformed"
    todo = "Is it a server with OpenAI's API, and its address right? Both http://HOST:PORT and http://HOST:PORT/v1 are understood."

    def __init__(self, *, body: bytes, expected: str) -> None:
        begins = body[:200].decode("utf-8", "replace")
        super().__init__(f"The reply is not {expected}; it begins: {begins!r}.")
        self.begins = begins


class WrongAnswer(ClientError):
    """`text` is the model's answer, `problems` what is wrong with it."""

    status, code = 422, "wrong_answer"
    todo = "Ask again, or say in the prompt what is wanted; error.text is what came."

    def __init__(self, message: str, *, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.text, self.problems = text, tuple(problems)


class OverBudget(ClientError):
    """`needed` is what the call may take, `left` what the budget has, `held` what calls in flight may still take of it."""

    status, code = 402, "over_budget"

    def __init__(
        self,
        *,
        needed: int | Decimal,
        left: int | Decimal,
        of: int | Decimal | None = None,
        held: int | Decimal = 0,
        unit: str = "tokens",
    ) -> None:
        whole = f" of {of:f}" if isinstance(of, Decimal) else f" of {of}" if of is not None else ""
        flying = f" (calls in flight hold {held:f})" if held and isinstance(held, Decimal) else ""
        flying = flying or (f" (calls in flight hold {held})" if held else "")
        asked, rest = (f"{each:f}" if isinstance(each, Decimal) else str(each) for each in (needed, left))
        super().__init__(
            f"The call may take {asked} {unit}, and the budget{whole} has {rest} left{flying}: it was not sent. Lower its "
            "max_tokens, shorten its prompt, or raise the budget."
        )
        self.needed, self.left, self.held, self.unit = needed, left, held, unit


class PriceUnknown(ClientError):
    """A budget of money can not be kept for a model whose price nobody knows."""

    status, code = 402, "price_unknown"


class InUse(ClientError):
    status, code = 409, "in_use"


class ReplayDiffers(ClientError):
    status, code = 409, "replay_differs"
