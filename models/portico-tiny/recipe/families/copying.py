"""Repeating what the request quotes: the drill that teaches a model to copy.

The rules of the answer: exactly the material, without the quotation marks, back quotes or line breaks that set
it off from the request. A final period belongs to the material where the material stands after a colon, above
the request or between quotation marks, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from recipe import words
from recipe.families.framing import opening, styled
from recipe.sample import Draw, Entry, Message, Sample, says, user
from recipe.words import lower_first

# ---- what is repeated


def sentence(d: Draw) -> str:
    """A sentence of 2 to 12 words with punctuation: statements, questions, exclamations, quotes."""
    n, m, name = words.thing(d), words.thing(d), words.first_name(d)
    other, place, verb = words.first_name(d), words.city(d), words.verb(d)
    forms = [
        f"The {n} is {words.adjective(d)}.",
        f"The {n} is near the {m}.",
        f"{name} has a {n} and a {m}.",
        f"{name} and {other} live in {place}.",
        f"{name}, where is the {n}?",
        f"Where is the {n}?",
        f"What is {d.integer(1, 99)} + {d.integer(1, 99)}?",
        f"Who are you, {name}?",
        f"Do not {verb} the {n}!",
        f"Well, {verb} it: {words.value(d)}.",
        f"Hello, {name}!",
        f"Hello {words.word(d)}!",
        f'{name} said "{words.word(d)}" to {other}.',
        f"It's {d.integer(1, 12)} o'clock; {name} isn't here.",
        f"{words.phrase(d, 1, 8).capitalize()}.",
        f"{words.phrase(d, 1, 5).capitalize()}, {words.phrase(d, 1, 5)}!",
        f"{words.phrase(d, 1, 4).capitalize()} ({words.phrase(d, 1, 3)}) {words.phrase(d, 1, 3)}.",
        f"{words.string_of(d)} costs {words.number(d)} euros.",
    ]
    return d.choice(forms)


def code_line(d: Draw) -> str:
    name, other, said = words.identifier(d), words.identifier(d), words.word(d)
    forms = [
        f"{name} = {words.number(d)}",
        f'{name} = "{said}"',
        f'print("{words.phrase(d, 1, 3)}")',
        f"def {name}({other}):",
        f"return {name} + {d.integer(0, 99)}",
        f"for {said} in {name}:",
        f"if {name} > {words.number(d)}:",
        f"import {said}",
        f"{name}({other}, {d.integer(0, 9)})",
        f"{name}[{d.integer(0, 9)}]",
        f"cat {words.path(d)}",
        f"cd {words.path(d)}",
        f"python {words.path(d, 'py')}",
        f"SELECT {said} FROM {name};",
        f"<b>{said}</b>",
        json.dumps({said: d.choice([words.word(d), d.integer(0, 99)])}),
        json.dumps([d.integer(0, 20) for _ in range(d.integer(1, 5))]),
    ]
    return d.choice(forms)


def token(d: Draw) -> tuple[str, str]:
    """(material without spaces and without punctuation at its end, what it is)."""
    kind = d.integer(0, 9)
    if kind <= 2:
        return d.choice([words.word, words.noun, words.invented])(d), "word"
    if kind == 3:
        return d.choice([words.first_name, words.city])(d), "name"
    if kind == 4:
        return words.invented(d).upper(), "word"
    if kind <= 6:
        return words.string_of(d), d.choice(["code", "string"])
    if kind == 7:
        return d.choice([str(words.number(d)), str(d.integer(0, 10 ** d.integer(1, 9)))]), "number"
    if kind == 8:
        return words.letters(d, 1, 12), "string"
    return d.choice([(words.email(d), "address"), (words.path(d), "path"), (words.date(d), "date")])


COMMON = """hello world|hello world|Hello, world!|Hello|hello|OK|ok|Yes|No|yes|no|pong|ping|ready|done|Done.|test|stop|42
|Good morning!|I am here.|I am ready.|abc|ABC|123|banana|It works!|All is well.""".replace("\n", "").split(
    "|"
)


def material(d: Draw) -> tuple[str, str]:
    """(something to repeat on one line, what it is)."""
    if d.training and d.chance(0.04):  # what people test a model with; never in the evaluation
        return d.choice(COMMON), "text"
    kind = d.integer(0, 19)
    if kind <= 6:
        return token(d)
    if kind <= 10:
        return words.phrase(d, 2, d.choice([2, 3, 4, 6, 12])), d.choice(["phrase", "text", "words"])
    if kind == 11:
        cased: Callable[[str], str] = d.choice([str.title, str.upper, str.capitalize])
        return cased(words.phrase(d, 1, 5)), d.choice(["phrase", "text", "words"])
    if kind <= 15:
        return sentence(d), d.choice(["sentence", "text"])
    if kind == 16:
        return code_line(d), d.choice(["code", "line"])
    if kind == 17:
        return words.full_name(d), "name"
    if kind == 18:
        return ", ".join(words.value(d) for _ in range(d.integer(2, 4))), d.choice(["list", "text"])
    return " ".join(str(words.number(d)) for _ in range(d.integer(2, 6))), "numbers"


# ---- how it is asked: after a colon, between quotation marks, bare, or above the request

ASKS = """Repeat|Repeat after me|Repeat exactly|Say|Say exactly|Echo|Copy|Write|Write exactly|Output|Print|Type|Return
|Quote|Reply with|Reply with exactly|Reply only with|Answer with|Answer with exactly|Answer only with|Respond with
|Respond with exactly|Respond only with""".replace("\n", "").split("|")
OBJECTS = ["", "", " this", " the following", " the following {label}", " this {label}", " the {label}"]
LEADS = ["", "", "", "", "Please ", "Can you ", "Could you ", "Now "]
ENDS = ["", "", "", "", " and nothing else", " without changes", ", word for word", " and add nothing"]


def _after_colon() -> list[str]:
    """Every ask with every object, the leads, ends and separators dealt out in turn."""
    forms, at = [], 0
    for ask in ASKS:
        for thing in OBJECTS:
            lead, end = LEADS[at % len(LEADS)], ENDS[at * 3 % len(ENDS)] if thing else ""
            separator = [": ", ": ", ": ", ":\n", ":\n\n", ': "', ":\n```\n"][at * 5 % 7]
            close = {': "': '"', ":\n```\n": "\n```"}.get(separator, "")
            forms.append(f"{lead}{lower_first(ask) if lead else ask}{thing}{end}{separator}{{x}}{close}")
            at += 1
    return forms


QUOTED = [
    'Say "{x}".',
    'Say "{x}"',
    'Repeat "{x}".',
    'Repeat "{x}"',
    'Repeat "{x}" after me.',
    'Echo "{x}".',
    'Echo "{x}"',
    'Write "{x}".',
    'Just say "{x}".',
    'Only say "{x}".',
    'Say exactly "{x}".',
    'Say exactly "{x}" and nothing else.',
    'Say the {label} "{x}".',
    'Say only the {label} "{x}" and stop.',
    'Repeat the {label} "{x}".',
    'Repeat the {label} "{x}", please.',
    'Repeat the {label} "{x}" and nothing else.',
    'Copy the {label} "{x}".',
    'Please say "{x}".',
    'Please repeat "{x}".',
    'Please write the {label} "{x}".',
    'Can you say "{x}"?',
    'Can you repeat "{x}"?',
    'Can you repeat the {label} "{x}" for me?',
    'Could you say "{x}" for me?',
    'Reply with "{x}".',
    'Reply with "{x}" and nothing else.',
    'Reply with the {label} "{x}" only.',
    'Answer "{x}".',
    'Answer with "{x}" and add nothing.',
    'Respond with "{x}".',
    'Your answer must be "{x}".',
    'I want you to say "{x}".',
    'I want to read "{x}".',
    'My text is "{x}". Repeat it.',
    'Here is a {label}: "{x}". Say it back to me.',
    "Say '{x}'.",
    "Repeat '{x}'.",
    "Echo '{x}'",
    "Write '{x}' and nothing else.",
    "Say `{x}`.",
    "Repeat `{x}`",
    "Echo `{x}`.",
    "Print `{x}`",
    '"{x}" - repeat this.',
    '"{x}": say that.',
    'say "{x}"',
    'repeat "{x}" exactly',
    'echo "{x}" please',
]
BARE = [
    "Say {x}",
    "Say {x}",
    "Say {x}.",
    "say {x}",
    "Repeat {x}",
    "Repeat {x}.",
    "repeat {x}",
    "Echo {x}",
    "echo {x}",
    "Write {x}.",
    "Please say {x}.",
    "Say {x}, please.",
    "Say the {label} {x}.",
    "Repeat the {label} {x}.",
    "Repeat the {label} {x} after me.",
    "Write the {label} {x}.",
    "Write only the {label} {x}.",
    "Can you say {x}?",
    "Can you repeat {x}?",
    "Can you write the {label} {x}?",
    "Just say {x}.",
    "Only say {x} and stop.",
    "Reply with {x}.",
    "Reply with {x} only.",
    "Reply with the {label} {x} and nothing else.",
    "Answer with {x}.",
    "Answer with the single {label} {x}.",
    "Respond with {x}.",
    "Your answer must be {x}.",
    "Say {x} and nothing else.",
]
ABOVE = [
    "{x}\n\nRepeat the {label} above.",
    "{x}\n\nRepeat the text above.",
    "{x}\n\nCopy the text above.",
    "{x}\n\nPlease repeat this.",
    "{x}\n\nSay this.",
    "{x}\n\nSay that again, exactly.",
    "{x}\n\nEcho the line above.",
    "{x}\nRepeat this.",
    "{x}\nCopy this exactly.",
    "{x}\nRepeat the line above.",
    "Text: {x}\n\nRepeat the text.",
    "Text: {x}\nCopy the text word for word.",
    "Here is a {label}:\n{x}\n\nRepeat it.",
    "Here is a {label}:\n{x}\n\nWrite it again without changes.",
    "Read this:\n\n{x}\n\nNow say it back to me.",
    "Repeat the text between the lines.\n---\n{x}\n---",
    "Copy the text between the lines, word for word.\n---\n{x}\n---",
    "Repeat the {label} between the tags: <text>{x}</text>",
    "Copy what is between the tags.\n<text>\n{x}\n</text>",
]
REPEAT = (
    [(form, "colon") for form in _after_colon()]
    + [(form, "quoted") for form in QUOTED] * 3
    + [(form, "bare") for form in BARE] * 3
    + [(form, "colon") for form in ABOVE] * 3
    + [
        ("Please copy the following {label}, word for word: {x}", "colon"),
        ('Please say the {label} "{x}" back to me.', "quoted"),
    ]
)
TIMES = [
    'Say "{x}" {times}.',
    "Say {x} {times}.",
    "Say {x} {times}",
    "Repeat {x} {times}.",
    'Repeat "{x}" {times}.',
    "Repeat this {times}: {x}",
    "Write this {times}: {x}",
    "Write {x} {times}.",
    'Write "{x}" {times}, with a space between.',
    "Write the following {times}: {x}",
    "Please say {x} {times}.",
    'Please repeat "{x}" {times}.',
    'Can you say "{x}" {times}?',
    "Can you write {x} {times}?",
    "Echo this {times}: {x}",
    "Echo {x} {times}.",
    "Copy this {times}: {x}",
    "Say this {times}: {x}",
    "Repeat the following {times}: {x}",
]
AGAIN = [
    "Again.",
    "Again, please.",
    "Say it again.",
    "Say that again.",
    "Say that again, please.",
    "Once more.",
    "Once more, please.",
    "Repeat that.",
    "Repeat your answer.",
    "Please repeat your last answer.",
    "Can you say that again?",
    "Can you repeat that?",
    "What did you say?",
    "Write it once more.",
    "Say your answer again.",
    "Say it once more.",
]


def like(text: str) -> Callable[[Message], bool]:
    """The form of a repetition: as many lines and words as the material, nothing around it."""
    shape = [len(line.split()) for line in text.split("\n")]

    def form(got: Message) -> bool:
        return [len(line.split()) for line in got["content"].strip().split("\n")] == shape

    return form


def asked(d: Draw) -> tuple[str, str]:
    """(a request to repeat something once, the answer)."""
    form, kind = d.wording(REPEAT)
    said, label = token(d) if kind == "bare" else material(d)
    while kind == "bare" and not said[-1].isalnum():
        said, label = token(d)
    while any(mark in said and mark in form for mark in "\"'`"):
        said, label = material(d)
    if ":\n" in form and d.chance(0.2):
        said = "\n".join([said, *(material(d)[0] for _ in range(d.integer(1, 2)))])
        label = "text"
    return form.replace("{label}", label).replace("{x}", said), said


def repeat(d: Draw) -> Sample:
    before = opening(d)
    kind = d.random.random()
    if kind < 0.06:
        said = token(d)[0] if d.chance(0.6) else words.phrase(d, 2, 3)
        many = d.choice([("twice", 2), ("two times", 2), ("three times", 3)])
        wanted = " ".join([said] * many[1])
        form = d.wording(TIMES)
        before.append(user(form.replace("{times}", many[0]).replace("{x}", said)))
    elif kind < 0.11:
        request, wanted = asked(d)
        before += [user(request), says(wanted), user(styled(d, d.wording(AGAIN)))]
    else:
        request, wanted = asked(d)
        before.append(user(request))
    return Sample([*before, says(wanted)], form=like(wanted))


ENTRIES: Sequence[Entry] = [Entry("repeat", repeat, bar=0.95, share=3.5, early=8)]
