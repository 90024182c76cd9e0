"""Every error of the client over a real socket, with both drivers: each names the server, the request and what to do. Among
them is every entry of the troubleshooting lists of the tools whose place it takes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import portico.errors
from certificates import Authority
from portico import recording
from portico.client.budget import Budget
from portico.client.client import Client
from portico.client.outputs import Choice
from portico.client.settings import NO_RETRY, Timeouts
from portico.errors import (
    ClientError,
    CutOff,
    InUse,
    Malformed,
    NoSuchModel,
    NotRunning,
    NotSupported,
    NotTrusted,
    OutOfMemory,
    OverBudget,
    PriceUnknown,
    PromptTooLong,
    RateLimited,
    Refused,
    ReplayDiffers,
    ServerFailed,
    TimedOut,
    WrongAnswer,
    WrongKey,
)
from scripted_answers import CHAT, COMPLETIONS, EMBEDDINGS, chat_stream, reply
from scripted_upstream import CLOSE, HOLD, ScriptedUpstream
from test_client import Both, error, said

ID = {"x_request_id": "r-17"}


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    _upstream.reset()
    yield _upstream
    _upstream.release()


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTICO_HOME", str(tmp_path / "home"))
    return tmp_path


def nobody() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# ---- what a server does, and what is said of it


class Case:
    """`does` makes the server do it; `calls` is how it is met; `says` is what stands in the error."""

    def __init__(
        self,
        entry: str,
        kind: type[ClientError],
        says: str,
        does: Callable[[ScriptedUpstream], None],
        calls: Callable[[Both], Any] = lambda both: both.chat(retry=NO_RETRY, told={"model": "m"}),
        *,
        request: bool = True,
    ) -> None:
        self.entry, self.kind, self.says, self.does, self.calls = entry, kind, says, does, calls
        self.request = request
        """It is about one request, which the error names."""


def answers(*script: Any, path: str = CHAT) -> Callable[[ScriptedUpstream], None]:
    return lambda upstream: upstream.script(path, *script)


def nothing(upstream: ScriptedUpstream) -> None:
    """The server is not to blame."""


def to_nobody(both: Both) -> Any:
    both.url = nobody()
    return both.chat(retry=NO_RETRY, told={"model": "m"})


def streams(**timeouts: float) -> Callable[[Both], Any]:
    return lambda both: both.stream(retry=NO_RETRY, timeouts=Timeouts(**timeouts))


def chats(**options: Any) -> Callable[[Both], Any]:
    return lambda both: both.chat(**{"retry": NO_RETRY, "told": {"model": "m"}, **options})


TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
    "tokenizer does not define one."
)
CONTEXT = (
    "This model's maximum context length is 64 tokens. However, you requested 5 output tokens and your prompt contains 70 "
    "input tokens, for a total of 75 tokens."
)
MISSING = reply(
    404,
    {"error": {"message": "The model `m` does not exist.", "code": 404}},
    headers={"x-request-id": "r-17"},
)
CASES = [
    # The lists of the seeds, in their words
    Case(
        "marktoflow: VLLM server isn't running",
        NotRunning,
        "Start a server with `portico serve`",
        nothing,
        to_nobody,
    ),
    Case(
        "marktoflow: serving a different model name",
        NoSuchModel,
        r"no model 'm'\. It has: mock-model",
        answers(MISSING),
    ),
    Case(
        "marktoflow: 400 validation errors",
        Refused,
        r"messages: expected an array.*request r-17",
        answers(error(400, "messages: expected an array", **ID)),
    ),
    Case(
        "marktoflow: slow first request",
        TimedOut,
        r"loads the model, or has more to do than it can.*Timeouts\(first_token=",
        answers((HOLD,)),
        chats(timeouts=Timeouts(first_token=0.2)),
    ),
    Case(
        "agent-sdk-go: Connection Refused",
        NotRunning,
        r"or name another one: url=, PORTICO_HOST",
        nothing,
        to_nobody,
    ),
    Case("agent-sdk-go: Model Not Found", NoSuchModel, r"client\.models\(\) lists them", answers(MISSING)),
    Case(
        "agent-sdk-go: Out of Memory",
        OutOfMemory,
        r"CUDA out of memory\. Send less at once, .*smaller or quantized model.*--gpu-memory-utilization",
        answers(error(500, "CUDA out of memory", **ID)),
    ),
    Case(
        "agent-sdk-go: Slow Response",
        TimedOut,
        "look at its GPU .* take a smaller model",
        answers((HOLD,)),
        chats(timeouts=Timeouts(first_token=0.2)),
    ),
    Case("ChatDev: Connection Refused", NotRunning, "Nothing answers there", nothing, to_nobody),
    Case("ChatDev: Model Not Found", NoSuchModel, "VLLM_MODEL_NAME", answers(MISSING)),
    Case(
        "ChatDev: Response Format Errors, not OpenAI's",
        Malformed,
        r"it begins: '<html>It works!'\. Is it a server with OpenAI's API",
        answers(reply(200, b"<html>It works!", headers={"x-request-id": "r-17"})),
    ),
    Case(
        "ChatDev: Response Format Errors, of the list of models",
        Malformed,
        r"not a list of models; it begins: '<html>'",
        answers(reply(200, b"<html>", headers={"x-request-id": "r-17"}), path="/v1/models"),
        lambda both: both.chat(retry=NO_RETRY),
    ),
    Case(
        "ChatDev: Response Format Errors, check server logs",
        ServerFailed,
        r"the engine died\. The server's log says why",
        answers(error(500, "the engine died", **ID)),
    ),
    Case(
        "ChatDev: the model does not support chat completions",
        NotSupported,
        "Start the server with --chat-template FILE",
        answers(error(400, TEMPLATE, **ID)),
    ),
    Case("Amplifier: Connection Refused, not running", NotRunning, "portico serve", nothing, to_nobody),
    Case("Amplifier: Connection Refused, firewall", NotRunning, "open in the firewall", nothing, to_nobody),
    Case("Amplifier: Connection Refused, --host", NotRunning, "--host 0.0.0.0", nothing, to_nobody),
    Case(
        "Amplifier: API Timeout",
        TimedOut,
        r"not whole within 0.2 s \(timeouts=total\)\. Give it more time, Timeouts\(total=",
        answers((HOLD,)),
        chats(timeouts=Timeouts(total=0.2)),
    ),
    # And what they do not list
    Case(
        "a key",
        WrongKey,
        r"refuses the key: bad key Set it with api_key=",
        answers(error(401, "bad key", **ID)),
    ),
    Case("no key", WrongKey, "in the variable of this server", answers(error(403, "forbidden", **ID))),
    Case(
        "the context",
        PromptTooLong,
        "70 tokens.*64 tokens.*Shorten the prompt",
        answers(error(400, CONTEXT, **ID)),
    ),
    Case(
        "too many requests",
        RateLimited,
        "It can be asked again in 7 s. Send less at once",
        answers(error(429, "slow down", retry_after="7", **ID)),
    ),
    Case(
        "a stream that stops",
        TimedOut,
        r"Timeouts\(between_tokens=",
        answers((*chat_stream("one")[:2], HOLD)),
        streams(between_tokens=0.2),
    ),
    Case(
        "a stream that is cut",
        CutOff,
        "ended before it was whole. Ask again",
        answers((*chat_stream("one")[:2], CLOSE)),
        streams(),
    ),
    Case(
        "a reply that is cut",
        CutOff,
        "the server's log says why",
        answers((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", CLOSE)),
    ),
    Case(
        "tools without a parser",
        NotSupported,
        "Start the server with --enable-auto-tool-choice --tool-call-parser PARSER",
        answers(
            error(
                400,
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
                **ID,
            )
        ),
    ),
    Case(
        "tools of Ollama",
        NotSupported,
        "does not support tools",
        answers(error(400, "registry/m does not support tools", **ID)),
    ),
    Case(
        "no vectors",
        NotSupported,
        "does not offer embeddings with this model",
        answers(error(404, "Not Found", **ID), path=EMBEDDINGS),
        lambda both: both.do(lambda one: one.embed("a", model="m"), retry=NO_RETRY),
    ),
    Case(
        "no raw completions",
        NotSupported,
        "does not offer completions with this model",
        answers(error(405, "Method Not Allowed", **ID), path=COMPLETIONS),
        lambda both: both.do(lambda one: one.complete("a", model="m"), retry=NO_RETRY),
    ),
    Case(
        "no such route",
        Refused,
        "There is no such route: is the address right?",
        answers(error(404, "Not Found", **ID)),
    ),
    Case(
        "an answer of another kind",
        WrongAnswer,
        "'green' is none of red, blue. Ask again",
        answers(said("green")),
        chats(told={"model": "m", "output": Choice("red", "blue")}),
    ),
    Case(
        "a budget",
        OverBudget,
        "the budget of 5 has 5 left: it was not sent. Lower its max_tokens",
        nothing,
        chats(budget=Budget(tokens=5)),
        request=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.entry)
def test_each_error_says_what_where_and_what_to_do(
    both: Both, upstream: ScriptedUpstream, case: Case
) -> None:
    case.does(upstream)
    with pytest.raises(case.kind, match=case.says) as caught:
        case.calls(both)
    found = caught.value
    assert type(found) is case.kind
    assert found.url == both.url.removesuffix("/v1") and f"server {found.url}" in str(found)
    if case.request:
        assert found.request_id and f"request {found.request_id}" in str(found)
        if upstream.received:
            sent = upstream.received[-1 if case.kind is not NoSuchModel else 0].headers.get("x-request-id")
            assert found.request_id in ("r-17", sent), "it is what the server's log has"


def test_the_whole_tree_is_met_here() -> None:
    """Besides those that no server says: a certificate and a price (below), a file in use (test_client_batch)."""
    every = {
        kind
        for kind in vars(portico.errors).values()
        if isinstance(kind, type) and issubclass(kind, ClientError) and kind is not ClientError
    }
    met = {case.kind for case in CASES}
    assert every - met == {NotTrusted, PriceUnknown, ReplayDiffers, InUse}


def test_a_certificate(both: Both, tmp_path: Path) -> None:
    pair = Authority(tmp_path / "ca").issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with ScriptedUpstream(tls=context) as secure:
        both.url = secure.url
        with pytest.raises(NotTrusted, match=r"There is no secure connection.*verify=") as caught:
            both.chat()
    assert caught.value.url == secure.url.removesuffix("/v1") and caught.value.request_id


def test_a_price(both: Both) -> None:
    both.url = "https://api.example.com"
    with pytest.raises(PriceUnknown, match=r"prices=\{'m': Price\(...\)\}.*server https://api.example.com"):
        both.chat(budget=Budget(cost=1), told={"model": "m"})


def test_a_replay_that_differs(both: Both, tmp_path: Path) -> None:
    with recording.record(tmp_path / "run.jsonl"):
        both.chat("Hello", told={"model": "m"})
    with recording.replay(tmp_path / "run.jsonl"), pytest.raises(ReplayDiffers, match=r"\+.*Good bye"):
        both.chat("Good bye", told={"model": "m"})


def test_nothing_is_named_and_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amplifier: "No base_url found", as the client says it."""
    import portico.client.servers

    for name in ("PORTICO_HOST", "VLLM_BASE_URL", "VLLM_ENDPOINT", "OLLAMA_HOST", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(portico.client.servers, "LOOPBACK", (nobody(), nobody()))
    with pytest.raises(NotRunning, match=r"No server is named, and none answers at .* and .*VLLM_BASE_URL"):
        Client().chat("Hello")


# ---- the request's name


def test_a_request_is_named_so_that_the_servers_log_can_be_searched(
    both: Both, upstream: ScriptedUpstream
) -> None:
    result = both.chat()
    assert result.request_id == upstream.requests(CHAT)[-1].headers["x-request-id"]
    upstream.script(CHAT, error(503), error(503))
    result = both.chat()
    assert {request.headers["x-request-id"] for request in upstream.requests(CHAT)[1:]} == {result.request_id}
    both.chat(headers={"X-Request-Id": "mine"})
    assert upstream.requests(CHAT)[-1].headers["x-request-id"] == "mine"


def test_a_recording_names_none(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """An error's text may be part of a later prompt, and chance is not for a replay."""
    upstream.script(CHAT, (HOLD,))
    limits = Timeouts(first_token=0.2)
    with recording.record(tmp_path / "run.jsonl"), pytest.raises(TimedOut) as first:
        both.chat(timeouts=limits, retry=NO_RETRY, told={"model": "m"})
    with recording.replay(tmp_path / "run.jsonl"), pytest.raises(TimedOut) as again:
        both.chat(timeouts=limits, retry=NO_RETRY, told={"model": "m"})
    assert str(first.value) == str(again.value)


def test_cancelling_is_no_error_of_ours(upstream: ScriptedUpstream) -> None:
    from portico.client.async_client import AsyncClient

    upstream.script(CHAT, (HOLD,))

    async def run() -> None:
        async with AsyncClient(upstream.url) as one:
            async with asyncio.timeout(0.2):
                await one.chat("Hello", model="m")

    with pytest.raises(TimeoutError):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("words", "feature", "flag"),
    [
        (
            "Requested sample logprobs of 50, which is greater than max allowed: 20",
            "logprobs",
            "--max-logprobs",
        ),
        (
            "Chat template is passed with request, but --trust-request-chat-template is not set.",
            "chat_template",
            "--trust-request-chat-template",
        ),
        (
            "thinking_token_budget is set but reasoning_config is not configured.",
            "thinking_token_budget",
            "--reasoning-parser",
        ),
        ('Grammar error: Unimplemented keys: ["uniqueItems"]', "json_schema", "uniqueItems"),
    ],
)
def test_what_vllm_says_of_a_feature_that_is_off(
    both: Both, upstream: ScriptedUpstream, words: str, feature: str, flag: str
) -> None:
    upstream.script(CHAT, error(400, words))
    with pytest.raises(NotSupported, match=flag) as caught:
        both.chat()
    assert caught.value.feature == feature


def test_a_server_that_sends_on(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(307, location="https://elsewhere/v1/chat/completions"))
    with pytest.raises(Refused, match=r"sends on to https://elsewhere/v1/chat/completions: name that"):
        both.chat()


def test_a_listed_model_that_is_not_there_is_told_in_the_servers_words(
    both: Both, upstream: ScriptedUpstream
) -> None:
    upstream.script(CHAT, error(404, "The model `mock-model` does not exist at its engine."))
    with pytest.raises(NoSuchModel, match="It says: The model `mock-model` does not exist at its engine"):
        both.chat(model="mock-model")


@pytest.mark.parametrize("body", [{}, {"choices": []}])
def test_a_reply_without_an_answer_is_none(both: Both, upstream: ScriptedUpstream, body: Any) -> None:
    upstream.script(CHAT, reply(200, body))
    with pytest.raises(Malformed, match=r"it begins: '\{"):
        both.chat()
