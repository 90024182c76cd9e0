"""What a sample is, and the one source of chance that samples are drawn from.

A family is a function from a `Draw` to a `Sample`. The same functions make the training text and the
questions of the evaluation; only the `Draw` differs: for training it takes trained wordings and words, for
the evaluation words that were held out and, in the second column of the table, wordings that were held out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Message = dict[str, Any]
Tool = dict[str, Any]
Wordings = Literal["trained", "unseen"]

# Of each list of wordings, so many at its end are never trained on.
HELD_OUT_WORDINGS = 2


class Draw:
    """Chance, and what may be drawn.

    `training` draws from trained words and wordings. Otherwise words come from the held-out lists (names,
    places, words, identifiers) and `wordings` says which wordings: "trained" or "unseen".
    """

    def __init__(self, seed: int | str, *, training: bool = True, wordings: Wordings = "trained") -> None:
        self.random = random.Random(seed)
        self.training = training
        self.wordings: Wordings = wordings

    def wording(self, forms: Sequence[T]) -> T:
        """One of at least eight ways to say it; the last two are kept for the evaluation."""
        if len(forms) < 8:
            raise ValueError(f"a family needs 8 wordings, this list has {len(forms)}: {forms[0]!r}")
        if self.wordings == "unseen":
            return self.random.choice(forms[-HELD_OUT_WORDINGS:])
        return self.random.choice(forms[:-HELD_OUT_WORDINGS])

    def choice(self, values: Sequence[T]) -> T:
        return self.random.choice(values)

    def some(self, values: Sequence[T], low: int, high: int) -> list[T]:
        """Between low and high different ones, in a drawn order."""
        return self.random.sample(list(values), min(len(values), self.random.randint(low, high)))

    def integer(self, low: int, high: int) -> int:
        """low <= n <= high."""
        return self.random.randint(low, high)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def shuffled(self, values: Sequence[T]) -> list[T]:
        drawn = list(values)
        self.random.shuffle(drawn)
        return drawn


@dataclass(frozen=True)
class Sample:
    """A conversation that ends with the answer that is wanted, as OpenAI's chat API spells it.

    messages: the last one is the assistant's; what stands before it is the question. Every assistant message
        is trained on. Arguments of tool calls are objects here.
    tools: OpenAI's tool definitions, or None.
    thinking: the reasoning switch; the last message then has `reasoning_content`.
    schema: the JSON schema that a forced answer would be held to (the answer is then bare JSON).
    form: what the form of the answer must be, beyond ending by itself (see judging.py).
    completion: for raw completions, the text before the answer; messages then holds the answer alone.
    opening: how the answer's text begins where a grammar forces it so; it is shown and not trained.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] | None = None
    thinking: bool = False
    schema: dict[str, Any] | None = None
    form: Callable[[Message], bool] | None = None
    completion: str | None = None
    opening: str = ""
    max_tokens: int = 400

    @property
    def prompt(self) -> list[Message]:
        return list(self.messages[:-1])

    @property
    def answer(self) -> Message:
        return self.messages[-1]


Family = Callable[[Draw], Sample]


@dataclass(frozen=True)
class Entry:
    """A row of the evaluation's table, and its share of the training text.

    family: what it is measured with, against the bars; empty: it is a family of its own.
    bar: the share of exactly right values that the family must reach (form is 0.98 for all).
    share: of the training text, in parts of the sum over all entries; `early` is added at the start of the training
        and fades out.
    by_heart: it asks from so small a set of questions that the training has met many of them word for word, so
        that the column of trained wordings measures memory (see questions.py).
    """

    name: str
    make: Family
    bar: float
    share: float = 1.0
    early: float = 0.0
    by_heart: bool = False
    family: str = ""


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def says(text: str, reasoning: str | None = None) -> Message:
    """The assistant's text, after its reasoning where there is one."""
    message: Message = {"role": "assistant", "content": text}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    return message


def calls(*named: tuple[str, dict[str, Any]], text: str = "") -> Message:
    """The assistant calls tools: (name, arguments) each, in this order, after a text where there is one."""
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (name, arguments) in enumerate(named)
        ],
    }


def result(text: str, at: int = 0) -> Message:
    """What the tool of call number `at` (of the last assistant message) gave back."""
    return {"role": "tool", "tool_call_id": f"call_{at}", "content": text}


def says_json(value: Any) -> Message:
    """Bare JSON, spelled as it is everywhere in the training text: `, ` and `: ` between, no line breaks."""
    return says(json.dumps(value, ensure_ascii=False))


def tool(
    name: str, description: str, properties: dict[str, Any], required: Sequence[str] | None = None
) -> Tool:
    """A tool definition; every property is required unless `required` names fewer."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties) if required is None else list(required),
            },
        },
    }


# ---- what is read of an answer


def called(message: Message) -> list[tuple[str, Any]]:
    """The calls of a message as (name, arguments as an object); arguments that are no JSON stay text."""
    found = []
    for call in message.get("tool_calls") or []:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                pass
        found.append((call["function"]["name"], arguments))
    return found


def is_json(message: Message) -> bool:
    try:
        json.loads(message.get("content") or "")
    except ValueError:
        return False
    return not message.get("tool_calls")
