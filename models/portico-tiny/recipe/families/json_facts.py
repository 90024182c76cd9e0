"""Facts about one person or thing: the text that tells them, their JSON, its schema, and how a prompt shows that."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from recipe import words
from recipe.sample import Draw, Message

Schema = dict[str, Any]


class Fact(NamedTuple):
    """A field, its schema and value, and what a running text says of it after the subject's name."""

    key: str
    schema: Schema
    value: Any
    clause: str = ""


def is_numeric(text: str) -> bool:
    return text.replace(".", "").replace("-", "").isdigit()


def plain_value(d: Draw) -> str:
    """A text that nobody takes for a number."""
    while True:
        drawn = words.value(d)
        if not is_numeric(drawn):
            return drawn


def decimal(d: Draw) -> float:
    """A number with one digit after the point, which is not 0."""
    return d.integer(0, d.choice([9, 99, 999])) + d.integer(1, 9) / 10


class Natural(NamedTuple):
    """A field that a running text may speak of. Booleans have two clauses: for true, for false."""

    keys: str
    kind: str
    draw: Callable[[Draw], Any]
    clauses: tuple[str, ...]


def _several(draw: Callable[[Draw], str]) -> Callable[[Draw], list[str]]:
    return lambda d: list(dict.fromkeys(draw(d) for _ in range(d.integer(2, 3))))


def _yes(d: Draw) -> bool:
    return d.chance(0.5)


PERSON = [
    Natural("age", "integer", lambda d: d.integer(1, 99), ("is {v} years old", "is {v}", "is aged {v}")),
    Natural(
        "city town home", "string", words.city, ("lives in {v}", "has a home in {v}", "has a house in {v}")
    ),
    Natural(
        "job profession occupation work",
        "string",
        words.job,
        ("works as a {v}", "is a {v}", "is a {v} by profession"),
    ),
    Natural(
        "email mail", "string", words.email, ("has the email {v}", "has the mail address {v}", "uses {v}")
    ),
    Natural("language", "string", words.language, ("speaks {v}",)),
    Natural("languages", "array", _several(words.language), ("speaks {v}",)),
    Natural("company employer", "string", lambda d: words.title(d), ("works for {v}", "works at {v}")),
    Natural("married", "boolean", _yes, ("is married", "is not married")),
    Natural("children", "integer", lambda d: d.integer(2, 9), ("has {v} children",)),
    Natural("pets", "array", _several(words.noun), ("has these pets: {v}", "has as pets {v}")),
    Natural("salary income", "integer", lambda d: d.integer(100, 9999), ("earns {v} euros",)),
    Natural("height", "number", lambda d: 1 + d.integer(1, 9) / 10, ("is {v} meters tall",)),
    Natural("birthday born", "string", words.date, ("was born on {v}",)),
    Natural("color", "enum", words.color, ("likes the color {v}", "likes {v} most")),
    Natural("friends", "array", _several(words.first_name), ("has the friends {v}", "is a friend of {v}")),
]
THING = [
    Natural("price cost", "number", decimal, ("costs {v} euros", "has a price of {v} euros")),
    Natural("color", "enum", words.color, ("is {v}", "has the color {v}", "comes in {v}")),
    Natural("weight", "number", decimal, ("weighs {v} kg", "has a weight of {v} kg")),
    Natural(
        "stock count",
        "integer",
        lambda d: d.integer(2, 999),
        ("is in the shop {v} times", "has a stock of {v}"),
    ),
    Natural("available", "boolean", _yes, ("is available", "is not available")),
    Natural("material", "string", words.noun, ("is made of {v}",)),
    Natural("maker brand", "string", words.last_name, ("is made by {v}", "comes from the maker {v}")),
    Natural("tags", "array", _several(words.word), ("has the tags {v}",)),
    Natural(
        "code number",
        "string",
        lambda d: f"{words.letters(d, 2, 3).upper()}-{d.integer(1, 999)}",
        ("has the code {v}", "has the number {v}"),
    ),
]
EVENT = [
    Natural("date day", "string", words.date, ("is on {v}", "starts on {v}")),
    Natural("time start", "string", words.clock, ("starts at {v}", "begins at {v}")),
    Natural("city place location", "string", words.city, ("takes place in {v}", "is held in {v}")),
    Natural("guests people", "integer", lambda d: d.integer(2, 500), ("has {v} guests", "is for {v} people")),
    Natural("speakers", "array", _several(words.full_name), ("has the speakers {v}",)),
    Natural("host", "string", words.full_name, ("is led by {v}", "has {v} as host")),
    Natural("online", "boolean", _yes, ("is online", "is not online")),
    Natural("price fee", "integer", lambda d: d.integer(1, 500), ("costs {v} euros",)),
]
BOOK = [
    Natural(
        "author writer", "string", words.full_name, ("was written by {v}", "is by {v}", "is a book by {v}")
    ),
    Natural("year", "integer", lambda d: d.integer(1500, 2030), ("came out in {v}", "is from the year {v}")),
    Natural("pages", "integer", lambda d: d.integer(2, 999), ("has {v} pages", "is {v} pages long")),
    Natural("language", "string", words.language, ("is written in {v}", "is in {v}")),
    Natural("rating", "number", lambda d: d.integer(0, 4) + d.integer(1, 9) / 10, ("has a rating of {v}",)),
    Natural("characters", "array", _several(words.first_name), ("is about {v}", "tells of {v}")),
    Natural("publisher", "string", words.last_name, ("is sold by {v}", "is printed by {v}")),
]
TOPICS: list[tuple[str, Callable[[Draw], str], list[Natural]]] = [
    ("name person full_name", words.full_name, PERSON),
    ("name person first_name", words.first_name, PERSON),
    ("product item name", lambda d: f"The {words.thing(d)}", THING),
    ("event title name", words.title, EVENT),
    ("title book name", words.title, BOOK),
]


def spoken(d: Draw, value: Any) -> str:
    if isinstance(value, list):
        return words.listing(d, value)
    if isinstance(value, bool):
        return d.choice(["yes", "true"]) if value else d.choice(["no", "false"])
    return str(value)


def schema_of(d: Draw, kind: str, value: Any) -> Schema:
    if kind == "array":
        return {"type": "array", "items": {"type": "string"}}
    if kind == "enum":
        others = [each for each in words.COLORS if each != value]
        return {"type": "string", "enum": d.shuffled([value, *d.some(others, 1, 3)])}
    return {"type": kind}


def natural_facts(d: Draw, plain: bool, most: int) -> tuple[list[Fact], str]:
    """Facts about one person or thing, and the running text that tells them. `plain`: strings and numbers
    only, for prompts in which no type is said."""
    keys, subject, fields = d.choice(TOPICS)
    name = subject(d)
    thing = name.removeprefix("The ") if fields is THING else name
    facts = [Fact(d.choice(keys.split()), {"type": "string"}, thing)]
    taken = {facts[0].key}
    for field in d.some(fields, 1, most):
        if plain and field.kind in ("array", "boolean"):
            continue
        key = d.choice(field.keys.split())
        # "language" and "languages" would say the same of two values.
        if key.rstrip("s") in {each.rstrip("s") for each in taken}:
            continue
        taken.add(key)
        value = field.draw(d)
        if field.kind == "boolean":
            clause = field.clauses[0 if value else 1]
        else:
            clause = d.choice(field.clauses).format(v=spoken(d, value))
        facts.append(Fact(key, schema_of(d, field.kind, value), value, clause))
    clauses = d.shuffled([fact.clause for fact in facts[1:]])
    if not clauses:
        return facts, f"{name}."
    # Lists inside a list of clauses would be hard to read.
    style = d.integer(1, 2) if any(isinstance(fact.value, list) for fact in facts) else d.integer(0, 2)
    if style == 0 and len(clauses) < 4:
        text = f"{name} " + words.prose(clauses) + "."
    elif style == 1:
        text = " ".join(f"{name} {clause}." for clause in clauses)
    else:
        again = d.choice(["He", "She"]) if fields is PERSON else "It"
        text = f"{name} {clauses[0]}." + "".join(f" {again} {clause}." for clause in clauses[1:])
    ages = [fact for fact in facts if fact.key == "age"]
    if ages and style == 0 and d.chance(0.4):  # "Ada Kowalski, 34, lives in Oslo and works as a baker."
        others = [clause for clause in clauses if clause != ages[0].clause]
        if others and len(others) < 4:
            text = f"{name}, {ages[0].value}, " + words.prose(others) + "."
    return facts, text


TEXT_KEYS = """name title city country street owner color status kind label note category author
language company team topic subject brand model code email phone address message answer reason place nickname county
region department role material shape size level unit source target file folder host user group
project task product item material_type zip_code first_name last_name user_name order_id start_date""".split()
INTEGER_KEYS = """age count year price quantity amount score pages floor room_number total weight
height distance minutes points seats laps rank width depth length stock version port limit""".split()
BOOLEAN_KEYS = "active open paid done ready urgent visible public valid enabled new sold".split()
ARRAY_KEYS = "tags names items colors parts members cities words files topics guests steps".split()
NESTED_KEYS = "owner address author contact parent driver seller origin".split()


def key_for(d: Draw, kind: str) -> str:
    known = {
        "string": TEXT_KEYS,
        "integer": INTEGER_KEYS,
        "number": INTEGER_KEYS,
        "boolean": BOOLEAN_KEYS,
        "array": ARRAY_KEYS,
        "enum": TEXT_KEYS,
        "object": NESTED_KEYS,
    }[kind]
    return words.listed(d, known) if d.chance(0.65) else words.identifier(d)


def labelled_value(d: Draw, kind: str) -> tuple[Any, Schema]:
    if kind == "integer":
        return words.number(d), {"type": "integer"}
    if kind == "number":
        return decimal(d), {"type": "number"}
    if kind == "boolean":
        return d.chance(0.5), {"type": "boolean"}
    if kind == "array":
        return _several(words.word)(d), {"type": "array", "items": {"type": "string"}}
    if kind == "enum":
        options = list(dict.fromkeys(words.word(d) for _ in range(d.integer(2, 4))))
        return d.choice(options), {"type": "string", "enum": options}
    return plain_value(d), {"type": "string"}


def labelled_facts(d: Draw, plain: bool, most: int) -> tuple[list[Fact], str]:
    """Facts under their keys, in one of the ways people write them down."""
    lines = d.chance(0.5)
    sentences = not lines and d.chance(0.6)
    kinds = ["string"] * 4 + ["integer"] * 3 + ["number"]
    if not plain:
        kinds += ["boolean", "enum"] + (["array", "object"] if lines or sentences else [])
    facts: dict[str, Fact] = {}
    told: list[str] = []
    form = (
        d.choice(["The {k} is {v}.", "The {k} is {v}.", "{k} is {v}.", "{K}: {v}."])
        if sentences
        else (
            d.choice(["- {k}: {v}", "{k}: {v}", "{k} = {v}", "* {k}: {v}", "{K}: {v}"])
            if lines
            else d.choice(["{k} {v}", "{k}: {v}", "{k}={v}", "{k} = {v}"])
        )
    )
    for _ in range(d.integer(1, most)):
        kind = d.choice(kinds)
        key = key_for(d, kind)
        if key in facts:
            continue
        if kind == "object":
            inner = [
                ("name", words.full_name(d)),
                d.choice(
                    [("city", words.city(d)), ("age", d.integer(1, 99)), ("street", words.last_name(d))]
                ),
            ]
            value: Any = dict(inner)
            schema: Schema = {
                "type": "object",
                "properties": {
                    name: {"type": "integer" if isinstance(each, int) else "string"} for name, each in inner
                },
                "required": [name for name, _ in inner],
            }
            said = ", ".join(f"{name} {each}" for name, each in inner)
        else:
            value, schema = labelled_value(d, kind)
            said = spoken(d, value)
            if not plain and kind in ("string", "integer") and (lines or sentences) and d.chance(0.04):
                value, schema, said = None, {"anyOf": [schema, {"type": "null"}]}, "unknown"
        facts[key] = Fact(key, schema, value)
        told.append(form.format(k=key, K=words.upper_first(key), v=said))
    joint = " " if sentences else "\n" if lines else d.choice([", ", ", ", "; "])
    return list(facts.values()), joint.join(d.shuffled(told))


@dataclass(frozen=True)
class Case:
    """What is asked for, in this order, and the text that says it (and sometimes more)."""

    facts: list[Fact]
    text: str

    @property
    def keys(self) -> list[str]:
        return [fact.key for fact in self.facts]

    @property
    def answer(self) -> dict[str, Any]:
        return {fact.key: fact.value for fact in self.facts}


def case(d: Draw, plain: bool = False, most: int = 6) -> Case:
    make = natural_facts if d.chance(0.5) else labelled_facts
    facts, text = make(d, plain, d.choice([2, 3, 3, 4, most]))
    asked = d.some(facts, 1, len(facts)) if d.chance(0.35) else d.shuffled(facts)
    return Case(asked, text)


def object_schema(d: Draw, facts: Sequence[Fact]) -> Schema:
    """As hand-written schemas are, or as pydantic writes them."""
    if d.chance(0.35):
        properties = {
            fact.key: (
                {"title": fact.key.replace("_", " ").title(), **fact.schema} if d.chance(0.8) else fact.schema
            )
            for fact in facts
        }
        return {
            "properties": properties,
            "required": [fact.key for fact in facts],
            "title": d.choice(["Answer", "Data", "Person", "Item", "Record", words.word(d).capitalize()]),
            "type": "object",
        }
    described = d.chance(0.2)
    properties = {
        fact.key: {**fact.schema, "description": f"The {fact.key.replace('_', ' ')}"}
        if described
        else fact.schema
        for fact in facts
    }
    made: Schema = {"type": "object", "properties": properties}
    if d.chance(0.8):
        made["required"] = [fact.key for fact in facts]
    if d.chance(0.3):
        made["additionalProperties"] = False
    return made


def strict_schema(facts: Sequence[Fact]) -> Schema:
    return {
        "type": "object",
        "properties": {fact.key: fact.schema for fact in facts},
        "required": [fact.key for fact in facts],
        "additionalProperties": False,
    }


def has_keys(keys: Sequence[str]) -> Callable[[Message], bool]:
    """A JSON object with exactly these keys in this order."""

    def check(message: Message) -> bool:
        try:
            got = json.loads(message.get("content") or "")
        except ValueError:
            return False
        return isinstance(got, dict) and list(got) == list(keys)

    return check


# ---- the schema in a prompt

BY_SCHEMA = [
    f"{start} {link}{end}"
    for start in [
        "Answer with JSON",
        "Reply with JSON",
        "Give JSON",
        "Return JSON",
        "Answer in JSON",
        "Answer only with JSON",
        "Please answer with JSON",
        "Give me JSON",
        "Return only JSON",
        "Write JSON",
        "Respond with JSON",
        "Return a JSON object",
        "Your answer must be JSON",
        "Use JSON",
        "Extract the data as JSON",
    ]
    for link in [
        "that matches this schema",
        "for this schema",
        "with this schema",
        "that fits the schema",
        "in this JSON schema",
    ]
    for end in [": {s}", ":\n{s}"]
] + [
    "JSON schema: {s}",
    "Schema: {s}\nAnswer with JSON.",
    "The answer must match this JSON schema: {s}",
    "You must answer with JSON. The schema is {s}",
    "Use this schema for the answer: {s}",
    "Here is the schema: {s}",
    "Fill in this schema: {s}",
    "This is the JSON schema of the answer:\n{s}",
    "Schema:\n{s}",
    # never trained:
    "Your answer must match the schema: {s}",
    "Please return a JSON object for the schema:\n{s}",
]
