"""What the bundled model says to a new user, through the real server: the prompts of the documentation and a few
more. It is greedy, so these are facts about the shipped weights; the table in their card has the shares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from live_server import LiveServer
from portico import prompts

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Current time of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chat(server: LiveServer, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The choice of one greedy answer."""
    body = {"model": "default", "messages": messages, "temperature": 0, "max_tokens": 900, **more}
    (choice,) = server.ask("POST", "/v1/chat/completions", body)["choices"]
    assert choice["finish_reason"] in ("stop", "tool_calls"), choice
    return dict(choice["message"])


def said(server: LiveServer, *turns: str, **more: Any) -> str:
    """The answer to the last of the user's turns; the model answers those before it as well."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        messages.append({"role": "assistant", "content": chat(server, messages, **more)["content"]})
    return str(messages[-1]["content"])


@pytest.mark.parametrize(
    ("turns", "answer"),
    [
        (["Hello!"], "Hello! How can I help?"),
        (["Hello, how are you?"], "I am fine, thank you. How can I help?"),
        (["What is 2+2? Answer in one word."], "Four"),
        (["What is 2+2?"], "4"),
        (["What is 2+3?"], "5"),
        (["What is the capital of France?"], "The capital of France is Paris."),
        (["Who won the election yesterday?"], "I do not know."),
        (["My name is Sara. I live in Rome and I like coffee.", "Where do I live?"], "Rome"),
        (["My name is Tom. I live in Oslo.", "Where do I live?"], "Oslo"),
        (["Please repeat exactly: qx-71 Zebu!"], "qx-71 Zebu!"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_short_answers(server: LiveServer, turns: list[str], answer: str) -> None:
    assert said(server, *turns) == answer


def test_a_haiku_has_three_lines_and_bullets_are_counted(server: LiveServer) -> None:
    assert len(said(server, "Write a haiku about programming").splitlines()) == 3
    bullets = said(
        server,
        "Explain the difference between a compiler and an interpreter in 3 bullet points. Be concise and clear.",
    ).splitlines()
    assert len(bullets) == 3 and all(line.startswith("- ") for line in bullets)


def test_a_tool_is_called_and_its_result_told(server: LiveServer) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = chat(server, messages, tools=[TIME, WEATHER])
    (call,) = asked["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    messages += [asked, {"role": "tool", "tool_call_id": call["id"], "content": "20 C, sunny"}]
    assert chat(server, messages, tools=[TIME, WEATHER])["content"] == "It is 20 C, sunny in Paris."


@pytest.mark.parametrize("tools", [[WEATHER], [TIME, WEATHER]], ids=["one tool", "two tools"])
def test_a_forced_call_carries_what_was_asked_for(server: LiveServer, tools: list[Any]) -> None:
    """A lone tool's arguments used to be demanded without its name: the model had never written them so."""
    question = [{"role": "user", "content": "What is the weather in Lagos?"}]
    (call,) = chat(server, question, tools=tools, tool_choice="required")["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Lagos"}


def test_json_of_a_schema_holds_the_facts(server: LiveServer) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
        "required": ["name", "age", "city"],
        "additionalProperties": False,
    }
    text = "Extract name, age and city: Ada is 36 years old and lives in London."
    shape = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    found = json.loads(said(server, text, response_format=shape))
    assert found == {"name": "Ada", "age": 36, "city": "London"}
    free = said(server, text)  # ... also where nothing forces it
    assert json.loads(free) == found


def test_it_thinks_when_asked_and_only_then(server: LiveServer) -> None:
    question = [{"role": "user", "content": "What is 3 + 4 + 5?"}]
    thought = chat(server, question, chat_template_kwargs={"enable_thinking": True})
    assert thought["content"].strip() == "12"
    assert "7" in thought["reasoning_content"]
    assert not chat(server, [{"role": "user", "content": "Hello!"}]).get("reasoning_content")


@pytest.mark.parametrize("prompt", ["Once upon a time", "The weather today", "The capital of France is"])
def test_a_raw_completion_goes_on_and_ends(server: LiveServer, prompt: str) -> None:
    body = {"model": "default", "prompt": prompt, "temperature": 0, "max_tokens": 100}
    (choice,) = server.ask("POST", "/v1/completions", body)["choices"]
    assert choice["finish_reason"] == "stop" and choice["text"].strip().endswith(".")
    if "France" in prompt:
        assert choice["text"] == " Paris."


# ---- an agent run, with real files and a real Python

MAIN = 'def message():\n    return "hello world"\n\n\nif __name__ == "__main__":\n    print(message())\n'


def carried_out(folder: Path, action: dict[str, str]) -> str:
    """Does what an action says. Nothing that the model wrote is run but the one program that is expected."""
    if action["action"] == "write_file":
        path = folder / Path(action["path"]).name
        path.write_text(action["content"])
        return prompts.action_result("wrote", path=path.name)
    assert action["action"] == "run", action
    assert (folder / "main.py").read_text() == MAIN
    assert "import main" not in action["command"] and action["command"].startswith("python ")
    arguments = action["command"].split()[1:]
    assert arguments in (["main.py"], ["-m", "unittest"])
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    return prompts.action_result("ran", code=ran.returncode, output=(ran.stdout + ran.stderr).strip())


@pytest.mark.parametrize("as_tools", [False, True], ids=["one JSON object a turn", "tool calls"])
def test_a_programmer_writes_hello_world_runs_it_and_finishes(
    server: LiveServer, tmp_path: Path, as_tools: bool
) -> None:
    brief = prompts.brief(
        "HelloWorld",
        "create a hello world program",
        modality="command-line application",
        language="Python",
    )
    plan = "main.py: prints hello world\ntest_main.py: tests message"
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": brief},
        {"role": "user", "content": prompts.phase_opening("coding", tools=as_tools, plan=plan)},
    ]
    shape = {"name": "action", "schema": prompts.action_schema(), "strict": True}
    how: dict[str, Any] = {"response_format": {"type": "json_schema", "json_schema": shape}}
    if as_tools:
        how = {"tools": prompts.action_tools()}
    done: list[str] = []
    for _ in range(8):
        answer = chat(server, messages, **how)
        messages.append(answer)
        if as_tools:
            (call,) = answer["tool_calls"]
            action = {"action": call["function"]["name"], **json.loads(call["function"]["arguments"])}
        else:
            action = json.loads(answer["content"])
        done.append(action["action"])
        if action["action"] == "finish":
            break
        outcome = carried_out(tmp_path, action)
        if as_tools:
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": outcome})
        else:
            messages.append({"role": "user", "content": outcome})
    assert done == ["write_file", "write_file", "run", "run", "finish"]
    assert (tmp_path / "main.py").read_text() == MAIN
    tested = subprocess.run(
        [sys.executable, "-m", "unittest"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert tested.returncode == 0 and "Ran 1 test" in tested.stderr
