"""What stands before and around a request: system messages, small talk, and how people type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from recipe import words
from recipe.sample import Draw, Message, Sample, says, system, user
from recipe.words import lower_first

UNKNOWN = "I do not know."
HELP = "How can I help?"
WELCOME = "You are welcome."

# ---- system messages that change nothing

# What a system line may tell besides: nothing, the assistant's name, or also the day, the user and the employer.
# A question that one of these would answer must not follow it.
Telling = Literal["nothing", "a name", "anything"]

_LINES = [
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant",
    "You are a helpful AI assistant.", "You are a careful assistant.", "You are a friendly assistant.",
    "You are an assistant.", "You are a helpful assistant. Be brief.", "You are an assistant. Be brief.",
    "You are a good helper. Be brief.", "You are a polite assistant. Answer in English.",
    "You are an expert.", "You help people with small questions.", "You help people.",
    "You answer questions.", "Be brief.", "Be concise.", "Be short and clear.", "Be concise and clear.",
    "Answer briefly.", "Answer as briefly as you can.", "Give short answers.", "Keep it short.",
    "Keep your answers short.", "Answer the question.", "Answer the user.", "Answer the user's question.",
    "Follow the instructions of the user.", "Help the user.", "Help the user with the task.",
]  # fmt: skip


def system_line(d: Draw, telling: Telling = "anything") -> str:
    """A system text that changes nothing."""
    kind = d.random.random()
    if telling != "nothing" and kind < 0.25:
        name, trait = words.first_name(d), words.adjective(d)
        return d.choice(
            [
                f"You are {name}.",
                f"You are {name}, a helpful assistant.",
                f"You are {name}, a {d.choice(['careful', 'friendly'])} assistant.",
                f"You are an assistant named {name}.",
                f"You are a careful assistant named {name}.",
                f"You are {words.with_article(trait)} assistant named {name}.",
                f"You are {name}, the assistant of {words.full_name(d)}.",
                f"You are the assistant of {words.full_name(d)}.",
                f"Your name is {name}.",
                f"Your name is {name}. Be brief.",
            ]
        )
    if telling == "anything" and kind < 0.4:
        return d.choice(
            [
                f"Today is {words.date(d)}.",
                f"The user is {words.first_name(d)}.",
                f"You work for {words.title(d)}.",
                f"You work for {words.full_name(d)}.",
            ]
        )
    return d.choice(_LINES)


# ---- small talk

_COURTESIES = [
    *((said, f"Hello! {HELP}") for said in ("Hello!", "Hello!", "Hi", "hello", "Hi there!")),
    *(
        (said, WELCOME)
        for said in (
            "Thanks!", "Thanks.", "thanks", "Thank you.", "Thank you!", "Thank you very much!",
            "That was good, thanks.",
        )
    ),
    ("Are you ready?", "Yes, I am ready."),
    ("Are you there?", "Yes, I am here."),
    ("Can you help me?", "Yes, of course."),
    ("I have a question.", "Yes, of course."),
    ("I need help.", HELP),
]  # fmt: skip


def courtesy(d: Draw) -> list[Message]:
    """A greeting, thanks, a call for help, and the answer."""
    said, answer = d.choice(_COURTESIES)
    return [user(said), says(answer)]


def exchange(d: Draw) -> list[Message]:
    """A small question and its answer that have nothing to do with what follows. Not where there are tools,
    which some of these would call for."""
    kind = d.random.random()
    if kind < 0.35:
        return courtesy(d)
    if kind < 0.65:
        a, b = d.integer(0, 10), d.integer(0, 10)
        if d.chance(0.2):
            return [user(f"What is {a + b} - {b}?"), says(str(a))]
        asked = d.choice(["What is {a} + {b}?", "{a} + {b}", "What is {a}+{b}?", "What is {a} plus {b}?"])
        return [user(asked.format(a=a, b=b)), says(str(a + b))]
    if kind < 0.9:
        said = d.choice([words.word, words.string_of, words.first_name])(d)
        return [user(d.choice([f"Repeat: {said}", f'Say "{said}".', f"Say {said}"])), says(said)]
    return [user(f"Who is {words.full_name(d)}?"), says(UNKNOWN)]


def opening(
    d: Draw,
    *,
    talk: float = 0.15,
    make: Callable[[Draw], list[Message]] = exchange,
    telling: Telling = "anything",
    role: str | None = None,
) -> list[Message]:
    """What stands before a question: in a quarter of the samples a system message (mostly `role`, where the
    family has one), with the chance `talk` an exchange or two."""
    start: list[Message] = []
    if d.chance(0.25):
        start.append(system(role if role and d.chance(0.6) else system_line(d, telling)))
    if d.chance(talk):
        for _ in range(d.integer(1, 2)):
            made = make(d)
            while start and made[-1] == start[-1]:  # nobody says thanks twice
                made = make(d)
            start += made
    return start


def framed(
    d: Draw,
    request: str,
    answer: str,
    *,
    reasoning: str | None = None,
    form: Callable[[Message], bool] | None = None,
    telling: Telling = "a name",
    talk: float = 0.15,
) -> Sample:
    """One question and its answer after an opening. With a reasoning the thinking switch is on."""
    start = opening(d, telling=telling, talk=talk)
    return Sample([*start, user(request), says(answer, reasoning)], thinking=reasoning is not None, form=form)


# ---- how people type


def word_for_word(d: Draw, often: float = 0.04) -> bool:
    """Whether a training sample asks exactly as the documentation does, whatever else was drawn."""
    return d.training and d.chance(often)


def loosely(d: Draw, text: str, often: float = 0.13) -> str:
    """The text now and then with a small first letter or without its last mark. Fields may still stand in it."""
    if d.chance(often) and not text.startswith(("{", "I ", "I'", "Portico")):
        text = lower_first(text)
    if d.chance(often) and text.endswith((".", "?", "!")):
        text = text[:-1].rstrip()
    return text


def casually(d: Draw, text: str) -> str:
    """A whole request loosely, and now and then with a greeting before it or thanks after it."""
    text = loosely(d, text)
    if d.chance(0.05):
        text = d.choice(["Hi. ", "Hello. ", "Okay. ", "Now: ", "Question: "]) + text
    if d.chance(0.03):
        text = d.choice([closed(text) + " Thanks.", closed(text) + " Thank you.", text + "\n"])
    return text


_COMMANDS = tuple("Give Tell Say Find Look Write Name Read Show Return Repeat Echo Copy".split())


def styled(d: Draw, form: str) -> str:
    """An order politely, anything loosely; the form still has its {fields}, so that no name loses its capital."""
    if form.endswith(".") and form.startswith(_COMMANDS):
        manner = d.integer(0, 9)
        if manner <= 1:
            form = "Please " + lower_first(form)
        elif manner == 2:
            form = form[:-1] + ", please."
        elif manner == 3:
            form = "Can you " + lower_first(form)[:-1] + "?"
    return loosely(d, form, often=0.2)


def closed(text: str) -> str:
    """The text with a mark at its end, so that another sentence can follow."""
    text = text.rstrip()
    return text if text[-1] in ".?!" else text + "."


def polite_once(forms: Sequence[str]) -> list[str]:
    """Without those that say please twice."""
    return [form for form in forms if form.lower().count("please") < 2]
