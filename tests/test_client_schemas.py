"""Schemas that an engine's grammar cannot hold an answer to: an error that names the keyword, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge, MultipleOf
from pydantic import BaseModel, Field

from live_server import LiveServer
from portico.client.client import Client
from portico.client.outputs import output
from portico.client.schemas import LLAMACPP, NUMBERS, PATTERN, VLLM, keywords
from portico.errors import NotSupported, WrongAnswer
from scripted_answers import CHAT, reply, usual_answer
from scripted_upstream import Answer, Received, ScriptedUpstream
from test_client import error


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_HOME", str(tmp_path / "home"))


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    described = {"response_format": {}}
    schema = {"requestBody": {"content": {"application/json": {"schema": {"properties": described}}}}}

    def vllm(upstream: ScriptedUpstream, request: Received) -> Answer:
        if request.path == "/openapi.json":
            return reply(200, {"paths": {CHAT: {"post": schema}}})
        return usual_answer(upstream, request)

    with ScriptedUpstream(manners=vllm) as running:
        yield running


def of(**a: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": a}, "required": ["a"]}


FIVE = {"type": "object", "properties": {"a": {"const": 5}, "b": {"type": "integer"}}, "required": ["a"]}
HELD: dict[str, dict[str, Any]] = {
    "multipleOf": of(type="integer", multipleOf=1000),
    "uniqueItems": of(type="array", items={"enum": [5]}, minItems=2, maxItems=2, uniqueItems=True),
    "contains": of(type="array", items={"enum": [5]}, maxItems=2, contains={"const": 77}),
    "not": of(enum=["five", "six"], **{"not": {"enum": ["five", "six"]}}),
    "if": {**FIVE, "if": FIVE, "then": {"required": ["c"]}},
    "minProperties": {**FIVE, "minProperties": 3},
    "maxProperties": {**FIVE, "required": ["a", "b"], "maxProperties": 1},
    "propertyNames": {**FIVE, "propertyNames": {"const": "z"}},
    "patternProperties": {**FIVE, "patternProperties": {"^a$": {"type": "string"}}},
    "dependentRequired": {**FIVE, "dependentRequired": {"a": ["c"]}},
    "dependentSchemas": {**FIVE, "dependentSchemas": {"a": {"required": ["c"]}}},
    NUMBERS: of(type="number", exclusiveMinimum=1e9, maximum=1e10),
    PATTERN: of(type="string", maxLength=5, pattern="zzzz"),
}
"""For each keyword a schema that every answer of its grammar, or nearly every one, would break."""


def test_each_has_its_schema() -> None:
    assert set(HELD) == LLAMACPP
    for name, schema in HELD.items():
        assert name in {each.name for each in keywords(schema)}


@pytest.mark.parametrize("name", HELD)
def test_the_embedded_engine_overlooks_it(server: LiveServer, name: str) -> None:
    """Once it does not, it is time to take the keyword from the list."""
    schema = {**HELD[name], "additionalProperties": False}
    told = {
        "model": "default",
        "messages": [{"role": "user", "content": "Say five."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "temperature": 0,
        "max_tokens": 200,
    }
    with Client(server.url) as client:
        reply = client.carry_out(lambda flows: flows.raw("/v1/chat/completions", told)).reply
    text = json.loads(reply.body)["choices"][0]["message"]["content"]  # type: ignore[union-attr]
    with pytest.raises(WrongAnswer, match="does not keep"):
        output(schema).read(text)


@pytest.mark.parametrize("name", HELD)
def test_vllm_too_is_not_asked_for_what_it_overlooks(upstream: ScriptedUpstream, name: str) -> None:
    """The rest it refuses itself, and says why."""
    with Client(upstream.url) as client:
        if name in VLLM:
            with pytest.raises(NotSupported, match=rf"vLLM .* {name}"):
                client.chat("Say five.", output=HELD[name])
        else:
            upstream.script(CHAT, error(400, f'Grammar error: Unimplemented keys: ["{name}"]'))
            with pytest.raises(NotSupported, match="Unimplemented"):
                client.chat("Say five.", output=HELD[name])


@pytest.mark.parametrize("name", HELD)
def test_it_is_an_error_that_names_it(server: LiveServer, name: str) -> None:
    with Client(server.url) as client, pytest.raises(NotSupported, match="Portico") as caught:
        client.chat("Say five.", output=HELD[name])
    word = {NUMBERS: "exclusiveMinimum at properties.a", PATTERN: "pattern at properties.a"}.get(name, name)
    assert word in str(caught.value) and caught.value.feature == "json_schema"


class Order(BaseModel):
    price: Annotated[float, Ge(0)]
    pieces: Annotated[int, Ge(1)]
    tags: set[str] = Field(default_factory=set)


def test_of_a_type(server: LiveServer) -> None:
    with Client(server.url) as client, pytest.raises(NotSupported) as caught:
        client.chat("Say five.", output=list[Order])
    told = str(caught.value)
    assert "minimum at $defs.Order.properties.price" in told
    assert "uniqueItems at $defs.Order.properties.tags" in told and "pieces" not in told


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"not": {"type": "string"}, "contains": {"type": "integer"}}},
        of(type="integer", minimum=5),
        of(type="string", pattern="^[a-z]+$", minLength=2),
        of(type="array", uniqueItems=False, items={"type": "number"}, minItems=2),
        {"enum": ["multipleOf"], "description": "not"},
    ],
)
def test_what_is_held_is_asked_for(schema: dict[str, Any]) -> None:
    assert not [*keywords(schema)]


def test_a_multiple_in_a_tuple() -> None:
    wanted = output(tuple[Annotated[int, MultipleOf(5)], str]).format
    assert wanted is not None
    (found,) = keywords(wanted.schema)
    assert str(found) == "multipleOf at properties.value.prefixItems[0]"


def test_the_answer_of_a_run_is_held_to_the_same(server: LiveServer) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    with Client(server.url) as client:
        for mode in ("auto", "native"):
            with pytest.raises(NotSupported, match="uniqueItems"):
                client.run("What is 2 + 3?", tools=[add], output=HELD["uniqueItems"], mode=mode)
