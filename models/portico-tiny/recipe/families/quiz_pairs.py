"""A block of pairs, and questions for the value of a key or the key of a value."""

from __future__ import annotations

import json
from dataclasses import dataclass

from recipe import words
from recipe.families.framing import UNKNOWN, styled
from recipe.families.quiz import Distinct, Quiz, Room, Unequal, several
from recipe.sample import Draw

VALUE_OF = [
    "What is the value of {k}?",
    "What is the value of {k}?",
    'What is the value of "{k}"?',
    "What is the value for {k}?",
    "What is {k}?",
    "What is {k}?",
    'What is "{k}"?',
    "Which value does {k} have?",
    "What value does {k} have?",
    "Which value belongs to {k}?",
    "What belongs to {k}?",
    "Which value stands next to {k}?",
    "What is given for {k}?",
    "What is listed for {k}?",
    "What is written for {k}?",
    "What is stored under {k}?",
    "Which value is stored under {k}?",
    "Which value is given for {k}?",
    "What does the list say for {k}?",
    "What do you find under {k}?",
    "Give the value of {k}.",
    "Give me the value of {k}.",
    "Give me {k}.",
    "Give only the value of {k}.",
    "Find {k}.",
    "Find the value of {k}.",
    "Find the value that belongs to {k}.",
    "Look up {k}.",
    'Look up "{k}".',
    "Look up the value of {k}.",
    "Tell me the value of {k}.",
    "Tell me what {k} is.",
    "Say the value of {k}.",
    "Say what {k} is.",
    "Read the value of {k}.",
    "Return the value of {k}.",
    "Return only the value of {k}.",
    "Write the value of {k}.",
    "Show me the value of {k}.",
    "Do you know the value of {k}?",
    "Do you know what {k} is?",
    "I need the value of {k}.",
    "I want to know the value of {k}.",
    "Value of {k}?",
    "The value of {k}?",
    "{k}?",
    "{k} =",
    "{k}: ?",
    "{k} is what?",
    "For {k}, what is the value?",
    "Under {k}, what is the value?",
    "Question: What is the value of {k}?",
    "Question: What is {k}?\nAnswer:",
    "Answer with the value of {k} only.",
    "What is the value of {k}? Answer with the value only.",
    "Which value is listed for {k}?",
    "Tell me what is stored under {k}.",
]
KEY_OF = [
    "Which key has the value {v}?",
    "Which key has the value {v}?",
    'Which key has the value "{v}"?',
    "What key has the value {v}?",
    "Which key belongs to {v}?",
    "Which key belongs to the value {v}?",
    "Which key stands next to {v}?",
    "Which name has the value {v}?",
    "Which one has the value {v}?",
    "What has the value {v}?",
    "Whose value is {v}?",
    "The value {v} belongs to which key?",
    "The value is {v}. What is the key?",
    "Under which key is {v} stored?",
    "Under which key do you find {v}?",
    "For which key is {v} given?",
    "Give the key of the value {v}.",
    "Give me the key with the value {v}.",
    "Find the key with the value {v}.",
    "Find the key that has the value {v}.",
    "Look up the key of the value {v}.",
    "Tell me the key with the value {v}.",
    "Tell me which key has {v}.",
    "Name the key with the value {v}.",
    "Name the key whose value is {v}.",
    "Say which key has the value {v}.",
    "Write the key with the value {v}.",
    "Return the key with the value {v}.",
    "I need the key with the value {v}.",
    "Do you know which key has the value {v}?",
    "Question: Which key has the value {v}?\nAnswer:",
    "Key of the value {v}?",
    "Give the key whose value is {v}.",
    "Tell me which key has the value {v}.",
]


def _numbered(d: Draw) -> str:
    return f"{d.choice(['room', 'box', 'item', 'door', 'seat', 'page'])} {d.integer(1, 999)}"


def short_number(d: Draw) -> str:
    return str(words.number(d))


def long_number(d: Draw) -> str:
    return str(d.integer(10, 99999))


def _upper(d: Draw) -> str:
    return words.identifier(d).upper()


def _price(d: Draw) -> str:
    return f"{d.integer(2, d.choice([9, 99, 9999]))} {words.listed(d, words.UNITS)}"


KEYS = [
    words.noun,
    words.thing,
    words.word,
    words.identifier,
    words.invented,
    words.first_name,
    words.string_of,
    _upper,
]
LONG_KEYS = [words.identifier, words.full_name, words.string_of, words.invented, _upper, _numbered]
VALUES = [
    words.value,
    words.value,
    words.string_of,
    short_number,
    words.word,
    words.first_name,
    words.city,
    _price,
    words.thing,
]
LONG_VALUES = [words.string_of, long_number, words.full_name, _price, words.thing, words.value]


@dataclass(frozen=True)
class Style:
    """A way to write pairs down: one of them, what joins them, what stands around."""

    one: str
    join: str = "\n"
    head: str = ""
    tail: str = ""


STYLES = [
    Style("{k}: {v}"),
    Style("{k}: {v}"),
    Style("{k} = {v}"),
    Style("{k}={v}"),
    Style("{k} -> {v}"),
    Style("{k} - {v}"),
    Style("- {k}: {v}"),
    Style("* {k}: {v}"),
    Style('{k}: "{v}"'),
    Style("{k}: {v}", join=", "),
    Style("{k} = {v}", join="; "),
    Style("{k}={v}", join=", "),
    Style("The {k} is {v}."),
    Style("The {k} is {v}.", join=" "),
    Style("{k} is {v}.", join=" "),
    Style("{k} has the value {v}."),
    Style("The value of {k} is {v}.", join=" "),
    Style("| {k} | {v} |", head="| key | value |\n|---|---|\n"),
    Style("| {k} | {v} |"),
    Style("{k},{v}", head="key,value\n"),
    Style("{k},{v}"),
    Style("{k};{v}", head="key;value\n"),
    Style("json", join=", ", head="{", tail="}"),
    Style("json", join=", ", head="{", tail="}"),
    Style("  json", join=",\n", head="{\n", tail="\n}"),
    Style("[{k}]\n{v}"),
]


def _pair(style: Style, key: str, value: str) -> str:
    if style.one.endswith("json"):
        shown = value if value.isdecimal() and str(int(value)) == value else json.dumps(value)
        return style.one.replace("json", f"{json.dumps(key)}: {shown}")
    return style.one.replace("{k}", key).replace("{v}", value)


def pairs(d: Draw, room: Room) -> Quiz:
    """A block of pairs, and a question for a value, a key, or a key that is not there."""
    style, long = d.choice(STYLES), room.tokens > 0
    make_key = d.choice(LONG_KEYS if long else KEYS)
    if style.one.startswith("The {k}"):
        make_key = words.identifier if long else d.choice([words.noun, words.thing, words.word])
    values = [d.choice(LONG_VALUES)] if d.chance(0.5) else LONG_VALUES if long else VALUES
    distinct, unequal = Distinct(d), Unequal(d)

    def drawn() -> tuple[str, str]:
        return distinct(make_key), unequal(d.choice(values))

    found = room.fill(drawn, lambda pair: _pair(style, *pair))

    def ask() -> tuple[str, str]:
        key, value = d.choice(found)
        kind = d.random.random()
        if kind < 0.2:
            return styled(d, d.wording(KEY_OF)).replace("{v}", value), key
        if kind < 0.33:
            key, value = distinct(make_key), UNKNOWN
        form = styled(d, d.wording(VALUE_OF))
        the = "the " if style.one.startswith("The {k}") and '"' not in form and d.chance(0.7) else ""
        if the and form.startswith("{k}"):
            the = the.capitalize()
        return form.replace("{k}", the + key), value

    parts = [_pair(style, *pair) for pair in found]
    return Quiz(parts, several(d, room, ask), style.join, style.head, style.tail)
