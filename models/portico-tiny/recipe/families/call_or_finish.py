"""Call or finish: tools where every turn of the assistant is forced into one JSON schema.

The situations are those of tools.py, told in the words of Portico's client (src/portico/prompts.toml): the
tools stand in the system text, a turn is one call or the finish, results come as user messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from portico import prompts
from recipe import words
from recipe.families import tool_requests
from recipe.families import tools as tool_rows
from recipe.families.framing import system_line
from recipe.families.json_answers import filled
from recipe.families.json_facts import Schema, case, decimal, plain_value, strict_schema
from recipe.sample import Draw, Entry, Message, Sample, Tool, calls, result, says, says_json, system, user


def reported(name: str, got: str) -> Message:
    """What the model is told of a call's outcome."""
    if got.lower().startswith("error: "):
        return user(prompts.call_outcome(name, got[7:].removesuffix("."), failed=True))
    return user(prompts.call_outcome(name, got))


def in_turns(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with one JSON object a turn: calls that were made together follow each other,
    each after the result of the one before."""
    turns: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if message["role"] == "user":
            turns.append(message)
        elif message["role"] == "assistant" and not message.get("tool_calls"):
            turns.append(says_json({"finish": message["content"]}))
        elif message["role"] == "assistant":
            for call in message["tool_calls"]:
                function = call["function"]
                turns.append(says_json({"call": function["name"], "arguments": function["arguments"]}))
                if at == len(messages):
                    break
                turns.append(reported(function["name"], messages[at]["content"]))
                at += 1
    return turns


def is_turn(wanted: Message) -> Callable[[Message], bool]:
    """A call, or a finish, whichever is wanted. What is in it, the schema says."""
    turn = json.loads(wanted["content"])

    def check(message: Message) -> bool:
        got = json.loads(message["content"])
        return isinstance(got, dict) and list(got) == list(turn)

    return check


def forced(messages: Sequence[Message], tools: Sequence[Tool], answer_schema: Schema | None = None) -> Sample:
    caller = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = in_turns(messages[1:] if caller else messages)
    return Sample(
        [system(prompts.call_system(tools, caller, answer_schema)), *turns],
        schema=prompts.call_schema(tools, answer_schema),
        form=is_turn(turns[-1]),
    )


_ROWS = (
    [tool_rows.choose] * 4
    + [tool_rows.none] * 2
    + [tool_rows.answer] * 3
    + [tool_rows.error, tool_rows.steps, tool_rows.steps, tool_rows.ask_back]
)


def call_or_finish(d: Draw) -> Sample:
    """The next turn in any of the situations of tools.py."""
    if d.chance(0.15):  # the second or third of several calls
        made = tool_rows.answered(d, tool_rows.several(d))
        sample = forced(made.messages, made.tools or [])
        cut = list(sample.messages[:-2])
        return Sample(cut, schema=sample.schema, form=is_turn(cut[-1]))
    made = d.choice(_ROWS)(d)
    return forced(made.messages, made.tools or [])


_LEADS = [
    "{t}",
    "{t}",
    "Text: {t}",
    "Data: {t}",
    "Facts: {t}",
    "Extract the data: {t}",
    "Here are the facts: {t}",
    "Finish with this: {t}",
    "Give the answer for: {t}",
    "Please extract the data: {t}",
    "Read this: {t}",
    "This is the text:\n{t}",
    "Use these facts: {t}",
    "Here is the data: {t}",
    "Here is a text: {t}",
    "Here is the information: {t}",
    "These are facts: {t}",
    "These are the data: {t}",
    "This is what I know: {t}",
    "The text: {t}",
    "The facts: {t}",
    # never trained:
    "Here is the text: {t}",
    "These are the facts: {t}",
]
_ANSWER_KEYS = ["result", "answer", "value", "text", "output", "found"]


def with_answer_schema(d: Draw) -> Sample:
    """The finish is an object: of facts that the user gave, or of what the call was about and gave back."""
    caller = [system(system_line(d))] if d.chance(0.25) else []
    if d.chance(0.3):
        known = case(d, most=4)
        tools = [each.tool for each in tool_requests.tool_box(d, d.choice([1, 1, 2]))]
        text = filled(d.wording(_LEADS), known.text)
        return _finished([*caller, user(text)], tools, strict_schema(known.facts), known.answer)
    (asked,), tools = tool_requests.requests(d, 1)
    types = {str: "string", int: "integer", float: "number", bool: "boolean"}
    copied = {key: value for key, value in asked.arguments.items() if key not in _ANSWER_KEYS}
    answer: dict[str, Any] = dict(d.some(list(copied.items()), 0, 2))
    if d.chance(0.5):  # a JSON result: its keys, or some of them
        found = {
            key: d.choice([words.number, plain_value, decimal])(d)
            for key in dict.fromkeys(words.identifier(d) for _ in range(d.integer(1, 3)))
            if key not in asked.arguments
        }
        found = found or {"result": words.number(d)}
        got = json.dumps(found, ensure_ascii=False)
        answer.update(d.some(list(found.items()), 1, 3))
    else:  # a plain result: the one key that is not an argument's
        value = d.choice([words.number, lambda d: words.phrase(d, 1, 4), plain_value])(d)
        got = str(value)
        answer[d.choice(_ANSWER_KEYS)] = value
    answer = dict(d.shuffled(list(answer.items())))
    schema = {
        "type": "object",
        "properties": {key: {"type": types[type(value)]} for key, value in answer.items()},
        "required": list(answer),
    }
    before = [*caller, user(asked.text), calls((asked.name, asked.arguments))]
    if d.chance(0.3):
        return forced(before, tools, schema)
    return _finished([*before, result(got)], tools, schema, answer)


def _finished(
    before: Sequence[Message], tools: Sequence[Tool], schema: Schema, answer: dict[str, Any]
) -> Sample:
    """The conversation that ends with the answer as an object."""
    sample = forced([*before, says("")], tools, schema)
    last = says_json({"finish": answer})
    return Sample([*sample.messages[:-1], last], schema=sample.schema, form=is_turn(last))


ENTRIES: list[Entry] = [
    Entry("call or finish", call_or_finish, bar=0.95, share=6.5),
    Entry("call or finish: with a schema", with_answer_schema, bar=0.95, share=5),
]
