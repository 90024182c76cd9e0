"""Looking a value up: in a block of pairs, in short sentences about several things, in a long document.

The answer is the bare value as it stands in the text (no sentence, no quotation marks, no article before a
place), the key where the key is asked for, and "I do not know." where the text does not say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from recipe import words
from recipe.families.framing import UNKNOWN, opening, styled, system_line
from recipe.sample import Draw, Entry, Message, Sample, says, system, user
from recipe.words import filled, lower_first, upper_first

T = TypeVar("T")

# ---- how much


_FREQUENT = frozenset(
    """the is and in of are has live lives likes with key value as a an at to from code color city secret file
    user status action size works work job years old now speaks can speak uses was born comes best drinks
    drink every day home owns house flat belongs costs stands found price owned by euros dollars coins name
    id request task info warn error json html csv txt py com""".split()
)
_KNOWN = frozenset([*words.NOUNS, *words.ADJECTIVES, *words.VERBS, *words.UNITS])
_ATOMS = re.compile(r"[A-Z]?[a-z]+|[A-Z]|(?: ?)[0-9]|[^\sA-Za-z0-9]|\n")


def estimate(text: str) -> int:
    """About how many tokens: one for each digit, mark, capital and frequent word, more for rarer words."""
    total = 0.0
    for atom in _ATOMS.findall(text):
        if not atom.isalpha() or len(atom) == 1:
            total += len(atom)  # a space before a digit is a token of its own
        elif atom.lower() in _FREQUENT:
            total += 1
        elif atom in _KNOWN:
            total += max(1.0, len(atom) / 2.35)
        else:
            total += max(1.0, len(atom) / 1.8)
    return round(total)


def about(d: Draw, tokens: int) -> int:
    """A length near `tokens` to aim a document at: the question and the template's marks come on top."""
    return round(tokens * d.random.uniform(0.87, 0.96)) - 40


@dataclass
class Room:
    """How much a document may hold: so many items, or about so many tokens."""

    items: int = 0
    tokens: int = 0

    def fill(self, make: Callable[[], T], shown: Callable[[T], str]) -> list[T]:
        found: list[T] = []
        size = 0
        while len(found) < self.items or size < self.tokens:
            found.append(make())
            size += estimate(shown(found[-1])) + 1
        return found


class Distinct:
    """Draws that never come twice, nor as a part of one another (which would make a question ambiguous)."""

    def __init__(self, d: Draw) -> None:
        self.d = d
        self.taken: list[str] = []

    def __call__(self, make: Callable[[Draw], str]) -> str:
        for attempt in range(40):
            drawn = make(self.d) if attempt < 30 else words.invented(self.d, (3, 5))
            low = drawn.lower()
            if not any(low == other or self._within(low, other) for other in self.taken):
                break
        self.taken.append(drawn.lower())
        return drawn

    @staticmethod
    def _within(one: str, other: str) -> bool:
        return min(len(one), len(other)) > 2 and (one in other or other in one)


class Unequal(Distinct):
    """Draws that never come twice; parts of one another are fine (numbers)."""

    def __call__(self, make: Callable[[Draw], str]) -> str:
        drawn, attempts = make(self.d), 0
        while drawn.lower() in self.taken:  # a list may have too few for a long document
            attempts += 1
            drawn = make(self.d) if attempts < 30 else words.invented(self.d, (2, 3))
        self.taken.append(drawn.lower())
        return drawn


@dataclass(frozen=True)
class Quiz:
    """A document in parts, and questions about it with their answers: one, in the training several, since a
    question about a document that is there already teaches as much as one with a document of its own."""

    parts: list[str]
    asks: list[tuple[str, str]]
    join: str = "\n"
    head: str = ""
    tail: str = ""

    @property
    def text(self) -> str:
        return self.head + self.join.join(self.parts) + self.tail


def several(d: Draw, room: Room, ask: Callable[[], T]) -> list[T]:
    """What `ask` gives, once for the evaluation, and in the training as often as the document is worth."""
    if not d.training:
        return [ask()]
    return [ask() for _ in range(d.integer(4, 10) if room.tokens else d.choice([1, 1, 2, 2, 3, 4]))]


# ---- pairs

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


def _short_number(d: Draw) -> str:
    return str(words.number(d))


def _long_number(d: Draw) -> str:
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
    _short_number,
    words.word,
    words.first_name,
    words.city,
    _price,
    words.thing,
]
LONG_VALUES = [words.string_of, _long_number, words.full_name, _price, words.thing, words.value]


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


# ---- sentences


@dataclass(frozen=True)
class Attribute:
    """What a sentence can say of somebody or something, and how it is asked for.

    clauses: what follows the name, with {v}. special: questions of its own, {e} being who or what; the last
    is for the evaluation alone. who: the clauses that may be asked for the other way round ("Who ...?").
    """

    label: str
    draw: Callable[[Draw], str]
    clauses: Sequence[str]
    special: Sequence[str]
    who: Sequence[str] = ()


GENERAL = [
    "What is the {a} of {e}?",
    "What is the {a} of {e}?",
    "Which {a} does {e} have?",
    "Which {a} is given for {e}?",
    "Give the {a} of {e}.",
    "Give me the {a} of {e}.",
    "Tell me the {a} of {e}.",
    "Name the {a} of {e}.",
    "Find the {a} of {e}.",
    "Look up the {a} of {e}.",
    "Say the {a} of {e}.",
    "Write only the {a} of {e}.",
    "Do you know the {a} of {e}?",
    "I want to know the {a} of {e}.",
    "I need the {a} of {e}.",
    "The {a} of {e}?",
    "{e}: {a}?",
    "Question: What is the {a} of {e}?\nAnswer:",
    "What does the text say about the {a} of {e}?",
]
GENERAL_UNSEEN = "Tell me what the {a} of {e} is."
GENERAL_PERSON = [
    "What is {e}'s {a}?",
    "What is {e}'s {a}?",
    "{e}'s {a}?",
    "Give {e}'s {a}.",
    "Tell me {e}'s {a}.",
]
WHO = [
    "Who {c}?",
    "Who {c}?",
    "Who is it that {c}?",
    "Which person {c}?",
    "Which of them {c}?",
    "Tell me who {c}.",
    "Tell me the name of the person who {c}.",
    "Say who {c}.",
    "Name the person who {c}.",
    "Give the name of the one who {c}.",
    "Find the person who {c}.",
    "Do you know who {c}?",
    "I want to know who {c}.",
    "Question: Who {c}?\nAnswer:",
    "What is the name of the person who {c}?",
    "Write the name of the one who {c}.",
    "Give me the name of the person who {c}.",
    "Tell me which person {c}.",
]


DRINKS = "tea coffee water juice milk lemonade cocoa cider soda beer wine".split()
PETS = "cat dog horse bird fish rabbit hen goat snake mouse duck pony frog cow".split()
PLACES = "kitchen garden cabin office school shop hotel library museum castle attic hall".split()
PEOPLE = [
    Attribute(
        "city",
        words.city,
        ["lives in {v}", "lives in {v}", "has a house in {v}", "has a flat in {v}"],
        ["Where does {e} live?"] * 6
        + ["In which city does {e} live?", "What city does {e} live in?", "Which city does {e} live in?"]
        + [
            "Where is the house of {e}?",
            "{e} lives where?",
            "{e} lives in which city?",
            "Say where {e} lives.",
        ]
        + ["Tell me where {e} lives.", "Do you know where {e} lives?", "Tell me in which city {e} lives."],
        ["lives in {v}"],
    ),
    Attribute(
        "job",
        words.job,
        ["is {av}", "is {av}", "works as {av}", "has a job as {av}"],
        [
            "What does {e} do?",
            "What does {e} work as?",
            "{e} works as what?",
            "What job does {e} have?",
            "As what does {e} work?",
            "Tell me what {e} works as.",
            "Do you know what {e} works as?",
            "Say what {e} works as.",
        ],
        ["is {av}", "works as {av}"],
    ),
    Attribute(
        "age",
        lambda d: str(d.integer(2, 99)),
        ["is {v} years old", "is {v} years old", "is {v}", "is now {v} years old"],
        ["How old is {e}?"] * 5
        + ["Tell me how old {e} is.", "Say how old {e} is.", "How many years old is {e}?", "{e} is how old?"]
        + ["Do you know how old {e} is?"],
        ["is {v} years old"],
    ),
    Attribute(
        "favorite color",
        words.color,
        ["likes the color {v}", "likes the color {v} best"],
        [
            "What color does {e} like?",
            "Which color does {e} like?",
            "Which color does {e} like best?",
            "Tell me which color {e} likes.",
            "Say what color {e} likes.",
            "Tell me what color {e} likes.",
        ],
        ["likes the color {v}"],
    ),
    Attribute(
        "language",
        words.language,
        ["speaks {v}", "speaks {v}", "can speak {v}"],
        [
            "What does {e} speak?",
            "Which language does {e} speak?",
            "What language does {e} speak?",
            "{e} speaks which language?",
            "Tell me which language {e} speaks.",
            "Say what language {e} speaks.",
            "Tell me what language {e} speaks.",
        ],
        ["speaks {v}"],
    ),
    Attribute(
        "code",
        words.string_of,
        ["has the code {v}", "uses the code {v}", "has the secret code {v}"],
        [
            "Which code does {e} use?",
            "What code does {e} have?",
            "What code does {e} use?",
            "{e} uses which code?",
            "Tell me which code {e} has.",
            "Tell me which code {e} uses.",
        ],
        ["has the code {v}"],
    ),
    Attribute(
        "country",
        lambda d: words.listed(d, words.COUNTRIES),
        ["comes from {v}", "is from {v}", "was born in {v}"],
        [
            "Where is {e} from?",
            "Where does {e} come from?",
            "Which country is {e} from?",
            "{e} is from where?",
            "What country does {e} come from?",
            "Tell me where {e} is from.",
            "Say where {e} is from.",
            "Tell me which country {e} is from.",
        ],
        ["comes from {v}", "is from {v}"],
    ),
    Attribute(
        "favorite drink",
        lambda d: d.choice(DRINKS),
        ["likes to drink {v}", "drinks {v}", "drinks {v} every day"],
        [
            "What does {e} drink?",
            "What does {e} like to drink?",
            "{e} drinks what?",
            "Say what {e} drinks.",
            "Tell me what {e} drinks.",
            "Tell me what {e} likes to drink.",
        ],
        ["drinks {v}"],
    ),
    Attribute(
        "pet",
        lambda d: d.choice(PETS),
        ["has {av}", "has {av} at home", "owns {av}"],
        [
            "What pet does {e} have?",
            "Which animal does {e} have?",
            "What animal does {e} own?",
            "{e} has which animal?",
            "Say which animal {e} has.",
            "Tell me which animal {e} has.",
        ],
        ["has {av}", "owns {av}"],
    ),
]
THINGS = [
    Attribute(
        "color",
        words.color,
        ["is {v}", "has the color {v}"],
        [
            "What color is {e}?",
            "What color is {e}?",
            "Which color is {e}?",
            "What color does {e} have?",
            "Tell me what color {e} is.",
            "Say what color {e} is.",
            "Tell me which color {e} is.",
        ],
    ),
    Attribute(
        "place",
        lambda d: d.choice(PLACES),
        ["is in the {v}", "stands in the {v}", "was found in the {v}"],
        [
            "Where is {e}?",
            "Where is {e}?",
            "Where is {e}?",
            "In which place is {e}?",
            "{e} is where?",
            "Where can I find {e}?",
            "Say where {e} is.",
            "Tell me where {e} is.",
            "Tell me where I can find {e}.",
        ],
    ),
    Attribute(
        "price",
        lambda d: f"{d.integer(1, 999)} {d.choice(['euros', 'dollars', 'coins'])}",
        ["costs {v}", "costs {v}", "has a price of {v}"],
        [
            "How much does {e} cost?",
            "How much is {e}?",
            "What does {e} cost?",
            "{e} costs how much?",
            "Say what {e} costs.",
            "Tell me how much {e} costs.",
            "Tell me what {e} costs.",
        ],
    ),
    Attribute(
        "owner",
        words.first_name,
        ["belongs to {v}", "is owned by {v}", "belongs to {v}"],
        [
            "Who owns {e}?",
            "Who owns {e}?",
            "To whom does {e} belong?",
            "Who is the owner of {e}?",
            "{e} belongs to whom?",
            "Say who owns {e}.",
            "Do you know who owns {e}?",
            "Tell me who owns {e}.",
        ],
    ),
]


def questions(attribute: Attribute, person: bool) -> list[str]:
    """The ways to ask for an attribute, the two for the evaluation at the end."""
    trained = [*list(attribute.special[:-1]) * 2, *GENERAL, *(GENERAL_PERSON if person else ())]
    return [*trained, attribute.special[-1], GENERAL_UNSEEN]


# In a short text no two have the same of these, so that most questions can be turned round.
MOSTLY_APART = ("city", "code", "age", "owner", "price", "job")


@dataclass
class Subject:
    """Who or what, the values by label, and what is said of each."""

    name: str
    known: dict[str, str]
    clauses: dict[str, str]
    in_one: bool

    @property
    def sentences(self) -> list[str]:
        """The clauses one a sentence, or all in one."""
        who = upper_first(self.name)
        said = [filled(clause, self.known[label]) for label, clause in self.clauses.items()]
        return [f"{who} {words.prose(said)}."] if self.in_one else [f"{who} {clause}." for clause in said]


def alone(
    asked: dict[str, str], others: Iterable[dict[str, str]], label: str, draw: Callable[[], str]
) -> None:
    """Draws the label's value anew for all others that share it with `asked`: no question may be right by what
    is said of another."""
    for other in others:
        while other is not asked and other.get(label) == asked[label]:
            other[label] = draw()


def facts(d: Draw, room: Room) -> Quiz:
    """Sentences about people or things, and a question about one of them."""
    person, long = d.chance(0.7), room.tokens > 0
    attributes = PEOPLE if person else THINGS
    chosen = d.some(attributes, 1, 4)
    distinct = Distinct(d)
    unique = {attribute.label: Unequal(d) for attribute in chosen}

    def entity(d: Draw) -> str:
        if person:
            return words.full_name(d) if long else words.first_name(d)
        return "the " + (f"{words.invented(d)} {words.noun(d)}" if long else words.thing(d))

    def drawn() -> Subject:
        who, known, clauses = distinct(entity), {}, {}
        for attribute in d.some(chosen, min(2, len(chosen)), len(chosen)):
            label = attribute.label
            apart = label in MOSTLY_APART and not long
            known[label] = unique[label](attribute.draw) if apart else attribute.draw(d)
            clauses[label] = d.choice(attribute.clauses)
        return Subject(who, known, clauses, d.chance(0.6))

    found = room.fill(drawn, lambda each: " ".join(each.sentences))

    def ask() -> Callable[[], tuple[str, str]]:
        """The question, to be put when all values stand: the values of others give way to what is asked."""
        subject = d.choice(found)
        attribute = next(each for each in d.shuffled(chosen) if each.label in subject.known)
        label = attribute.label
        alone(subject.known, [each.known for each in found], label, lambda: attribute.draw(d))
        return lambda: put(subject, attribute)

    def put(subject: Subject, attribute: Attribute) -> tuple[str, str]:
        who, value = subject.name, subject.known[attribute.label]
        if person and attribute.who and d.chance(0.17):
            clause = filled(d.choice(attribute.who), value)
            return styled(d, d.wording(WHO)).replace("{c}", clause), who
        if d.chance(0.13):
            value = UNKNOWN
            missing = [each for each in attributes if each not in chosen]
            if missing and d.chance(0.5):
                attribute = d.choice(missing)
            else:
                who = distinct(entity)
        form = styled(d, d.wording(questions(attribute, person)))
        question = form.replace("{a}", attribute.label).replace("{e}", who)
        return upper_first(question) if form.startswith("{e}") else question, value

    asks = several(d, room, ask)
    parts = [sentence for each in found for sentence in each.sentences]
    if not long and d.chance(0.3):
        parts = d.shuffled(parts)
    return Quiz(parts, [each() for each in asks], d.choice([" ", " ", "\n"]))


# ---- other long documents

RETURNED = [
    "What does {k} return?",
    "What does {k}() return?",
    "What does the function {k} return?",
    "Which value does {k} return?",
    "Which value does the function {k} return?",
    "What is the value that {k} returns?",
    "What is returned by {k}?",
    "Tell me what {k} returns.",
    "Tell me what the function {k} returns.",
    "Say what {k} returns.",
    "Find the value that {k} returns.",
    "Give the value that {k} returns.",
    "Look up what {k} returns.",
    "The function {k} returns what?",
    "I want to know what {k} returns.",
    "Do you know what {k} returns?",
    "Give me the value that the function {k} returns.",
    "Tell me which value {k} returns.",
]


def code(d: Draw, room: Room) -> Quiz:
    """A file of small functions that return constants."""
    distinct, unequal = Distinct(d), Unequal(d)

    def drawn() -> tuple[str, str]:
        value = unequal(d.choice([_long_number, words.string_of]))
        return distinct(words.identifier), value

    def shown(pair: tuple[str, str]) -> str:
        constant = pair[1] if pair[1].isdecimal() and str(int(pair[1])) == pair[1] else f'"{pair[1]}"'
        return f"def {pair[0]}():\n    return {constant}\n"

    found = room.fill(drawn, shown)

    def ask() -> tuple[str, str]:
        key, value = d.choice(found)
        if d.chance(0.1):
            key, value = distinct(words.identifier), UNKNOWN
        return styled(d, d.wording(RETURNED)).replace("{k}", key), value

    return Quiz([shown(pair) for pair in found], several(d, room, ask))


def records(d: Draw, room: Room) -> Quiz:
    """Log lines: a time, a level, and fields of which the first tells the line apart."""
    made = {
        "user": words.first_name,
        "file": words.file_name,
        "status": _short_number,
        "city": words.city,
        "action": words.verb,
        "size": _long_number,
    }
    labels = d.some(list(made), 2, 4)
    distinct = Distinct(d)
    first = d.choice(["id", "job", "request", "task"])
    clock = d.integer(0, 30000)

    def key(d: Draw) -> str:
        return d.choice([words.letters(d, 4, 6), words.invented(d, (2, 3)), words.string_of(d)])

    def drawn() -> tuple[str, str, dict[str, str]]:
        nonlocal clock
        clock += d.integer(1, 40)
        time = f"{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"
        head = f"{time} {d.choice(['INFO', 'INFO', 'WARN', 'ERROR'])}"
        return head, distinct(key), {label: made[label](d) for label in labels}

    def shown(item: tuple[str, str, dict[str, str]]) -> str:
        head, who, known = item
        return f"{head} {first}={who} " + " ".join(f"{label}={value}" for label, value in known.items())

    found = room.fill(drawn, shown)
    forms = [*GENERAL, "Which {a} stands in the line of {e}?", "Which {a} is listed for {e}?", GENERAL_UNSEEN]

    def ask() -> Callable[[], tuple[str, str]]:
        _, who, known = d.choice(found)
        label = d.choice(labels)
        alone(known, [each for _, _, each in found], label, lambda: made[label](d))
        return lambda: put(who, label, known[label])

    def put(who: str, label: str, value: str) -> tuple[str, str]:
        if d.chance(0.1):
            who, value = distinct(key), UNKNOWN
        form = styled(d, d.wording(forms))
        return form.replace("{a}", label).replace("{e}", f"{first} {who}"), value

    asks = several(d, room, ask)
    return Quiz([shown(item) for item in found], [each() for each in asks])


# ---- the conversation around a quiz

LEADS = (
    [""] * 8
    + """Here is a list:|Here is a text:|Read this:|Data:|Text:|Context:|Look at this:|Here is what we know:
|Use this:|Here are some facts:|Below is a list.|I have this:|Input:""".replace("\n", "").split("|")
)
ASIDES = [""] * 6 + ["Answer from the text above. ", "Question: ", "Now, ", "My question: "]


def asked(d: Draw, quiz: Quiz) -> Sample:
    """The document before the question, after it, in the system message, or in a turn of its own."""
    before, place = opening(d, talk=0.08), d.random.random()
    first = quiz.asks[0][0]
    lead = d.choice(LEADS)
    text = f"{lead}{d.choice([chr(10), chr(10) * 2, ' '])}{quiz.text}" if lead else quiz.text
    if place < 0.12:
        before = [system(d.choice(["", system_line(d) + "\n\n"]) + text), user(first)]
    elif place < 0.24:
        before += [user(text), says("Noted."), user(first)]
    elif place < 0.36 and not first.endswith(("=", ":", ": ?")):
        before.append(user(first + d.choice(["\n", "\n\n"]) + text))
    else:
        aside = "" if first.startswith("Question") else d.choice(ASIDES)
        question = lower_first(first) if aside == "Now, " and _plain(first) else first
        gap = d.choice([" ", "\n", "\n\n"]) if quiz.join == " " else d.choice(["\n", "\n\n", "\n\n"])
        before.append(user(text + gap + aside + question))
    return answered(before, quiz)


def answered(before: list[Message], quiz: Quiz) -> Sample:
    """The answer to the first question, which `before` ends with, and the questions after it."""
    messages = [*before, says(quiz.asks[0][1])]
    for question, answer in quiz.asks[1:]:
        messages += [user(question), says(answer)]
    return Sample(messages, form=brief(messages[-1]["content"]))


_LOWERED = tuple(
    """What Which Who Where How Give Tell Say Find Look Do Name Write Read Show Return Please Can""".split()
)


def _plain(question: str) -> bool:
    """May the question begin in lower case? Not where it begins with a name."""
    return question.startswith(_LOWERED)


def brief(answer: str) -> Callable[[Message], bool]:
    """One line of as many words as the value has, or the admission."""
    size = len(answer.split())

    def form(got: Message) -> bool:
        said = got["content"].strip()
        return "\n" not in said and (said == UNKNOWN or len(said.split()) == size)

    return form


def look_up(d: Draw) -> Sample:
    return asked(d, pairs(d, Room(items=d.choice([2, 3, 3, 4, 4, 5, 6, 7, 8, 10]))))


def look_up_in_text(d: Draw) -> Sample:
    return asked(d, facts(d, Room(items=d.choice([1, 2, 2, 3, 3, 4, 5, 6]))))


def look_up_at(tokens: int, d: Draw) -> Sample:
    """A document of about so many tokens: pairs, sentences, code, log lines; in one turn or over eight."""
    make = d.choice([pairs, pairs, facts, facts, code, records])
    room = about(d, tokens)
    if make is records:  # its words follow on "=", not on a space, and so take more tokens
        room = room * 9 // 10
    quiz = make(d, Room(tokens=room))
    if d.chance(0.75):
        return asked(d, quiz)
    before = [system(system_line(d))] if d.chance(0.25) else []
    size = len(quiz.parts) // 7 + 1
    for at in range(0, len(quiz.parts), size):
        text = quiz.join.join(quiz.parts[at : at + size])
        before += [
            user(f"{d.choice(['Note this:', 'Here is more:', 'Remember this:', 'And this:'])}\n{text}")
        ]
        before += [says("Noted.")]
    return answered([*before, user(quiz.asks[0][0])], quiz)


ENTRIES: Sequence[Entry] = [
    Entry("look-up", look_up, bar=0.95, share=6, early=10),
    Entry("look-up in text", look_up_in_text, bar=0.95, share=7, early=8),
    Entry("look-up at 1,000 tokens", partial(look_up_at, 1000), bar=0.95, share=3),
    Entry("look-up at 2,000 tokens", partial(look_up_at, 2000), bar=0.95, share=2),
    Entry("look-up at 4,000 tokens", partial(look_up_at, 4000), bar=0.95, share=3),
]
