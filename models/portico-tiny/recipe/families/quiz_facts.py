"""Sentences about people or things, and questions about one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from recipe import words
from recipe.families.framing import UNKNOWN, styled
from recipe.families.quiz import Distinct, Quiz, Room, Unequal, several
from recipe.sample import Draw
from recipe.words import filled, upper_first


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
