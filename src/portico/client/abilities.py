"""What a server really supports, found out by asking it: cheap questions, and never one that makes it generate.

software     who it is, and its version, by its list of models and /version
ability      one feature of one model: asked when something needs it
"""

from __future__ import annotations

import re
import time
from typing import Any, Literal

import msgspec

from portico.client import overlooked, schemas
from portico.client.servers import Server
from portico.client.wishes import Answer, Flow, Send
from portico.errors import TimedOut
from portico.messages import Value

PORTICO, VLLM, OLLAMA, LLAMACPP, OPENAI = "Portico", "vLLM", "Ollama", "llama.cpp", "OpenAI"
Feature = Literal[
    "tokenize",
    "detokenize",
    "tools",
    "json_schema",
    "choice",
    "regex",
    "grammar",
    "logprobs",
    "token_ids",
    "embeddings",
    "beam_search",
    "completions",
    "sampling",
]
FEATURES: tuple[Feature, ...] = Feature.__args__  # type: ignore[attr-defined]
State = Literal["yes", "no", "unknown"]
How = Literal["asked", "listed", "documented", "guess"]
SECONDS = 10.0
"""What a question may take: what nobody answers is unknown."""
TOOLS_FLAG = "--enable-auto-tool-choice --tool-call-parser PARSER"


class Software(Value, frozen=True, kw_only=True):
    """`name` is one of the above, or empty; `version` is what it says of itself, or empty."""

    name: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name or 'a server with the API of OpenAI'} {self.version}".rstrip()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of its version, to compare; empty: it has none that says something."""
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", self.version)
        numbers = tuple(int(each or 0) for each in found.groups()) if found else ()
        return numbers if any(numbers) else ()


class Ability(Value, frozen=True, kw_only=True):
    """`how` it is known: asked of the server, listed in its /openapi.json, documented by those who make it, or a guess by its
    version. `flag` turns it on at the server."""

    feature: str
    state: State
    how: How = "asked"
    why: str = ""
    flag: str = ""
    via: str = ""
    """The words in which it is asked for, where servers differ: structured_outputs, grammar or json_schema."""
    without: tuple[str, ...] = ()
    """Of "sampling" the parameters, of "json_schema" the keywords that it overlooks."""
    server: str = ""
    """Which software it is, with its version."""

    @property
    def estimate(self) -> bool:
        """The server itself did not say so."""
        return self.how in ("documented", "guess")


class Probe(Value, frozen=True, kw_only=True):
    """`str(probe)` is a table of it."""

    url: str
    software: Software
    model: str
    context: int | None
    models: tuple[str, ...]
    abilities: tuple[Ability, ...]

    def __getitem__(self, feature: str) -> Ability:
        return next(each for each in self.abilities if each.feature == feature)

    def __str__(self) -> str:
        context = f"{self.context} tokens" if self.context else "unknown"
        lines = [f"{self.url}: {self.software}", f"model {self.model}, context {context}"]
        for each in self.abilities:
            more = "; ".join(filter(None, (each.why, f"start it with {each.flag}" if each.flag else "")))
            known = {"documented": "estimate: documented", "guess": "estimate: by its version"}.get(
                each.how, each.how
            )
            lines.append(f"  {each.feature:<12} {each.state:<8} {known}{f'; {more}' if more else ''}")
        return "\n".join(lines)


class Card(msgspec.Struct):
    """As /v1/models has it; only who owns it tells something here."""

    owned_by: str | None = None


class _Models(msgspec.Struct):
    data: list[Card] = []


class _Version(msgspec.Struct):
    version: str = ""


class _Shown(msgspec.Struct):
    capabilities: list[str] = []
    details: dict[str, Any] = {}


class _Described(msgspec.Struct):
    paths: dict[str, Any] = {}
    components: dict[str, Any] = {}


class Description(msgspec.Struct, frozen=True):
    """Of /openapi.json: its paths, and the fields of a chat's request. Empty where it has none."""

    paths: frozenset[str] = frozenset()
    chat: frozenset[str] = frozenset()


class Asked:
    """Owns what one server has said of itself. Its flows raise ClientError only where there is no reply at all; they ask once,
    without retries."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._software: Software | None = None
        self._description: Description | None = None
        self._shown: dict[str, _Shown] = {}

    def software(self) -> Flow[Software]:
        if self._software is None:
            self._software = yield from self._recognized()
        return self._software

    def _recognized(self) -> Flow[Software]:
        """1. By its address. 2. It says so in a header. 3. It has Ollama's route. 4. Its models are owned by it."""
        if self._server.url == "https://api.openai.com":  # (1)
            return Software(name=OPENAI)
        listed = yield from self._get("/v1/models")
        if listed.headers.get("server", "").lower() == "portico":  # (2)
            return Software(name=PORTICO, version=(yield from self._version("/version")))
        if ollama := (yield from self._version("/api/version")):  # (3)
            return Software(name=OLLAMA, version=ollama)
        owners = {card.owned_by for card in _read(listed, _Models, _Models()).data}
        if "llamacpp" in owners:  # (4)
            return Software(name=LLAMACPP)
        version = yield from self._version("/version")
        return Software(name=VLLM if "vllm" in owners else "", version=version)

    def _version(self, path: str) -> Flow[str]:
        told: _Version = _read((yield from self._get(path)), _Version, _Version())
        return told.version[:40]

    def description(self) -> Flow[Description]:
        if self._description is None:
            told = _read((yield from self._get("/openapi.json")), _Described, _Described())
            self._description = _described(told)
        return self._description

    def _show(self, model: str) -> Flow[_Shown]:
        """Of Portico and Ollama, which know more of a model than OpenAI's API has words for."""
        if model not in self._shown:
            shown = yield from self._post("/api/show", {"model": model})
            self._shown[model] = _read(shown, _Shown, _Shown())
        return self._shown[model]

    # ---- features

    def ability(self, feature: Feature, model: str) -> Flow[Ability]:
        software = yield from self.software()
        if feature in ("tokenize", "detokenize") and software.name != OPENAI:
            return (yield from self._route(feature, model))
        match software.name:
            case "vLLM":
                found = yield from self._vllms(feature, model, software)
            case "Portico" | "Ollama":
                found = yield from self._shown_of(feature, model, software)
            case "llama.cpp" | "OpenAI":
                found = _documented(feature, software, model)
            case _:
                found = yield from self._strangers(feature, model)
        return found

    def _vllms(self, feature: Feature, model: str, software: Software) -> Flow[Ability]:
        if feature == "tools":
            return (yield from self._vllms_tools(model))
        if feature == "logprobs":
            return Ability(
                feature=feature,
                state="yes",
                how="documented",
                why="20 alternatives unless --max-logprobs says",
            )
        described = yield from self.description()
        if not described.paths:
            return _by_version(feature, software)
        if feature in ("embeddings", "completions"):
            if f"/v1/{feature}" not in described.paths:
                return _listed(feature, False, why=f"no route /v1/{feature}: its model is of another kind")
            if feature == "embeddings":  # older ones have the route whatever the model is
                return (yield from self._route(feature, model))
            return _listed(feature, True)
        there = _FIELDS[feature] in described.chat
        found = _listed(feature, there, why="" if there else "an older version")
        return _without(found, schemas.VLLM) if feature == "json_schema" and there else found

    def _vllms_tools(self, model: str) -> Flow[Ability]:
        """Whether the parser is on, is said before anything is generated: by the route that only renders a prompt, and where it
        is not there, or switched off (0.32: 403 without --enable-scale-out), by a request with a temperature that is refused
        after that."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "-"}],
            "tools": [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}],
            "tool_choice": "auto",
        }
        reply = yield from self._post("/v1/chat/completions/render", body)
        if reply.status in (403, 404, 405, 501) and b"model" not in reply.body[:400].lower():
            reply = yield from self._post(
                "/v1/chat/completions", {**body, "temperature": -1.0, "max_tokens": 1}
            )
            if reply.status == 400 and b"temperature" in reply.body:
                return Ability(feature="tools", state="yes")
        if b"tool choice requires" in reply.body or b"requires --tool-call-parser" in reply.body:
            return Ability(feature="tools", state="no", flag=TOOLS_FLAG)
        return Ability(feature="tools", state="yes" if reply.status == 200 else "unknown")

    def _shown_of(self, feature: Feature, model: str, software: Software) -> Flow[Ability]:
        shown = yield from self._show(model)
        name = {"tools": "tools", "embeddings": "embedding"}.get(feature)
        if name is not None and shown.capabilities:
            there = name in shown.capabilities
            return Ability(
                feature=feature, state="yes" if there else "no", why="" if there else f"not with {model}"
            )
        if software.name == OLLAMA:
            return _documented(feature, software, model)
        if feature in ("choice", "regex", "grammar", "token_ids", "beam_search", "sampling", "json_schema"):
            engine = shown.details.get("format")
            if engine == "gguf":
                return _documented(feature, Software(name=LLAMACPP), model)
            if engine == "safetensors":
                found = Ability(feature=feature, state="yes", how="documented", why="its engine is vLLM")
                return _without(found, schemas.VLLM) if feature == "json_schema" else found
            return Ability(feature=feature, state="unknown", how="guess", why="its engine is another server")
        return Ability(feature=feature, state="yes", how="documented")

    def _strangers(self, feature: Feature, model: str) -> Flow[Ability]:
        described = yield from self.description()
        if _FIELDS.get(feature, "") in described.chat:
            return _listed(feature, True)
        return Ability(feature=feature, state="unknown", how="guess")

    def _route(self, feature: Feature, model: str) -> Flow[Ability]:
        body: dict[str, Any] = {"prompt": "a", "content": "a"}
        path = f"/{feature}"
        if feature == "detokenize":
            body = {"tokens": [0]}
        elif feature == "embeddings":
            body, path = {"input": "a"}, "/v1/embeddings"
        reply = yield from self._post(path, {"model": model, **body})
        if reply.status == 200:
            return Ability(feature=feature, state="yes")
        if reply.status in (404, 405, 501):
            return Ability(feature=feature, state="no", why=f"no route {path}")
        if feature == "embeddings" and reply.status == 400:
            return Ability(feature=feature, state="no", why=f"not with {model}")
        return Ability(feature=feature, state="unknown", why=f"status {reply.status}")

    # ---- questions

    def _get(self, path: str) -> Flow[Answer]:
        return (yield from self._asked(Send("GET", path, server=self._server)))

    def _post(self, path: str, body: Any) -> Flow[Answer]:
        return (yield from self._asked(Send("POST", path, msgspec.json.encode(body), server=self._server)))

    def _asked(self, question: Send) -> Flow[Answer]:
        try:
            reply: Answer = yield question._replace(deadline=time.monotonic() + SECONDS)
        except TimedOut as error:
            raise TimedOut(which="total", seconds=SECONDS) from error
        return reply


_FIELDS: dict[str, str] = {
    "json_schema": "response_format",
    "choice": "structured_outputs",
    "regex": "structured_outputs",
    "grammar": "structured_outputs",
    "token_ids": "return_token_ids",
    "beam_search": "use_beam_search",
    "logprobs": "logprobs",
    "sampling": "min_tokens",
}
"""The field of a chat by which vLLM does it."""

_SINCE: dict[str, tuple[int, ...]] = {
    "choice": (0, 11, 0),
    "regex": (0, 11, 0),
    "grammar": (0, 11, 0),
    "token_ids": (0, 10, 2),
    "beam_search": (0, 6, 2),
    "json_schema": (0, 6, 0),
    "completions": (0, 1, 0),
    "sampling": (0, 4, 0),
}
"""vLLM's version from which on it has it, in the form that is sent here (its release notes)."""

_DOCUMENTED: dict[str, dict[str, str]] = {
    LLAMACPP: {
        "tools": "with --jinja",
        "token_ids": "no: it has none in its chats",
        "beam_search": "no: over log probabilities by the client",
        "embeddings": "unknown: with --embeddings",
    },
    OLLAMA: {
        "token_ids": "no: it has none",
        "grammar": "no: JSON schemas only",
        "beam_search": "no: over log probabilities by the client",
    },
    OPENAI: {
        "tokenize": "no: it has no such route",
        "detokenize": "no: it has no such route",
        "token_ids": "no: it has none",
        "grammar": "no: not in this API",
        "beam_search": "no: over log probabilities by the client",
        "embeddings": "unknown: with models for that",
        "completions": "unknown: with old models",
    },
}
"""What differs from a plain yes, by what those who make them say (their API references, November 2026)."""


_VIA = {LLAMACPP: "grammar", OLLAMA: "json_schema", OPENAI: "json_schema"}


def _documented(feature: Feature, software: Software, model: str) -> Ability:
    lacks = (overlooked if feature == "sampling" else schemas).BY_SOFTWARE.get(software.name)
    if feature in ("sampling", "json_schema") and lacks:
        return _without(Ability(feature=feature, state="yes", how="documented"), lacks)
    told = _DOCUMENTED[software.name].get(feature, "")
    state, colon, why = told.partition(": ")
    if not colon:
        via = _VIA[software.name] if feature in ("choice", "regex", "grammar") else ""
        why = told or (f"as a {via.replace('_', ' ').replace('json', 'JSON')}" if via else "")
        return Ability(feature=feature, state="yes", how="documented", why=why, via=via)
    return Ability(feature=feature, state="no" if state == "no" else "unknown", how="documented", why=why)


def _without(found: Ability, lacks: frozenset[str]) -> Ability:
    """What it has, but for what it overlooks."""
    without = tuple(sorted(lacks))
    why = "; ".join(filter(None, (found.why, f"without {', '.join(without)}")))
    return msgspec.structs.replace(found, why=why, without=without)


def _listed(feature: Feature, there: bool, *, why: str = "") -> Ability:
    return Ability(feature=feature, state="yes" if there else "no", how="listed", why=why)


def _by_version(feature: Feature, software: Software) -> Ability:
    """For a vLLM whose documents are switched off."""
    since, numbers = _SINCE.get(feature), software.numbers
    if since is None or not numbers:
        return Ability(feature=feature, state="unknown", how="guess")
    there = numbers >= since
    why = "" if there else f"vLLM has it since {'.'.join(map(str, since))}"
    return Ability(feature=feature, state="yes" if there else "no", how="guess", why=why)


def _described(told: _Described) -> Description:
    try:
        schema = told.paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]
        if reference := schema.get("$ref"):
            schema = told.components["schemas"][reference.rpartition("/")[2]]
        chat = frozenset(schema.get("properties") or ())
    except (KeyError, TypeError, AttributeError):
        chat = frozenset()
    return Description(frozenset(told.paths), chat)


def _read(reply: Answer, kind: type[Any], otherwise: Any) -> Any:
    if reply.status != 200:
        return otherwise
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except ValueError:
        return otherwise
