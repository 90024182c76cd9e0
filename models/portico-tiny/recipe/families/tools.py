"""Tools: which one to call and with what, when to call none, and what to say of a result.

A call's arguments are copied from the request into the parameters that the tool's definition names, in the
definition's order. What is said of a result follows `told`, of a failure `failed`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from recipe import words
from recipe.families.chat import HELLO, THANKS, UNKNOWN
from recipe.families.json_answers import decimal, listing, opening, plain_value
from recipe.sample import (
    Draw,
    Entry,
    Family,
    Message,
    Sample,
    Tool,
    called,
    calls,
    result,
    says,
    says_json,
    user,
)

Arguments = dict[str, Any]


# ---- tools that are known


class Parameter(NamedTuple):
    """A parameter: its names (one is drawn), JSON type or the values it may have, and how to draw it. With a
    `tail` it is optional, and the tail is what a request says of it at its end."""

    names: str
    kind: str | tuple[str, ...]
    draw: Callable[[Draw], Any]
    about: str
    tail: str = ""

    @property
    def slot(self) -> str:
        return self.names.split()[0]


@dataclass(frozen=True)
class Kind:
    """A known tool. Requests: `orders` go into many sentences ("Please ...", "Can you ...?"), `questions`
    and `notes` (no sentences) into others, the two `unseen` are never trained. `result` says what it gives
    back (see `outcome`)."""

    name: str
    about: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    orders: tuple[str, ...]
    questions: tuple[str, ...]
    unseen: tuple[str, str]
    result: str = "words"
    many: bool = False  # can be asked for several values of its first parameter at once
    notes: tuple[str, ...] = ()

    def named(self, d: Draw) -> str:
        """Its name, or one of those that others give such a tool."""
        return d.choice(OTHER_NAMES[self.name]) if self.name in OTHER_NAMES and d.chance(0.3) else self.name


OTHER_NAMES = {
    "get_weather": ["weather", "get_current_weather", "current_weather", "check_weather"],
    "get_time": ["time", "current_time", "get_current_time"],
    "add": ["sum", "add_numbers"],
    "multiply": ["product", "multiply_numbers"],
    "search_web": ["search", "web_search", "internet_search"],
    "send_mail": ["send_email", "mail", "email"],
    "read_file": ["open_file", "read", "cat"],
    "write_file": ["save_file", "write"],
    "delete_file": ["remove_file", "delete"],
    "set_timer": ["timer", "start_timer"],
    "convert": ["convert_money", "exchange"],
    "create_event": ["add_event", "new_event"],
    "lookup_user": ["get_user", "find_user"],
    "book_flight": ["flight", "get_flight"],
    "play_song": ["play", "play_music"],
    "get_price": ["price", "find_price"],
    "add_task": ["new_task", "todo"],
    "get_news": ["news", "latest_news"],
    "call_person": ["phone", "make_call"],
}


def one_of(*values: str) -> tuple[tuple[str, ...], Callable[[Draw], str]]:
    return values, lambda d: d.choice(values)


def _small(low: int, high: int) -> Callable[[Draw], int]:
    return lambda d: d.integer(low, high)


def _short_phrase(d: Draw) -> str:
    return words.phrase(d, 1, 3)


def _language(d: Draw) -> str:
    return words.listed(d, words.LANGUAGES)


_CITY = Parameter("city location place", "string", words.city, "Name of the city")
_PATH = Parameter("path file file_path", "string", words.path, "Path of the file")
_CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF")

KINDS = [
    Kind(
        "get_weather",
        ("Get the weather in a city.", "Get the current weather", "Weather of a city", ""),
        (_CITY, Parameter("unit units", *one_of("celsius", "fahrenheit"), "Unit", " in {unit}")),
        (
            "tell me the weather in {city}",
            "check the weather in {city}",
            "get the weather for {city}",
            "show the weather in {city}",
            "find out the weather in {city}",
        ),
        (
            "what is the weather in {city}",
            "what's the weather like in {city}",
            "how is the weather in {city}",
            "weather in {city}",
            "what is the weather like in {city}",
            "what's the weather in {city}",
        ),
        ("Can you show me the weather for {city}?", "What is the current weather in {city}?"),
        "weather",
        True,
    ),
    Kind(
        "get_time",
        ("Get the time in a city.", "Current time of a place", "What time it is somewhere"),
        (_CITY,),
        (
            "tell me the time in {city}",
            "get the current time in {city}",
            "find out what time it is in {city}",
        ),
        (
            "what time is it in {city}",
            "what is the time in {city}",
            "time in {city}",
            "how late is it in {city}",
        ),
        ("Can you show me the time in {city}?", "What is the current time in {city}?"),
        "clock",
        True,
    ),
    Kind(
        "add",
        ("Add two numbers.", "Sum of two numbers", "Adds a and b"),
        (
            Parameter("a x first", "number", _small(0, 999), "First number"),
            Parameter("b y second", "number", _small(0, 999), "Second number"),
        ),
        ("add {a} and {b}", "add {a} to {b}", "find the sum of {a} and {b}", "compute {a} + {b}"),
        ("what is {a} + {b}", "what is {a} plus {b}", "how much is {a} + {b}", "{a} + {b}"),
        ("What is the sum of {a} and {b}?", "Please tell me how much {a} plus {b} is."),
        "number",
    ),
    Kind(
        "multiply",
        ("Multiply two numbers.", "Product of two numbers"),
        (
            Parameter("a x first", "number", _small(0, 999), "First number"),
            Parameter("b y second", "number", _small(0, 999), "Second number"),
        ),
        (
            "multiply {a} by {b}",
            "multiply {a} and {b}",
            "compute {a} * {b}",
            "find the product of {a} and {b}",
        ),
        ("what is {a} * {b}", "what is {a} times {b}", "how much is {a} times {b}", "{a} * {b}"),
        ("What is the product of {a} and {b}?", "Please tell me how much {a} times {b} is."),
        "number",
    ),
    Kind(
        "search_web",
        ("Search the web.", "Search for pages on the internet", "Web search"),
        (Parameter("query text", "string", _short_phrase, "What to search for"),),
        (
            "search the web for {query}",
            "search for {query}",
            "look up {query} on the web",
            "find pages about {query}",
            "search the internet for {query}",
        ),
        ("what does the web say about {query}", "what can you find on the web about {query}"),
        ("Look on the internet for {query}.", "Can you find something on the web about {query}?"),
    ),
    Kind(
        "send_mail",
        ("Send a mail.", "Send an email to somebody", "Sends mail"),
        (
            Parameter("to recipient", "string", words.email, "Address"),
            Parameter("subject", "string", _short_phrase, "Subject"),
            Parameter("body text", "string", _short_phrase, "Text of the mail"),
        ),
        (
            'send a mail to {to} with the subject "{subject}" and the text "{body}"',
            "mail {to} with the subject {subject} and the text {body}",
            'write an email to {to}, subject "{subject}", body "{body}"',
            "send an email to {to} with subject {subject} and body {body}",
        ),
        (),
        (
            'Email to {to}, subject "{subject}", text "{body}"',
            "Write to {to} with the subject {subject} and the body {body}.",
        ),
        "done",
    ),
    Kind(
        "read_file",
        ("Read a file.", "Reads a text file", "Get what is in a file"),
        (_PATH,),
        (
            "read {path}",
            "read the file {path}",
            "open {path}",
            "show me the file {path}",
            "show what is in {path}",
        ),
        (
            "what is in {path}",
            "what does {path} say",
            "what is in the file {path}",
            "what does the file {path} say",
        ),
        ("Tell me what is in the file {path}.", "Open the file {path} and read it."),
        "words",
        True,
    ),
    Kind(
        "delete_file",
        ("Delete a file.", "Removes a file"),
        (_PATH,),
        ("delete {path}", "delete the file {path}", "remove {path}", "remove the file {path}"),
        (),
        ("Find the file {path} and remove it.", "The file to delete is {path}."),
        "done",
        True,
    ),
    Kind(
        "write_file",
        ("Write a file.", "Save a text in a file"),
        (_PATH, Parameter("content text", "string", _short_phrase, "The text")),
        (
            'write "{content}" to {path}',
            'write "{content}" into the file {path}',
            "save the text {content} in {path}",
            'make the file {path} with the text "{content}"',
            'create {path} with the content "{content}"',
        ),
        (),
        ('Save "{content}" in the file {path}.', 'Create the file {path} with the text "{content}".'),
        "done",
    ),
    Kind(
        "translate",
        ("Translate a text.", "Translates text into a language"),
        (
            Parameter("text", "string", _short_phrase, "The text"),
            Parameter("language target to", "string", _language, "Target language"),
        ),
        (
            'translate "{text}" to {language}',
            'translate "{text}" into {language}',
            "translate to {language}: {text}",
            "translate {text} into {language}",
            'say "{text}" in {language}',
        ),
        ('what is "{text}" in {language}', 'how do you say "{text}" in {language}'),
        ('I want "{text}" in {language}.', "Translate the text {text} into {language}."),
    ),
    Kind(
        "set_timer",
        ("Set a timer.", "Starts a timer of some minutes"),
        (Parameter("minutes time", "integer", _small(1, 180), "Minutes"),),
        (
            "set a timer for {minutes} minutes",
            "start a timer of {minutes} minutes",
            "set a {minutes} minutes timer",
            "wake me in {minutes} minutes",
        ),
        (),
        ("Start the timer for {minutes} minutes.", "I need a timer of {minutes} minutes."),
        "done",
        notes=("timer for {minutes} minutes", "timer, {minutes} minutes", "a timer of {minutes} minutes"),
    ),
    Kind(
        "convert",
        ("Convert money.", "Converts an amount between currencies"),
        (
            Parameter("amount", "number", lambda d: d.choice([words.number, decimal])(d), "Amount"),
            Parameter("from source", *one_of(*_CURRENCIES), "Currency"),
            Parameter("to target", *one_of(*_CURRENCIES), "Currency"),
        ),
        (
            "convert {amount} {from} to {to}",
            "convert {amount} {from} into {to}",
            "change {amount} {from} to {to}",
        ),
        ("how much is {amount} {from} in {to}", "what is {amount} {from} in {to}", "{amount} {from} in {to}"),
        ("Turn {amount} {from} into {to}.", "How much {to} is {amount} {from}?"),
        "number",
    ),
    Kind(
        "create_event",
        ("Create an event.", "Puts an event in the calendar"),
        (
            Parameter("title name", "string", words.title, "Title"),
            Parameter("date day", "string", words.date, "Date"),
            Parameter("time start", "string", words.clock, "Time"),
        ),
        (
            "create the event {title} on {date} at {time}",
            'add "{title}" to my calendar on {date} at {time}',
            "plan {title} for {date} at {time}",
            "put {title} in the calendar on {date} at {time}",
        ),
        (),
        ("Add the event {title} on {date} at {time}.", 'Put "{title}" in my calendar: {date}, {time}'),
        "done",
        notes=("new event: {title}, {date}, {time}",),
    ),
    Kind(
        "lookup_user",
        ("Look up a user.", "Gets a user by number"),
        (Parameter("id user_id", "integer", _small(1, 99999), "Number of the user"),),
        ("look up user {id}", "find the user with the id {id}", "get user {id}", "show me user number {id}"),
        ("who is user {id}", "who is the user with the id {id}", "who has the user id {id}"),
        ("Find user {id}.", "Who is user number {id}?"),
        "name",
        True,
    ),
    Kind(
        "book_flight",
        ("Book a flight.", "Books a flight between two cities"),
        (
            Parameter("from origin start", "string", words.city, "From"),
            Parameter("to target", "string", words.city, "To"),
            Parameter("date day", "string", words.date, "Date"),
        ),
        (
            "book a flight from {from} to {to} on {date}",
            "book me a flight to {to} from {from} on {date}",
            "get me a flight from {from} to {to} for {date}",
            "on {date}, fly me from {from} to {to}",
        ),
        (),
        ("I need a flight to {to} from {from} on {date}.", "Fly me from {from} to {to} on {date}."),
        "done",
    ),
    Kind(
        "play_song",
        ("Play a song.", "Plays music", ""),
        (Parameter("title song name", "string", words.title, "Song"),),
        ("play {title}", "play the song {title}", 'play "{title}"', "put on the song {title}"),
        (),
        ("The song to play is {title}.", "The next song is {title}, play it."),
        "done",
        True,
    ),
    Kind(
        "set_light",
        ("Switch a light.", "Turns the light in a room on or off"),
        (
            Parameter("room", "string", words.noun, "Room"),
            Parameter("on", "boolean", lambda d: d.chance(0.5), "On?"),
        ),
        (
            "turn {on} the light in the {room}",
            "switch the light in the {room} {on}",
            "turn the {room} light {on}",
            "turn the light in the {room} {on}",
        ),
        (),
        ("Switch {on} the light in the {room}.", "Light {on} in the {room}"),
        "done",
        notes=("{room} light {on}",),
    ),
    Kind(
        "get_price",
        ("Get the price of an item.", "Price of a thing", ""),
        (Parameter("item product name", "string", words.thing, "Item"),),
        ("tell me the price of the {item}", "find the price of the {item}", "look up what the {item} costs"),
        (
            "what is the price of the {item}",
            "how much is the {item}",
            "what does the {item} cost",
            "how much does the {item} cost",
        ),
        ("Show me the price of the {item}.", "What is the cost of the {item}?"),
        "number",
    ),
    Kind(
        "count_words",
        ("Count the words of a text.", "Number of words in a text"),
        (Parameter("text", "string", lambda d: words.phrase(d, 2, 4), "Text"),),
        ('count the words in "{text}"', "count the words of: {text}", "count the words in this text: {text}"),
        ('how many words are in "{text}"', 'how many words does "{text}" have'),
        ('Tell me how many words are in "{text}".', "Count how many words this has: {text}"),
        "number",
    ),
    Kind(
        "add_task",
        ("Add a task to the list.", "Puts a task on the list"),
        (
            Parameter("task name", "string", lambda d: f"{words.verb(d)} the {words.noun(d)}", "Task"),
            Parameter("priority", *one_of("low", "high", "normal"), "Priority", " with {priority} priority"),
        ),
        (
            'add the task "{task}"',
            'add "{task}" to my list',
            'put the task "{task}" on my list',
            "add the task {task}",
        ),
        (),
        ('Put "{task}" on the list', 'I have a new task: "{task}"'),
        "done",
        notes=('new task: "{task}"',),
    ),
    Kind(
        "get_news",
        ("Get the news on a topic.", "Latest news"),
        (Parameter("topic subject", "string", words.noun, "Topic"),),
        (
            "tell me the news about the {topic}",
            "get news about the {topic}",
            "show the latest news on the {topic}",
        ),
        ("what is the news about the {topic}", "what is new about the {topic}", "news on the {topic}"),
        ("What are the latest news on the {topic}?", "Can you get the news about the {topic}?"),
        "words",
        True,
    ),
    Kind(
        "roll_dice",
        ("Roll a dice.", "Rolls a dice with some sides"),
        (Parameter("sides", "integer", _small(2, 100), "Sides"),),
        ("roll a dice with {sides} sides", "roll a {sides} sided dice", "throw a dice of {sides} sides"),
        (),
        ("I want to roll a dice of {sides} sides.", "Throw the {sides} sided dice."),
        "number",
    ),
    Kind(
        "order_food",
        ("Order food.", "Orders a meal", ""),
        (
            Parameter("food dish item", "string", words.thing, "Food"),
            Parameter("count quantity", "integer", _small(2, 20), "How many"),
        ),
        ("order {count} of the {food}", "order {count} times {food}", "get me {count} times {food}"),
        (),
        ("I want {count} times {food}.", "Order for me {count} of the {food}."),
        "done",
    ),
    Kind(
        "call_person",
        ("Call a person.", "Calls somebody by phone"),
        (
            Parameter(
                "name person contact",
                "string",
                lambda d: d.choice([words.first_name, words.full_name])(d),
                "Who",
            ),
        ),
        ("call {name}", "phone {name}", "call {name} on the phone", "make a call to {name}"),
        (),
        ("I want to call {name}.", "I need {name} on the phone."),
        "done",
        True,
    ),
    Kind(
        "set_volume",
        ("Set the volume.", "Sets how loud the music is"),
        (Parameter("level volume", "integer", _small(0, 100), "Level"),),
        ("set the volume to {level}", "turn the volume to {level}", "change the volume to {level}"),
        (),
        ("Make the volume {level}.", "I want the volume at {level}."),
        "done",
        notes=("volume {level}", "volume to {level}", "volume at {level}"),
    ),
    Kind(
        "get_distance",
        ("Distance between two cities.", "How far one city is from another"),
        (
            Parameter("start origin from", "string", words.city, "From"),
            Parameter("end target to", "string", words.city, "To"),
        ),
        ("find the distance from {start} to {end}", "tell me how far it is from {start} to {end}"),
        (
            "how far is it from {start} to {end}",
            "what is the distance from {start} to {end}",
            "how far is {end} from {start}",
        ),
        ("Get the distance from {start} to {end}.", "Can you find how far {end} is from {start}?"),
        "number",
    ),
]
_WITH_NUMBERS = ("add", "multiply", "count_words")

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


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


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
        slots["to"] = d.choice([each for each in _CURRENCIES if each != slots["from"]])
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
    "Please now {c} with {a}.",
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
        listing(
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


# ---- results, and what is said of them

_SKY = [
    "sunny",
    "cloudy",
    "rain",
    "snow",
    "windy",
    "clear",
    "fog",
    "light rain",
    "warm",
    "cold",
    "storm",
    "dry",
]
_DONE = ["ok", "OK", "done", "Done", "success", "sent", "saved", "created", "true", "ready"]
_ERRORS = [
    "not found",
    "file not found",
    "no such file",
    "timeout",
    "access denied",
    "no connection",
    "bad request",
    "unknown city",
    "not allowed",
    "no internet",
    "server is down",
    "too many requests",
    "invalid id",
    "no such user",
    "permission denied",
    "out of memory",
    "busy",
    "wrong password",
    "limit reached",
    "connection lost",
]


def outcome(d: Draw, asked: Asked) -> tuple[str, str]:
    """What the tool gave back, and what the assistant says of it. The rules:
    a sentence is repeated; a JSON object is said key by key; weather and time say where; an action that
    went well is "Done."; anything else is "The result is ...\""""
    kind = asked.kind.result if asked.kind else d.choice(["words", "number", "done"])
    if d.chance(0.12):
        sentence = upper_first(words.phrase(d, 2, 5)) + "."
        return sentence, sentence
    if d.chance(0.2):
        keys = list(
            dict.fromkeys(
                [
                    d.choice(
                        [
                            "temperature",
                            "price",
                            "result",
                            "total",
                            "value",
                            "count",
                            "status",
                            "name",
                            "wind",
                            words.word(d),
                        ]
                    )
                    for _ in range(d.choice([1, 1, 2]))
                ]
            )
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


# ---- rows


def _ends(call: Message) -> Callable[[Message], bool]:
    """A short answer in one line of text that calls nothing."""
    return lambda message: (
        "\n" not in message["content"] and len(message["content"]) < 60 + 2 * len(call["content"])
    )


def _spoken(messages: Sequence[Message], tools: Sequence[Tool]) -> Sample:
    return Sample(messages, tools=tools, form=_ends(messages[-1]))


def choose(d: Draw) -> Sample:
    """One tool of several, and its arguments; sometimes after one or two rounds with the same tools."""
    rounds = d.choice([1] * 14 + [2, 2, 3])
    asked, tools = requests(d, rounds, large_size)
    last = asked[-1]
    return Sample(
        [*opening(d), *earlier(d, asked[:-1]), user(last.text), calls((last.name, last.arguments))],
        tools=tools,
    )


_BARE_ASKS = {
    "get_weather": ["the weather", "weather", "weather information"],
    "get_time": ["the time", "the current time"],
    "get_price": ["the price", "a price"],
    "lookup_user": ["a user", "the user"],
    "play_song": ["a song", "some music"],
    "read_file": ["a file", "the file"],
}
_BARE_QUESTIONS = {
    "get_weather": [
        "What's the weather like?",
        "What is the weather?",
        "How is the weather?",
        "What's the weather?",
        "What is the weather like?",
        "How is the weather today?",
        "what's the weather like",
        "Weather?",
    ],
    "get_time": ["What time is it?", "What is the time?", "How late is it?", "Time?"],
    "get_price": ["What is the price?", "How much is it?", "What does it cost?"],
    "lookup_user": ["Who is the user?", "Which user is it?", "Look up the user."],
    "play_song": ["Play a song.", "Can you play a song?", "Play music."],
    "read_file": ["Read the file.", "What is in the file?", "Open the file."],
}
_BARE_FORMS = [
    f"{start} {{x}}{end}"
    for start in [
        "Tell me about",
        "Please get",
        "I need",
        "I want",
        "Can you get me",
        "Get me",
        "Could you get",
    ]
    for end in ["", ".", "!", ", please."]
]


def ask_back(d: Draw) -> Sample:
    """A request that leaves out the one thing that the tool must know: the assistant asks for it."""
    boxed = tool_box(d, d.choice([0, 1, 1, 1, 2]), without=list(_BARE_ASKS))
    about = d.choice(["get_weather", "get_weather", *_BARE_ASKS])
    kind = next(each for each in KINDS if each.name == about)
    tool = defined(d, kind)
    thing = d.choice(_BARE_ASKS[about])
    forms = [
        *_BARE_QUESTIONS[about] * 5,
        *(form.format(x=thing) for form in _BARE_FORMS),
        # never trained:
        f"Hello! I want {thing}, please.",
        f"Please tell me about {thing}.",
    ]
    missing = tool.named[kind.parameters[0].slot].replace("_", " ")
    tools = d.shuffled([tool.tool, *(each.tool for each in boxed)])
    messages = [*opening(d), user(d.wording(forms)), says(f"Which {missing}?")]
    if d.chance(0.25):  # and then the user says it
        value = kind.parameters[0].draw(d)
        said = d.choice(["{v}", "{v}.", "{v}, please.", "In {v}." if missing == "city" else "{v}!"]).format(
            v=value
        )
        messages += [user(said), calls((tool.name, {tool.named[kind.parameters[0].slot]: value}))]
        return Sample(messages, tools=tools)
    return _spoken(messages, tools)


_UNKNOWN = [
    "name of my {t}",
    "name of my {p}",
    "color of my {t}",
    "age of my {p}",
    "birthday of my {p}",
    "size of my {t}",
]
_PEOPLE = ["cat", "dog", "friend", "sister", "brother", "teacher", "mother", "father", "doctor"]


_SUMS = [
    "What is {a} + {b}?", "What is {a}+{b}?", "{a} + {b}", "{a}+{b}=", "{a} + {b} =", "{a} plus {b}?",
    "How much is {a} + {b}?", "what is {a} + {b}", "Add {a} and {b}.", "What is {a} plus {b}?",
    "Please add {a} and {b}.", "How much is {a} plus {b}?", "What's {a} + {b}?", "What's {a}+{b}?",
    "Tell me {a} + {b}.", "What is the sum of {a} and {b}?", "Find the sum of {a} and {b}.",
    "Give the sum of {a} and {b}.", "Can you add {a} and {b}?",
    # never trained:
    "Please give the sum of {a} and {b}.", "Can you find the sum of {a} and {b}?",
]  # fmt: skip
_OF_MINE = [
    "What is the {x}?", "what is the {x}?", "Tell me the {x}.", "Please tell me the {x}.", "What's the {x}?",
    "Do you know the {x}?", "Can you tell me the {x}?", "I want to know the {x}.", "The {x}?", "Say the {x}.",
    "What was the {x}?", "Hi, what is the {x}?",
    # never trained:
    "Please, do you know the {x}?", "Hello, can you tell me the {x}?",
]  # fmt: skip
_REPEAT = [
    "Repeat: {x}", "Repeat this: {x}", "Say: {x}", "Please repeat: {x}", 'Repeat "{x}"', 'Say "{x}"',
    "Repeat after me: {x}", "Say this: {x}", 'Please say "{x}"', "repeat: {x}", "Can you repeat this: {x}",
    "Repeat the text: {x}", "I want you to say: {x}", "Please repeat this: {x}",
    # never trained:
    "I want you to repeat this: {x}", 'Please repeat the text "{x}"',
]  # fmt: skip


def none(d: Draw) -> Sample:
    """Tools are there, but what the user says needs none: the answer is the one without tools."""
    boxed = tool_box(d, size(d), without=_WITH_NUMBERS)
    tools = [each.tool for each in boxed] + ([invented_tool(d)[0]] if d.chance(0.2) else [])
    kind = d.choice(["hello", "thanks", "sum", "unknown", "repeat"])
    if kind == "hello":
        text, said = d.wording(HELLO), "Hello! How can I help?"
    elif kind == "thanks":
        text, said = d.wording(THANKS), "You are welcome."
    elif kind == "sum":
        a, b = d.integer(0, 9), d.integer(0, 9)
        text, said = d.wording(_SUMS).format(a=a, b=b), str(a + b)
    elif kind == "unknown":
        about = d.choice(_UNKNOWN).format(t=words.noun(d), p=d.choice(_PEOPLE))
        text, said = d.wording(_OF_MINE).format(x=about), UNKNOWN
    else:
        said = plain_value(d) if d.chance(0.5) else words.phrase(d, 1, 5)
        text = d.wording(_REPEAT).format(x=said)
    history = opening(d)
    if d.chance(0.4 if kind == "thanks" else 0.1):
        history += earlier(d, [ask(d, boxed[0])])
    return _spoken([*history, user(text), says(said)], tools)


class Several(NamedTuple):
    """A request that wants several calls in one turn."""

    text: str
    asked: list[Asked]
    tools: list[Tool]


_TWO = [
    "{a} and {b}.",
    "{A} and {b}",
    "Please {a} and {b}.",
    "{A} and {b}.",
    "Can you {a} and {b}?",
    "{A}, and {b}.",
    "Could you {a} and {b}?",
    "I want you to {a} and {b}.",
    "Please {a} and also {b}.",
    "{A} and also {b}.",
    "Do two things: {a}, {b}.",
    "Two tasks: {a} and {b}.",
    "{A}. Also {b}.",
    "Please {a}. Also {b}.",
    # never trained:
    "Please do two things: {a} and {b}.",
    "Can you {a} and also {b}?",
]


def two_orders(d: Draw, boxed: Sequence[Defined]) -> tuple[list[Asked], list[str]]:
    """What the first two tools are asked for, and the orders that a longer sentence puts together."""
    asked, parts = [], []
    for each in boxed[:2]:
        one = ask(d, each)
        parts.append(
            d.choice(each.kind.orders).format(**{key: shown(key, value) for key, value in one.slots.items()})
        )
        arguments = {each.named[p.slot]: one.slots[p.slot] for p in each.kind.parameters if not p.tail}
        asked.append(one._replace(arguments=arguments))
    return asked, parts


def several(d: Draw) -> Several:
    """One tool for two or three values, or two tools for one each."""
    if d.chance(0.55):
        kind = d.choice([each for each in KINDS if each.many])
        tool = defined(d, kind)
        first = kind.parameters[0]
        values = list(dict.fromkeys(first.draw(d) for _ in range(d.choice([2, 2, 2, 3]))))
        text = d.wording(forms_of(kind)).format(**{first.slot: listing(d, [str(each) for each in values])})
        asked = [
            Asked("", tool.name, {tool.named[first.slot]: each}, kind, {first.slot: each}) for each in values
        ]
        others = tool_box(d, size(d) - 1, without=[kind.name])
        return Several(text, asked, d.shuffled([tool.tool, *(each.tool for each in others)]))
    boxed = tool_box(d, d.choice([2, 2, 3]))
    asked, parts = two_orders(d, boxed)
    text = d.wording(_TWO).format(a=parts[0], b=parts[1], A=upper_first(parts[0]))
    return Several(text, asked, d.shuffled([each.tool for each in boxed]))


def parallel(d: Draw) -> Sample:
    """Two or three calls in one turn, in the order of the request."""
    want = several(d)
    return Sample(
        [*opening(d), user(want.text), calls(*((each.name, each.arguments) for each in want.asked))],
        tools=want.tools,
    )


def answered(d: Draw, want: Several) -> Sample:
    """The calls of a request, their results, and what is said of them."""
    told = [outcome(d, each) for each in want.asked]
    return _spoken(
        [
            *opening(d),
            user(want.text),
            calls(*((each.name, each.arguments) for each in want.asked)),
            *(result(got, at) for at, (got, _) in enumerate(told)),
            says(together([said for _, said in told])),
        ],
        want.tools,
    )


def answer(d: Draw) -> Sample:
    """After the result, or after several, what is said of it."""
    if d.chance(0.3):
        return answered(d, several(d))
    rounds = d.choice([1] * 12 + [2, 3])
    asked, tools = requests(d, rounds)
    last = asked[-1]
    got, said = outcome(d, last)
    return _spoken(
        [
            *opening(d),
            *earlier(d, asked[:-1]),
            user(last.text),
            calls((last.name, last.arguments)),
            result(got),
            says(said),
        ],
        tools,
    )


def error(d: Draw) -> Sample:
    """After a failure: which tool failed, and its message."""
    (asked,), tools = requests(d, 1)
    got, said = failure(d, asked)
    return _spoken(
        [*opening(d), user(asked.text), calls((asked.name, asked.arguments)), result(got), says(said)], tools
    )


_FIRST_THEN = [
    "First {a}, then {b}.",
    "First {a}. Then {b}.",
    "{A}, then {b}.",
    "{A}. Then {b}.",
    "Please first {a}, then {b}.",
    "First {a} and then {b}.",
    "Step 1: {a}. Step 2: {b}.",
    "1. {A}\n2. {B}",
    "Can you first {a} and then {b}?",
    "I want you to first {a}, then {b}.",
    "{A} and then {b}.",
    "Please {a}, then {b}.",
    "First {a}, after that {b}.",
    # never trained:
    "Please {a} and then {b}.",
    "I want you to {a}. Then {b}.",
]


def steps(d: Draw) -> Sample:
    """ "First ..., then ...": one call a turn, each after the result of the one before, then what is said."""
    boxed = tool_box(d, d.choice([2, 2, 2, 3]))
    asked, parts = two_orders(d, boxed)
    text = d.wording(_FIRST_THEN).format(
        a=parts[0], b=parts[1], A=upper_first(parts[0]), B=upper_first(parts[1])
    )
    messages = [*opening(d), user(text)]
    told = [outcome(d, each) for each in asked]
    for one, (got, _) in zip(asked, told, strict=True):
        messages += [calls((one.name, one.arguments)), result(got)]
    tools = d.shuffled([each.tool for each in boxed])
    messages.append(says(together([said for _, said in told])))
    cut = d.choice([0, 0, 2])  # the answer that is measured is the last step's call, or what is said
    return Sample(messages[: len(messages) - cut], tools=tools) if cut else _spoken(messages, tools)


def or_forced(make: Family) -> Family:
    """Now and then in the training the call as vLLM's grammar forces it where a client demands a call: a
    list of calls with "parameters", or the arguments alone. The grammar writes the opening, which is what
    tells the model."""

    def made(d: Draw) -> Sample:
        sample = make(d)
        wanted = called(sample.answer)
        if not d.training or not wanted or not d.chance(0.15):
            return sample
        forced: Any = [{"name": name, "parameters": arguments} for name, arguments in wanted]
        begun = '[{"'
        if len(wanted) == 1 and wanted[0][1] and d.chance(0.5):
            forced, begun = wanted[0][1], '{"'
        return replace(sample, messages=[*sample.prompt, says_json(forced)], opening=begun)

    return made


ENTRIES: list[Entry] = [
    Entry("tool: choose", or_forced(choose), bar=0.95, weight=4),
    Entry("tool: none", none, bar=0.95, weight=2),
    Entry("tool: ask back", ask_back, bar=0.95, weight=1),
    Entry("tool: parallel", or_forced(parallel), bar=0.95, weight=2),
    Entry("tool: steps", or_forced(steps), bar=0.95, weight=1.4),
    Entry("tool: answer", answer, bar=0.95, weight=2),
    Entry("tool: error", error, bar=0.95, weight=1),
]
