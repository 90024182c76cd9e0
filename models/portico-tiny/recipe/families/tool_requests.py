"""Tools as one conversation defines them, known or invented, and requests for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from recipe import words
from recipe.families.json_facts import decimal, plain_value
from recipe.families.known_tools import CURRENCIES, KINDS, Kind
from recipe.sample import Draw, Tool
from recipe.words import upper_first

Arguments = dict[str, Any]

# ---- known tools

_ORDERS = [
    "{C}.",
    "{C}.",
    "{C}",
    "{c}",
    "Please {c}.",
    "Please {c}",
    "please {c}",
    "Can you {c}?",
    "Could you {c}?",
    "Can you please {c}?",
    "Could you please {c}?",
    "Will you {c}?",
    "I want you to {c}.",
    "I need you to {c}.",
    "Hi, {c}.",
    "Hello! Please {c}.",
    "Now {c}.",
    "Next, {c}.",
    "You must {c}.",
    "Use the tools: {c}.",
    "Task: {c}",
    "Hello, can you {c}?",
    "I would like you to {c}.",
    "Use a tool to {c}.",
]
_NOTES = ["{C}", "{c}", "{C}.", "{C}!", "{C}, please.", "I want this: {c}", "Hi, {c}", "Please: {c}"]
_QUESTIONS = [
    "{C}?",
    "{C}?",
    "{C}?",
    "{c}?",
    "{C}",
    "Hi, {c}?",
    "Please tell me: {c}?",
    "Hello! {C}?",
    "Question: {c}?",
    "Can you tell me: {c}?",
    "And {c}?",
    "I want to know: {c}?",
]


@cache
def forms_of(kind: Kind, tail: str = "") -> list[str]:
    """All the ways to ask for it; the last two are the unseen ones."""
    forms = [
        form.format(c=core + tail, C=upper_first(core + tail))
        for cores, frames in [(kind.orders, _ORDERS), (kind.questions, _QUESTIONS), (kind.notes, _NOTES)]
        for core in cores
        for form in frames
    ]
    return forms + [
        unseen[:-1] + tail + unseen[-1] if unseen[-1] in ".?" else unseen + tail for unseen in kind.unseen
    ]


def shown(name: str, value: Any) -> str:
    """How a request spells an argument."""
    if name == "on" and isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


class Defined(NamedTuple):
    """A known tool as one conversation defines it: the definition, and the names it drew for its slots."""

    kind: Kind
    tool: Tool
    named: dict[str, str]

    @property
    def name(self) -> str:
        name: str = self.tool["function"]["name"]
        return name


def defined(d: Draw, kind: Kind) -> Defined:
    """The definition, spelled in one of the ways that engines and clients spell them."""
    named = {each.slot: d.choice(each.names.split()) for each in kind.parameters}
    if len(set(named.values())) < len(named):
        named = {each.slot: each.slot for each in kind.parameters}
    described = d.chance(0.15)
    properties: dict[str, Any] = {}
    for each in kind.parameters:
        spelled: dict[str, Any] = (
            {"type": each.kind} if isinstance(each.kind, str) else {"type": "string", "enum": list(each.kind)}
        )
        if described:
            spelled = (
                {**spelled, "description": each.about}
                if d.chance(0.6)
                else {"description": each.about, **spelled}
            )
        properties[named[each.slot]] = spelled
    required = [named[each.slot] for each in kind.parameters if not each.tail]
    about = d.choice(kind.about)
    about = about.removesuffix(".") if d.chance(0.3) else about
    return Defined(kind, definition(d, kind.named(d), about, properties, required), named)


def definition(d: Draw, name: str, about: str, properties: dict[str, Any], required: Sequence[str]) -> Tool:
    parts: dict[str, Any] = {"type": "object", "properties": properties, "required": list(required)}
    order = d.choice(
        [["type", "properties", "required"]] * 3
        + [
            ["properties", "required", "type"],
            ["type", "required", "properties"],
            ["properties", "type", "required"],
        ]
    )
    parameters = {key: parts[key] for key in order if parts[key] or key != "required" or d.chance(0.5)}
    if d.chance(0.1):
        parameters["additionalProperties"] = False
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


class Asked(NamedTuple):
    """A request and the call that it wants; `kind` is None for an invented tool."""

    text: str
    name: str
    arguments: Arguments
    kind: Kind | None = None
    slots: Arguments = {}


def ask(d: Draw, tool: Defined) -> Asked:
    kind = tool.kind
    slots: Arguments = {}
    tail = ""
    for each in kind.parameters:
        if each.tail:
            if d.chance(0.7):
                continue
            tail = each.tail
        slots[each.slot] = each.draw(d)
    if kind.name == "convert" and slots["from"] == slots["to"]:
        slots["to"] = d.choice([each for each in CURRENCIES if each != slots["from"]])
    text = d.wording(forms_of(kind, tail)).format(**{key: shown(key, value) for key, value in slots.items()})
    return Asked(
        upper_start(d, text), tool.name, {tool.named[key]: value for key, value in slots.items()}, kind, slots
    )


def upper_start(d: Draw, text: str) -> str:
    return text if d.chance(0.93) else text[:1].lower() + text[1:]


# ---- tools that are invented

_USE = [
    f"{start}{{n}}{end}"
    for start in [
        "Use ",
        "Call ",
        "Run ",
        "Please use ",
        "Please call ",
        "Can you use ",
        "Use the tool ",
        "Call the tool ",
        "use ",
        "I want you to call ",
        "Now use ",
        "Please run the tool ",
        "Now call ",
        "Start ",
    ]
    for end in [" with {a}.", " with {a}", ": {a}", ". {a}"]
] + [
    "{n}: {a}",
    "{n} with {a}",
    "Tool {n}, {a}",
    "With {a}, use {n}.",
    "With {a}, call the tool {n}.",
    "Tool: {n}\n{a}",
    # never trained:
    "Please start the tool {n} with {a}",
    "I want you to use {n}: {a}",
]
_USE_BARE = [
    "Use {n}.",
    "Call {n}.",
    "Run {n}.",
    "Please use {n}",
    "Please call the tool {n}.",
    "Can you run {n}?",
    "Use the tool {n}.",
    "Call {n} now.",
    "{n}",
    "Now run {n}.",
    "I want you to call {n}.",
    "Start {n}.",
    # never trained:
    "Please start the tool {n}.",
    "I want you to use {n}.",
]
_BY_DESCRIPTION = [
    "{C} with {a}.",
    "{C} with {a}",
    "Please {c} with {a}.",
    "Can you {c} with {a}?",
    "{C}: {a}",
    "{c}: {a}",
    "I want you to {c} with {a}.",
    "Please {c}: {a}",
    "Could you {c} with {a}?",
    "With {a}, {c}.",
    "Now {c} with {a}.",
    "I need you to {c}: {a}",
    # never trained:
    "Next, {c} with {a}.",
    "I want you to {c}: {a}",
]


def invented_tool(d: Draw, most: int = 3) -> tuple[Tool, str]:
    """A tool that does not exist, and what its description says (or nothing)."""
    name = words.identifier(d) if d.chance(0.85) else words.letters(d, 2, 7)
    about = f"{words.verb(d)} the {words.thing(d)}" if d.chance(0.6) else ""
    properties: dict[str, Any] = {}
    for _ in range(d.choice([n for n in [0, 1, 1, 1, 2, 2, 3] if n <= most])):
        kind = d.choice(["string", "string", "string", "integer", "integer", "number", "boolean"])
        properties[
            d.choice([words.word, words.word, words.identifier, lambda d: words.letters(d, 1, 2)])(d)
        ] = {"type": kind}
    description = d.choice([upper_first(about), upper_first(about) + "."]) if about else ""
    return definition(d, name, description, properties, list(properties)), about


def invented_value(d: Draw, kind: str) -> Any:
    if kind == "integer":
        return words.number(d)
    if kind == "number":
        return decimal(d)
    if kind == "boolean":
        return d.chance(0.5)
    return plain_value(d)


def ask_invented(d: Draw, tool: Tool, about: str) -> Asked:
    """The request names the tool, or says what its description says."""
    function = tool["function"]
    properties = function["parameters"]["properties"]
    arguments = {key: invented_value(d, schema["type"]) for key, schema in properties.items()}
    pair = d.choice(["{k} = {v}", "{k} = {v}", "{k} {v}", "{k}: {v}", "{k}={v}", "{k} set to {v}"])
    said = (
        words.listing(
            d,
            d.shuffled(
                [
                    pair.format(k=key, v=str(value).lower() if isinstance(value, bool) else value)
                    for key, value in arguments.items()
                ]
            ),
        )
        if arguments
        else ""
    )
    if not arguments:
        text = d.wording(_USE_BARE).format(n=function["name"])
    elif about and d.chance(0.4):
        text = d.wording(_BY_DESCRIPTION).format(c=about, C=upper_first(about), a=said)
    else:
        text = d.wording(_USE).format(n=function["name"], a=said)
    return Asked(text, function["name"], arguments)


# ---- a set of tools, and a request among them


def tool_box(d: Draw, count: int, without: Sequence[str] = ()) -> list[Defined]:
    """Known tools that no request confuses: each kind once."""
    return [
        defined(d, kind)
        for kind in d.some([each for each in KINDS if each.name not in without], count, count)
    ]


def size(d: Draw) -> int:
    return d.choice([1, 1, 1, 2, 2, 2, 2, 2, 3])


def large_size(d: Draw) -> int:
    return d.choice([2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 5, 6])


def requests(
    d: Draw, count: int, count_tools: Callable[[Draw], int] = size
) -> tuple[list[Asked], list[Tool]]:
    """`count` requests for different tools (as far as there are), and the tools to choose from."""
    boxed = tool_box(d, max(count, count_tools(d)) if d.chance(0.62) else d.choice([0, 0, 1]))
    unknown = [
        invented_tool(d)
        for _ in range(d.choice([0, 0, 0, 1]) if len(boxed) > 1 else d.choice([1, 1, 2, 2, 3]))
    ]
    names = {each.name for each in boxed}
    tools = [each.tool for each in boxed]
    for made, _ in list(unknown):
        if made["function"]["name"] in names:
            unknown = [each for each in unknown if each[0] is not made]
            continue
        names.add(made["function"]["name"])
        tools.append(made)
    # Two invented tools with one description could not be told apart.
    told = [about for _, about in unknown]
    options: list[Any] = [*boxed, *unknown]
    while len(options) < count:
        options = options + options
    asked = []
    for each in d.some(options, count, count):
        if isinstance(each, Defined):
            asked.append(ask(d, each))
        else:
            made, about = each
            asked.append(ask_invented(d, made, about if told.count(about) == 1 else ""))
    return asked, d.shuffled(tools)
