"""The tool loop, with both drivers: what the model is told, what ends it, and what a recording holds of it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from live_server import LiveServer
from portico import Choice, Limits, Regex, recording
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.functions import Function
from portico.client.rounds import Run, Step
from portico.client.settings import Retry
from portico.errors import InvalidRequest, NotSupported, ReplayDiffers, WrongAnswer
from scripted_answers import CHAT, chat_result, reply
from scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


class Both:
    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url

    def run(self, prompt: str = "Go on", **told: Any) -> Run[Any]:
        if self.kind == "sync":
            with Client(self.url, model="mock-model", retry=Retry(first=0.001)) as client:
                return client.run(prompt, **told)

        async def work() -> Run[Any]:
            async with AsyncClient(self.url, model="mock-model", retry=Retry(first=0.001)) as client:
                return await client.run(prompt, **told)

        return asyncio.run(work())


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


def calls(*wanted: tuple[str, Any]) -> Any:
    """A turn that asks for these."""
    made = [
        {
            "id": f"call_{at}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for at, (name, given) in enumerate(wanted)
    ]
    return reply(200, chat_result(None, finish="tool_calls", tool_calls=made))


def says(text: str, finish: str = "stop") -> Any:
    return reply(200, chat_result(text, finish=finish))


def turn(**said: Any) -> Any:
    return says(json.dumps(said))


def told(upstream: ScriptedUpstream) -> list[str]:
    """What the model was told of its calls, in the last request."""
    return [each["content"] for each in upstream.last(CHAT)["messages"] if each["role"] == "tool"]


def get_weather(city: str, days: int = 1) -> str:
    """Get the weather of a city.

    city: where
    """
    return f"{city}: sunny for {days}"


async def get_time(city: str) -> dict[str, str]:
    """Get the time of a city."""
    await asyncio.sleep(0)
    return {city: "noon"}


# ---- what goes to and fro


def test_calls_of_both_kinds_are_made_and_told(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(
        CHAT,
        calls(("get_weather", {"city": "Rome", "days": 2}), ("get_time", {"city": "Rome"})),
        says("Sunny at noon."),
    )
    steps: list[Step] = []
    run = both.run(tools=[get_weather, get_time], on_step=lambda step: steps.append(step))
    assert (str(run), run.stopped, run.mode) == ("Sunny at noon.", "finished", "native")
    assert told(upstream) == ["Rome: sunny for 2", '{"Rome": "noon"}']
    assert steps == list(run.steps) and [step.round for step in steps] == [1, 1]
    assert run.usage.input_tokens == 14 and run.usage.output_tokens == 6
    assert [message.role for message in run.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    (first, _) = upstream.requests(CHAT)
    weather = first.json["tools"][0]["function"]
    assert weather["description"] == "Get the weather of a city."
    assert weather["parameters"]["properties"]["city"] == {"type": "string", "description": "where"}
    assert weather["parameters"]["required"] == ["city"]


def test_calls_of_one_turn_are_made_side_by_side(both: Both, upstream: ScriptedUpstream) -> None:
    """Each waits for the other: one after the other they would wait for ever."""
    barrier = threading.Barrier(2, timeout=5)

    def wait(name: str) -> int:
        return barrier.wait()

    upstream.script(CHAT, calls(("wait", {"name": "a"}), ("wait", {"name": "b"})), says("Both."))
    assert both.run(tools=[wait]).text == "Both."
    assert sorted(told(upstream)) == ["0", "1"]


def test_what_goes_wrong_is_told_to_the_model(both: Both, upstream: ScriptedUpstream) -> None:
    def burn() -> None:
        raise RuntimeError("the disk is on fire")

    upstream.script(
        CHAT,
        calls(
            ("get_weather", {"town": "Rome", "days": "many"}), ("nothing", {}), ("burn", {}), ("burn", "{")
        ),
        says("I give up."),
    )
    run = both.run(tools=[get_weather, burn])
    wrong, unknown, burnt, broken = told(upstream)
    assert wrong.startswith("Error: Wrong arguments: city: Field required; days: Input should be a valid int")
    assert unknown == "Error: There is no tool nothing. There are: get_weather, burn."
    assert burnt == "Error: RuntimeError: the disk is on fire"
    assert broken.startswith("Error: Wrong arguments: ")
    assert all(step.failed for step in run.steps)


@dataclass
class Place:
    x: int
    y: int


def test_arguments_come_as_their_types(both: Both, upstream: ScriptedUpstream) -> None:
    seen: list[Any] = []

    def go(to: Place, how: list[str]) -> str:
        seen.append((to, how))
        return "gone"

    upstream.script(CHAT, calls(("go", {"to": {"x": 1, "y": 2}, "how": ["fast"]})), says("There."))
    both.run(tools=[go])
    assert seen == [(Place(1, 2), ["fast"])]


# ---- what ends it


def test_the_same_call_a_third_time_is_not_made(both: Both, upstream: ScriptedUpstream) -> None:
    made: list[str] = []

    def look(where: str, how: str = "") -> str:
        made.append(where)
        return "nothing there"

    same = ['{"where":"a","how":"b"}', '{"how": "b", "where": "a"}', '{ "where": "a", "how": "b" }']
    upstream.script(CHAT, *[calls(("look", text)) for text in same], says("never asked"))
    run = both.run(tools=[look])
    assert run.stopped == "repeated" and made == ["a", "a"] and len(upstream.requests(CHAT)) == 3
    last = run.steps[-1]
    assert (
        last.refused and last.outcome == "Refused: the same call with the same arguments, for the third time."
    )
    assert run.messages[-1].role == "tool", "the conversation can be gone on with"


def test_limits(both: Both, upstream: ScriptedUpstream) -> None:
    rounds = [calls(("get_weather", {"city": f"City {at}"})) for at in range(5)]
    upstream.script(CHAT, *rounds)
    run = both.run(tools=[get_weather], limits=Limits(rounds=3))
    assert run.stopped == "rounds" and len(run.steps) == 3 == len(upstream.requests(CHAT))
    upstream.reset()
    upstream.script(CHAT, *rounds)
    run = both.run(tools=[get_weather], limits=Limits(tokens=15))
    assert run.stopped == "tokens" and len(upstream.requests(CHAT)) == 2, "10 tokens a round"


def test_a_call_can_be_refused(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    made: list[str] = []

    def remove(path: str) -> str:
        made.append(path)
        return "removed"

    def allow(name: str, arguments: dict[str, Any]) -> bool | str:
        assert name == "remove"
        return {"a": True, "b": False}.get(arguments["path"], "not that one")

    paths = [("remove", {"path": path}) for path in "abc"]
    upstream.script(CHAT, calls(*paths), says("One is gone."))
    with recording.record(tmp_path / "run.jsonl"):
        run = both.run(tools=[remove], allow=allow)
    with recording.replay(tmp_path / "run.jsonl"):
        assert both.run(tools=[remove], allow=lambda name, arguments: 1 / 0).steps == run.steps
    assert made == ["a"]
    assert told(upstream) == ["removed", "Refused: it was not allowed.", "Refused: not that one."]
    assert [step.refused for step in run.steps] == [False, True, True]


def test_a_person_is_asked_about_one_call_at_a_time(both: Both, upstream: ScriptedUpstream) -> None:
    asking = threading.Lock()
    asked: list[str] = []

    def allow(name: str, arguments: dict[str, Any]) -> bool:
        assert asking.acquire(blocking=False), "two questions at once"
        time.sleep(0.01)
        asked.append(arguments["city"])
        asking.release()
        return True

    cities = [f"City {at}" for at in range(8)]
    upstream.script(CHAT, calls(*[("get_weather", {"city": city}) for city in cities]), says("Done."))
    run = both.run(tools=[get_weather], allow=allow)
    assert asked == cities and not any(step.failed for step in run.steps)


def test_a_tool_that_replays_something_else_ends_it(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Not told to the model: it is the replay that is wrong."""

    def tick(text: str) -> int:
        return recording.effect("clock", text, lambda: 1)

    recording_of = tmp_path / "run.jsonl"
    upstream.script(CHAT, calls(("tick", {"text": "a"}), ("tick", {"text": "b"})), says("Done."))
    with recording.record(recording_of):
        both.run(tools=[tick])
    kept = [line for line in recording_of.read_text().splitlines() if '"kind":"tool"' not in line]
    recording_of.write_text("\n".join(kept) + "\n")
    with recording.replay(recording_of), pytest.raises(ReplayDiffers, match="no further tool effect"):
        both.run(tools=[tick])


def test_a_callback_that_raises_ends_it(both: Both, upstream: ScriptedUpstream) -> None:
    def allow(name: str, arguments: Any) -> bool:
        raise ZeroDivisionError

    upstream.script(CHAT, calls(("get_weather", {"city": "Rome"})))
    with pytest.raises(ZeroDivisionError):
        both.run(tools=[get_weather], allow=allow)


def measured(
    schema: str,
    copy: Annotated[int, Field(description="How many copies")] = 1,
    model_config: str = "",
    _hidden: bool = False,
    json: str = "{}",
) -> str:
    """Measure.

    Args:
        schema: which one
    """
    return f"{schema} {copy} {model_config} {_hidden} {json}"


def test_parameters_with_names_that_pydantic_has_for_itself(both: Both, upstream: ScriptedUpstream) -> None:
    given = {"schema": "s", "copy": 2, "model_config": "c", "_hidden": True}
    upstream.script(CHAT, calls(("measured", given), ("measured", {"copy": "x"})), says("Done."))
    both.run(tools=[measured])
    said, wrong = told(upstream)
    assert said == "s 2 c True {}"
    assert wrong.startswith("Error: Wrong arguments: schema: Field required; copy: Input should be a valid")
    (tool,) = upstream.last(CHAT)["tools"]
    fields = tool["function"]["parameters"]["properties"]
    assert list(fields) == ["schema", "copy", "model_config", "_hidden", "json"]
    assert [fields[name]["description"] for name in ("schema", "copy")] == ["which one", "How many copies"]
    assert not any("title" in field for field in fields.values())


def test_what_is_no_tool(both: Both, upstream: ScriptedUpstream) -> None:
    @dataclass
    class Local:
        x: int

    def go(to: Local) -> None: ...

    with pytest.raises(InvalidRequest, match="go: name 'Local' is not defined: type hints are looked up"):
        both.run(tools=[go])
    with pytest.raises(InvalidRequest, match="'get_weather' is no tool"):
        both.run(tools=["get_weather"])
    with pytest.raises(InvalidRequest, match="Two tools are called get_weather"):
        both.run(tools=[get_weather, get_weather])
    assert not upstream.received


# ---- together with an output type


@dataclass
class Weather:
    city: str
    sunny: bool


def test_one_schema_over_calls_and_the_answer(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(
        CHAT,
        turn(call="get_weather", arguments={"city": "Rome"}),
        turn(finish={"city": "Rome", "sunny": True}),
    )
    run = both.run(tools=[get_weather], output=Weather)
    assert run.parsed == Weather("Rome", True) and run.mode == "schema" and "output type" in run.why
    schema = upstream.last(CHAT)["response_format"]["json_schema"]["schema"]
    assert [list(each["properties"]) for each in schema["anyOf"]] == [["call", "arguments"], ["finish"]]
    assert upstream.last(CHAT)["messages"][-1]["content"] == "Result of get_weather: Rome: sunny for 1"


@pytest.mark.parametrize(
    ("wanted", "answer", "schema"),
    [
        (Choice("yes", "no"), "yes", {"type": "string", "enum": ["yes", "no"]}),
        (Regex("[0-9]+"), "12", {"type": "string", "pattern": "^([0-9]+)$"}),
        (list[int], {"value": [1]}, None),
    ],
)
def test_other_output_types(
    both: Both, upstream: ScriptedUpstream, wanted: Any, answer: Any, schema: Any
) -> None:
    upstream.script(CHAT, turn(finish=answer))
    run = both.run(tools=[get_weather], output=wanted)
    assert run.parsed == (answer["value"] if isinstance(answer, dict) else answer)
    told = upstream.last(CHAT)["response_format"]["json_schema"]["schema"]["anyOf"][-1]["properties"][
        "finish"
    ]
    assert schema is None or told == schema


def test_two_phases(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, calls(("get_weather", {"city": "Rome"})), says("It is sunny."), says("yes"))
    run = both.run(tools=[get_weather], output=Choice("yes", "no"), mode="native")
    assert run.parsed == "yes" and run.mode == "native"
    asked = [request.json for request in upstream.requests(CHAT)]
    assert ["tools" in each for each in asked] == [True, True, False]
    assert asked[-1]["structured_outputs"] == {"choice": ["yes", "no"]}


def test_a_server_without_tools_is_asked_by_schema(both: Both, upstream: ScriptedUpstream) -> None:
    off = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    upstream.script(CHAT, reply(400, {"error": {"message": off}}), turn(finish="Sunny."))
    run = both.run(tools=[get_weather])
    assert run.text == "Sunny." and run.mode == "schema" and "does not offer tools" in run.why
    upstream.script(CHAT, reply(400, {"error": {"message": off}}))
    with pytest.raises(NotSupported, match="--enable-auto-tool-choice"):
        both.run(tools=[get_weather], mode="native")


def test_a_turn_that_was_cut_off_says_so(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, says('{"call": "get_wea', "length"))
    with pytest.raises(WrongAnswer, match="cut off after 3 tokens: raise max_tokens"):
        both.run(tools=[get_weather], mode="schema")


# ---- around it


def test_a_replay_calls_no_tool(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    made: list[str] = []

    def draw(name: str) -> str:
        made.append(name)
        if name == "c":
            raise RuntimeError("no")
        return f"{name}: {len(made)}"

    upstream.script(CHAT, calls(*[("draw", {"name": name}) for name in "abc"]), says("Drawn."))
    with recording.record(tmp_path / "run.jsonl"):
        first = both.run(tools=[draw])
    requests = len(upstream.received)
    with recording.replay(tmp_path / "run.jsonl") as player:
        second = both.run(tools=[draw])
        assert player.left == 0
    assert len(made) == 3 and len(upstream.received) == requests
    assert second.steps == first.steps and second.messages == first.messages and first.steps[2].failed


def test_a_tool_that_asks_a_model_is_one_effect(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """What it asks itself is not recorded: a replay does not call it, and nothing is left over."""

    def ask(question: str) -> str:
        with Client(upstream.url, model="m") as client:
            return client.chat(question).text

    async def aask(question: str) -> str:
        async with AsyncClient(upstream.url, model="m") as client:
            return (await client.chat(question)).text

    tools = [("ask", {"question": "Why?"}), ("aask", {"question": "How?"})]
    upstream.script(CHAT, calls(tools[0]), says("So."), calls(*tools), says("1"), says("2"), says("Done."))
    with recording.record(tmp_path / "run.jsonl"):
        first = both.run(tools=[ask, aask])
    assert len(upstream.requests(CHAT)) == 6 and first.text == "Done."
    with recording.replay(tmp_path / "run.jsonl") as player:
        second = both.run(tools=[ask, aask])
        assert player.left == 0
    assert second.steps == first.steps and len(upstream.requests(CHAT)) == 6


def test_a_sync_client_in_a_running_loop(upstream: ScriptedUpstream) -> None:
    """As in a notebook."""
    upstream.script(CHAT, calls(("get_time", {"city": "Rome"})), says("Noon."))

    async def work() -> str:
        with Client(upstream.url, model="mock-model") as client:
            return client.run("Go on", tools=[get_time]).text

    assert asyncio.run(work()) == "Noon."
    assert told(upstream) == ['{"Rome": "noon"}']


@dataclass
class Person:
    name: str
    age: int


def get_age(name: str) -> dict[str, int]:
    """Get the age of a person"""
    return {"age": 44}


def city_weather(city: str) -> str:
    """Get the weather of a city"""
    return "18 degrees, sunny"


@pytest.mark.parametrize("mode", ["native", "schema"])
def test_the_bundled_model_calls_a_tool(server: LiveServer, mode: Any) -> None:
    with Client(server.openai_url) as client:
        tools = [Function(city_weather, name="get_weather")]
        run = client.run("What is the weather in Paris?", tools=tools, temperature=0, mode=mode)
    assert run.stopped == "finished" and run.mode == mode
    assert [(step.call.name, json.loads(step.call.arguments)) for step in run.steps] == [
        ("get_weather", {"city": "Paris"})
    ]
    assert "18 degrees, sunny" in run.text


@dataclass
class Price:
    product: str
    price: int


def get_price(product: str) -> dict[str, int]:
    """Get the price of a product"""
    return {"price": 29}


def test_the_bundled_model_calls_a_tool_and_answers_as_a_type(server: LiveServer) -> None:
    with Client(server.openai_url) as client:
        tools = [get_price, Function(city_weather, name="get_weather")]
        run = client.run("Get the price of the lamp.", tools=tools, output=Price, temperature=0)
    assert run.parsed == Price("lamp", 29) and run.mode == "schema"
    assert [step.call.name for step in run.steps] == ["get_price"]
