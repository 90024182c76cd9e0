"""What tools give back, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from recipe import words
from recipe.families.json_facts import decimal, plain_value
from recipe.families.tool_requests import Asked
from recipe.sample import Draw, Message, calls, result, says, user
from recipe.words import upper_first

_SKY = "sunny|cloudy|rain|snow|windy|clear|fog|light rain|warm|cold|storm|dry".split("|")
_RESULT_KEYS = "temperature price result total value count status name wind".split()
_DONE = "ok OK done Done success sent saved created true ready".split()
_ERRORS = """not found|file not found|no such file|timeout|access denied|no connection|bad request|unknown city|
not allowed|no internet|server is down|too many requests|invalid id|no such user|permission denied|
out of memory|busy|wrong password|limit reached|connection lost""".replace("\n", "").split("|")


def outcome(d: Draw, asked: Asked) -> tuple[str, str]:
    """What the tool gave back, and what the assistant says of it. The rules:
    a sentence is repeated; a JSON object is said key by key; weather and time say where; an action that
    went well is "Done."; anything else is "The result is ...\""""
    kind = asked.kind.result if asked.kind else d.choice(["words", "number", "done"])
    if d.chance(0.12):
        sentence = upper_first(words.phrase(d, 2, 5)) + "."
        return sentence, sentence
    if d.chance(0.2):
        keys = dict.fromkeys(
            d.choice(_RESULT_KEYS) if d.chance(0.9) else words.word(d) for _ in range(d.choice([1, 1, 2]))
        )
        values = {key: d.choice([words.number, plain_value, decimal])(d) for key in keys}
        return json.dumps(values, ensure_ascii=False), " ".join(
            f"The {key} is {value}." for key, value in values.items()
        )
    if kind == "weather":
        degrees = f"{d.integer(-20, 42)}{d.choice([' C', ' degrees', ' F', 'C', ''])}"
        sky = d.choice(_SKY) if d.chance(0.6) else words.adjective(d)
        got = d.choice([f"{degrees}, {sky}", f"{sky}, {degrees}", sky, degrees, f"{sky} and {degrees}"])
        return got, f"It is {got} in {asked.slots['city']}."
    if kind == "clock":
        got = words.clock(d)
        return got, f"It is {got} in {asked.slots['city']}."
    if kind == "done":
        return d.choice(_DONE), "Done."
    got = (
        str(d.choice([words.number, decimal])(d))
        if kind == "number"
        else (
            words.full_name(d)
            if kind == "name"
            else words.phrase(d, 1, 4)
            if d.chance(0.7)
            else plain_value(d)
        )
    )
    return got, f"The result is {got}."


def together(sentences: Sequence[str]) -> str:
    """What is said of several results; "Done." is said once."""
    return " ".join(
        each for at, each in enumerate(sentences) if each != "Done." or each not in sentences[:at]
    )


def failure(d: Draw, asked: Asked) -> tuple[str, str]:
    about = d.choice(_ERRORS) if d.chance(0.5) else words.phrase(d, 1, 4)
    got = d.choice(
        ["Error: {m}", "Error: {m}", "error: {m}", "ERROR: {m}", "Error: {m}.", '{{"error": "{m}"}}']
    ).format(m=about)
    return got, f"The tool {asked.name} failed: {about}."


def one_round(d: Draw, asked: Asked) -> list[Message]:
    got, said = failure(d, asked) if d.chance(0.15) else outcome(d, asked)
    return [user(asked.text), calls((asked.name, asked.arguments)), result(got), says(said)]


def earlier(d: Draw, asked: Sequence[Asked]) -> list[Message]:
    return [message for each in asked for message in one_round(d, each)]
