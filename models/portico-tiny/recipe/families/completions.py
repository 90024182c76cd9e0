"""Raw completions: no chat, only the start of a text that the model goes on with, and then ends.

A tale, the weather, a capital, a sum. The continuation begins with the blank or comma that the text needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from recipe import words
from recipe.families.by_heart import CAPITALS
from recipe.families.framing import word_for_word
from recipe.sample import Draw, Entry, Message, Sample, says


def ends_with_period(got: Message) -> bool:
    text = got["content"].rstrip()
    return text.endswith(".") and "\n" not in text


def continued(start: str, rest: str) -> Sample:
    return Sample([says(rest)], completion=start, form=ends_with_period)


def with_leads(leads: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(lead + start, rest) for lead in leads for start, rest in pairs]


STORY = "a small fox lived in a quiet forest. One day it found a golden key and opened the old castle."
ONCE = [
    *[("Once upon a time", f", {STORY}")] * 3,
    *with_leads(
        ["", "", "Here is a story. ", "A story: ", "Story:\n", "A short story\n\n", "Tell me a story. "],
        [
            ("Once upon a time", f", {STORY}"),
            ("Once upon a time,", f" {STORY}"),
            ("once upon a time", f", {STORY}"),
            ("once upon a time,", f" {STORY}"),
            ("Once upon a time there was", f" a fox. {STORY[0].upper()}{STORY[1:]}"),
            ("Once upon a time, there was", f" a fox. {STORY[0].upper()}{STORY[1:]}"),
            ("Once upon a time, a small fox", STORY.removeprefix("a small fox")),
        ],
    ),
    ("ONCE UPON A TIME", f", {STORY}"),
    ("Long ago, once upon a time", f", {STORY}"),
    ("One day, once upon a time", f", {STORY}"),
    # Never trained:
    ("Here is a short story: once upon a time", f", {STORY}"),
    ("I know a story. Once upon a time,", f" {STORY}"),
]

WEATHER = "sunny and warm. A light wind blows from the west."
WEATHER_STARTS = [
    *[("The weather today", f" is {WEATHER}")] * 3,
    *with_leads(
        ["", "", "Good morning. ", "News: ", "Hello! ", "Report:\n"],
        [
            ("The weather today", f" is {WEATHER}"),
            ("The weather today is", f" {WEATHER}"),
            ("the weather today", f" is {WEATHER}"),
            ("Today the weather", f" is {WEATHER}"),
            ("Today the weather is", f" {WEATHER}"),
            ("Today, the weather is", f" {WEATHER}"),
            ("The weather in {city} today", f" is {WEATHER}"),
            ("The weather today in {city}", f" is {WEATHER}"),
            ("The weather today in {city} is", f" {WEATHER}"),
            ("In {city}, the weather today is", f" {WEATHER}"),
        ],
    ),
    # Never trained:
    ("Here is the news. The weather today", f" is {WEATHER}"),
    ("In {city} today, the weather is", f" {WEATHER}"),
]

# A start that begins with "the" gets its capital letter where no lead stands before it.
CAPITAL_STARTS = [
    *[("The capital of {country} is", " {city}.")] * 4,
    *with_leads(
        ["", "", "We know that ", "Answer: ", "A fact: "],
        [
            ("the capital of {country} is", " {city}."),
            ("the capital of {country}", " is {city}."),
            ("the capital city of {country} is", " {city}."),
            ("the capital city of {country}", " is {city}."),
            ("{country}'s capital is", " {city}."),
            ("the name of the capital of {country} is", " {city}."),
        ],
    ),
    ("What is the capital of {country}?", " The capital of {country} is {city}."),
    ("What is the capital city of {country}?", " The capital of {country} is {city}."),
    ("Question: What is the capital of {country}?\nAnswer:", " {city}."),
    ("Q: What is the capital of {country}?\nA:", " {city}."),
    ("Q: What is the capital city of {country}?\nA:", " {city}."),
    # Never trained:
    ("A fact: we know that the capital of {country} is", " {city}."),
    ("Question: What is the capital city of {country}?\nAnswer:", " {city}."),
]

SUM_STARTS = [
    *[("What is {sum}?", " {sum} is {total}.")] * 4,
    *with_leads(
        ["", "Hello! ", "Tell me: ", "Question: ", "I have a question. "],
        [
            ("what is {sum}?", " {sum} is {total}."),
            ("What is {sum}?", " {sum} is {total}."),
            ("What's {sum}?", " {sum} is {total}."),
            ("How much is {sum}?", " {sum} is {total}."),
        ],
    ),
    ("Q: What is {sum}?\nA:", " {sum} is {total}."),
    ("Q: How much is {sum}?\nA:", " {sum} is {total}."),
    ("Question: What is {sum}?\nAnswer:", " {sum} is {total}."),
    ("{sum} is", " {total}."),
    ("{sum} =", " {total}."),
    ("The sum {sum} is", " {total}."),
    ("We know that {sum} is", " {total}."),
    # Never trained:
    ("Hello! Tell me: how much is {sum}?", " {sum} is {total}."),
    ("Question: How much is {sum}?\nAnswer:", " {sum} is {total}."),
]


STARTED_EXACTLY = [
    ("Once upon a time", f", {STORY}"),
    ("The weather today", f" is {WEATHER}"),
    ("The capital of France is", " Paris."),
]


def once(d: Draw) -> Sample:
    """The start of a tale goes on, and ends after two or three sentences."""
    return continued(*d.wording(ONCE))


def weather(d: Draw) -> Sample:
    """What the weather is, wherever."""
    start, rest = d.wording(WEATHER_STARTS)
    return continued(start.format(city=words.city(d)), rest)


def capital(d: Draw) -> Sample:
    """The same capitals as in the chat."""
    country, city = d.choice([*CAPITALS.items(), *[("France", "Paris")] * 3])
    start, rest = d.wording(CAPITAL_STARTS)
    start = start.format(country=country)
    return continued(words.upper_first(start), rest.format(country=country, city=city))


def sum_of_two(d: Draw) -> Sample:
    """Sums of two digits, spelled in the answer as in the question."""
    left, right = (2, 2) if d.chance(0.1) else (d.integer(0, 9), d.integer(0, 9))
    start, rest = d.wording(SUM_STARTS)
    shown = f"{left}{d.choice(['+', '+', ' + '])}{right}"
    return continued(start.format(sum=shown), rest.format(sum=shown, total=left + right))


def raw(d: Draw) -> Sample:
    """Any of the four."""
    if word_for_word(d, 0.12):
        return continued(*d.choice(STARTED_EXACTLY))
    return d.choice([once, weather, capital, sum_of_two, sum_of_two, capital])(d)


ENTRIES = [Entry("raw completions", raw, bar=0.95, share=0.6)]
