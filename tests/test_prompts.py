"""What Portico itself says to a model: texts are filled and never read as more than text, schemas allow what they say,
and all of it is in the training text of portico-tiny."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico import prompts

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "portico-tiny"))

from recipe import render
from recipe.families import team
from recipe.sample import Draw

TOOL = {
    "type": "function",
    "function": {
        "name": "ring",
        "description": "Ring the bell",
        "parameters": {"type": "object", "properties": {"times": {"type": "integer"}}, "required": ["times"]},
    },
}


@given(st.text(), st.text())
def test_values_are_filled_in_as_they_are(first: str, second: str) -> None:
    assert prompts.fill('{a} {"b": {c}} {c}', a=first, c=second) == f'{first} {{"b": {second}}} {second}'


def test_a_call_or_the_finish_and_nothing_else() -> None:
    schema = prompts.call_schema([TOOL])
    for right in ({"call": "ring", "arguments": {"times": 2}}, {"finish": "Done."}):
        jsonschema.validate(right, schema)
    wrong = [
        {"call": "sing", "arguments": {}},
        {"call": "ring"},
        {"call": "ring", "arguments": {"times": "2"}},
        {"finish": 1},
        {"finish": "a", "call": "ring"},
        {},
    ]
    for value in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, schema)
    answer = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    jsonschema.validate({"finish": {"n": 1}}, prompts.call_schema([TOOL], answer))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"finish": "one"}, prompts.call_schema([TOOL], answer))


def test_the_system_text_offers_the_tools_as_the_chat_template_does() -> None:
    rendered = render.rendered([{"role": "user", "content": "a"}], [TOOL], False, False)
    offered = rendered.partition("# Tools\n")[2].partition("<|im_end|>")[0]
    said = prompts.call_system([TOOL], "Be brief.", {"type": "integer"})
    assert said.startswith("Be brief.\n\nAnswer with one JSON object.")
    assert 'schema: {"type": "integer"}\n\n# Tools\n' in said
    assert said.endswith(offered)


def test_actions_as_a_schema_and_as_tools_are_the_same() -> None:
    branches = prompts.action_schema()["anyOf"]
    tools = prompts.action_tools()
    assert [branch["properties"]["action"]["const"] for branch in branches] == [
        tool["function"]["name"] for tool in tools
    ]
    for branch, tool in zip(branches, tools, strict=True):
        assert branch["required"] == ["action", *tool["function"]["parameters"]["required"]]
    jsonschema.validate({"action": "run", "command": "ls"}, prompts.action_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"action": "run", "path": "ls"}, prompts.action_schema())


def test_a_brief_holds_what_is_known() -> None:
    shown = prompts.show_files({"a.py": "x = 1\n", "b": "{task}"}, ["c.py", "d.py"])
    brief = prompts.brief("App", "create {name}", language="Python", files=shown)
    assert (
        "Project: App\nTask: create {name}\nLanguage: Python\n\nFiles:\n\na.py\n```python\nx = 1\n```"
        in brief
    )
    assert "b\n```\n{task}\n```\n\nNot shown: c.py, d.py" in brief
    assert "Product" not in brief and prompts.show_files({}) == ""


def test_all_that_the_team_says_is_in_the_training_text() -> None:
    """Every text of prompts.toml with what may stand in it: a text that was changed without the generator, or
    that no sample has, would be new to the model."""
    about = prompts.texts()["team"]
    texts = [value for value in about.values() if isinstance(value, str)]
    texts += [phase["text"] for phase in about["phases"].values()]
    texts += about["questions"].values()
    used = {about["roles"][phase["assistant"]] for phase in about["phases"].values()}
    actions = [f'"action": "{name}"' for name in about["actions"]]
    lines = [re.compile(_pattern(text)) for text in [*texts, *used]] + [
        re.compile(re.escape(each)) for each in actions
    ]
    draw = Draw("team text")
    missing = set(lines)
    for _ in range(2500):
        entry = draw.choice(team.ENTRIES[:6])
        text = render.text(entry.make(draw))
        missing -= {each for each in missing if each.search(text)}
        if not missing:
            break
    assert not missing, [each.pattern for each in missing]


def _pattern(text: str) -> str:
    parts = re.split(r"\{(?:\w+)\}", text)
    return r"[\s\S]+?".join(re.escape(part) for part in parts)


def test_the_texts_are_valid_json_where_they_show_json() -> None:
    shown = prompts.texts()["team"]["actions_instruction"].splitlines()[1:]
    for line in shown:
        filled = re.sub(r": ([A-Z]+)([,}])", r': "\1"\2', line)
        jsonschema.validate(json.loads(filled), prompts.action_schema())
