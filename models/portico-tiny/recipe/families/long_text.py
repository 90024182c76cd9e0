"""Texts of a told length: the model must go on for as long as it is told, and stop exactly there."""

from __future__ import annotations

import re
import string
from collections.abc import Callable

from recipe import words
from recipe.families.framing import casually, closed, opening
from recipe.sample import Draw, Entry, Message, Sample, says, user


def parted(separator: str, count: int) -> Callable[[Message], bool]:
    """A form: so many parts with the separator between them."""
    return lambda got: len(got["content"].strip().split(separator)) == count


def asked_and_said(d: Draw, asked: str, answer: str, form: Callable[[Message], bool]) -> Sample:
    return Sample([*opening(d), user(casually(d, asked)), says(answer)], form=form, max_tokens=500)


PER_LINE = [" One number per line.", " One per line.", " Put each number on its own line.", "\nOne per line."]

COUNT_WORDINGS = [
    *["Count from {a} to {b}"] * 3,
    "Count from {a} to {b}, please.",
    "Please count from {a} to {b}.",
    "Please count up from {a} to {b}.",
    "Can you count from {a} to {b}?",
    "Could you count from {a} up to {b}?",
    "Count from {a} up to {b}.",
    "Count up from {a} to {b}.",
    "Start at {a} and count to {b}.",
    "Start counting at {a} and stop at {b}.",
    "Write the numbers from {a} to {b}.",
    "Write all numbers from {a} to {b}.",
    "Write down the numbers from {a} up to {b}.",
    "List the numbers from {a} to {b}.",
    "List all numbers from {a} to {b}, please.",
    "Give me the numbers from {a} to {b}.",
    "I want the numbers from {a} to {b}.",
    "I need all numbers from {a} to {b}.",
    "Show me all numbers from {a} to {b}.",
    "The numbers from {a} to {b}, please.",
    "Please write the numbers from {a} to {b}.",
    "Please write all numbers from {a} to {b}.",
    "Please write down the numbers from {a} to {b}.",
    "Please list all numbers from {a} to {b}.",
    "Write down all numbers from {a} to {b}, please.",
    "Can you write the numbers from {a} up to {b}?",
    "Can you list the numbers from {a} to {b}?",
    "Can you write down all numbers from {a} to {b}?",
    "Could you list all numbers from {a} up to {b}?",
    "Numbers from {a} to {b}",
    # Never trained:
    "Can you list the numbers from {a} up to {b}?",
    "Write out all numbers from {a} to {b}.",
]
DOWN_WORDINGS = [
    "Count down from {a} to {b}",
    "Count down from {a} to {b}.",
    "Count down from {a} to {b}, please.",
    "Please count down from {a} to {b}.",
    "Can you count down from {a} to {b}?",
    "Could you count backwards from {a} to {b}?",
    "Count backwards from {a} to {b}.",
    "Count downwards from {a} to {b}.",
    "Start at {a} and count down to {b}.",
    "Write the numbers from {a} down to {b}.",
    "Write all numbers downwards from {a} to {b}.",
    "List the numbers from {a} down to {b}.",
    "List the numbers downwards from {a} to {b}.",
    "Give me the numbers from {a} down to {b}.",
    "Show me all numbers from {a} down to {b}.",
    "A countdown from {a} to {b}, please.",
    "Please write the numbers from {a} down to {b}.",
    "Please write down the numbers from {a} down to {b}.",
    "Please list all numbers from {a} down to {b}.",
    "Can you list the numbers from {a} down to {b}?",
    "Write down all numbers from {a} down to {b}.",
    "Start counting down at {a} and stop at {b}.",
    "Start at {a}. Count down to {b}.",
    "Give me the numbers backwards from {a} to {b}.",
    # Never trained:
    "Give me all numbers from {a} down to {b}.",
    "Start counting at {a} and count down to {b}.",
]


def counting(d: Draw) -> Sample:
    """Numbers up or down, with commas or one per line."""
    low = 1 if d.chance(0.6) else d.integer(0, 40)
    high = min(60, low + d.integer(2, d.choice([8, 15, 15, 59])))
    numbers = list(range(low, high + 1))
    if d.chance(0.35):
        numbers.reverse()
        asked = d.wording(DOWN_WORDINGS)
    else:
        asked = d.wording(COUNT_WORDINGS)
    asked = casually(d, asked.format(a=numbers[0], b=numbers[-1]))
    separator = ", "
    if d.chance(0.25):
        asked, separator = closed(asked) + d.choice(PER_LINE), "\n"
    answer = separator.join(map(str, numbers))
    form = parted(separator, len(numbers))
    return Sample([*opening(d), user(asked), says(answer)], form=form, max_tokens=500)


SERIES = {
    "the letters of the alphabet": list(string.ascii_lowercase),
    "the alphabet": list(string.ascii_lowercase),
    "the alphabet in capital letters": list(string.ascii_uppercase),
    "the days of the week": words.DAYS,
    "all days of the week": words.DAYS,
    "the months of the year": words.MONTHS,
    "all months of the year": words.MONTHS,
    "the twelve months": words.MONTHS,
    "the seven days": words.DAYS,
}
SERIES_WORDINGS = [
    "Write {series}",
    "Write {series}.",
    "Write down {series}.",
    "Write {series}, please.",
    "Please write {series}.",
    "List {series}.",
    "List {series}, please.",
    "Please list {series}.",
    "Name {series}.",
    "Give me {series}.",
    "Tell me {series}.",
    "Show me {series}.",
    "Say {series}.",
    "Can you write {series}?",
    "Can you list {series}?",
    "Could you tell me {series}?",
    "I want {series}.",
    "I need {series}.",
    "What are {series}?",
    "I need a list: {series}",
    "Write a list: {series}",
    "Make a list of {series}.",
    "Give me a list of {series}.",
    "Write me the list: {series}",
    # Never trained:
    "Write me {series}.",
    "Write a list of {series}.",
]
BACKWARDS_WORDINGS = [
    f"{head} {{series}} {order}{end}"
    for head, end in [
        ("Write", "."),
        ("Please write", "."),
        ("List", "."),
        ("Give me", "."),
        ("Tell me", "."),
        ("Say", ""),
        ("Can you list", "?"),
        ("Could you write", "?"),
    ]
    for order in ["backwards", "downwards", "in reverse order", "from the last to the first"]
] + [
    # Never trained:
    "Show me {series} backwards.",
    "I want {series} in reverse order.",
]


def series(d: Draw) -> Sample:
    """The alphabet, the days, the months: forwards or backwards."""
    name, values = d.choice(list(SERIES.items()))
    if d.chance(0.35):
        asked, values = d.wording(BACKWARDS_WORDINGS), values[::-1]
    else:
        asked = d.wording(SERIES_WORDINGS)
    return asked_and_said(d, asked.format(series=name), ", ".join(values), parted(", ", len(values)))


LINES_WORDINGS = [
    "Write {n} lines with the word {word}.",
    "Write {n} lines, each with the word {word}.",
    "Write {n} numbered lines with the word {word}.",
    "Write {n} numbered lines of {word}",
    "Write {n} lines of {word}.",
    "Write {n} lines of {word}, each numbered.",
    "Write {n} lines: {word}",
    "Write {n} lines that say {word}.",
    "Please write {n} lines with the word {word}.",
    "Please write {n} numbered lines of {word}.",
    "Can you write {n} lines with the word {word}?",
    "Could you write {n} numbered lines that say {word}?",
    "Give me {n} lines with the word {word}.",
    "Give me {n} numbered lines of {word}.",
    "I want {n} lines with the word {word}.",
    "I need {n} numbered lines of {word}.",
    'Write {n} lines with the word "{word}".',
    'Write "{word}" on {n} numbered lines.',
    "Write {word} on {n} lines.",
    "Word: {word}\nWrite it on {n} numbered lines.",
    "{n} lines of {word}, please.",
    "Could you give me {n} lines with the word {word}?",
    "Could you give me {n} numbered lines of {word}?",
    'I want {n} lines with "{word}".',
    "I want {n} lines that say {word}.",
    'Give me {n} lines that say "{word}".',
    # Never trained:
    "Could you give me {n} numbered lines with the word {word}?",
    'I want "{word}" on {n} lines.',
]


def numbered_lines(d: Draw) -> Sample:
    """Each line is "Line 1: word", as many as asked."""
    count, word = d.integer(2, d.choice([6, 10, 10, 20])), words.word(d)
    asked = d.wording(LINES_WORDINGS).format(n=words.spelled(d, count, 0.35), word=word)
    answer = "\n".join(f"Line {at}: {word}" for at in range(1, count + 1))
    return asked_and_said(d, words.upper_first(asked), answer, parted("\n", count))


REPEAT_WORDINGS = [
    "Repeat {word} {n} times.",
    "Repeat {word} {n} times, please.",
    "Repeat the word {word} {n} times.",
    'Repeat the word "{word}" {n} times',
    'Repeat "{word}" {n} times.',
    "Repeat {n} times: {word}",
    "Please repeat {word} {n} times.",
    "Please repeat the word {word} {n} times.",
    "Can you repeat {word} {n} times?",
    "Could you repeat the word {word} {n} times?",
    "Say {word} {n} times.",
    "Say the word {word} {n} times.",
    "Say {n} times: {word}",
    'Say "{word}" {n} times.',
    "Write {word} {n} times.",
    "Write the word {word} {n} times.",
    "Write {n} times: {word}",
    'Write "{word}" {n} times, please.',
    "I want the word {word} {n} times.",
    "I want {word} {n} times.",
    "I want you to repeat {word} {n} times.",
    "I want you to write the word {word} {n} times.",
    "Give me {word} {n} times.",
    'Give me "{word}", {n} times.',
    "{n} times the word {word}, please.",
    "Word: {word}\nRepeat it {n} times.",
    # Never trained:
    "I want you to say {word} {n} times.",
    'Give me the word "{word}" {n} times.',
]


def repeated(d: Draw) -> Sample:
    """A word so many times, blanks between."""
    count, word = d.integer(2, d.choice([5, 8, 10])), words.word(d)
    asked = d.wording(REPEAT_WORDINGS).format(n=words.spelled(d, count, 0.35), word=word)
    answer = " ".join([word] * count)
    return asked_and_said(d, words.upper_first(asked), answer, parted(" ", count))


# The sentences of a story: the first N - 1 of these and then the end.
STORY = [
    "One morning {name} found {found}.",
    "{name} took it to {place}.",
    "On the way it began to rain.",
    "A kind old man opened his door.",
    "He looked at the {thing} for a long time.",
    "Then {name} made a wish.",
    "The rain stopped at once.",
    "Everyone in {place} came to look.",
    "{name} gave the {thing} to the old man.",
]
STORY_END = "Then {name} walked home and was happy."
# With a thing and a place, and without ("{about}" is then the name alone).
STORY_WORDINGS = [
    *["Write a story of {n} sentences about {about}."] * 2,
    *[
        f"{head} {story} {about}{end}"
        for head, end in [
            ("Write", "."),
            ("Please write", "."),
            ("Tell me", "."),
            ("Can you write", "?"),
            ("Could you tell me", "?"),
            ("I want", "."),
            ("Give me", ", please."),
        ]
        for story, about in [
            ("a story of {n} sentences", "about {about}"),
            ("a story about {about}", "in {n} sentences"),
            ("a short story with {n} sentences", "about {about}"),
        ]
    ],
    "In {n} sentences, tell a story about {about}.",
    "In exactly {n} sentences, write a story about {about}.",
    "A story of {n} sentences about {about}, please.",
    "Tell a story about {about}. Use exactly {n} sentences.",
    "Write a story about {about}. It has {n} sentences.",
    "Story about {about}, {n} sentences",
    "Please tell me a story about {about}. It has {n} sentences.",
    "Please write a story about {about}. Use exactly {n} sentences.",
    "Tell me a story about {about}. Use {n} sentences, please.",
    "Could you write a story of {n} sentences about {about}?",
    "Can you write a story with {n} sentences about {about}?",
    # Never trained:
    "I want a story about {about}. It has {n} sentences.",
    "Could I have a story about {about} in {n} sentences?",
]


def story(d: Draw) -> Sample:
    """A story of N sentences with a name, and a thing and a place where they are given."""
    count, name, thing, place = d.integer(2, 10), words.first_name(d), "golden key", "the town"
    given = d.chance(0.6)
    if given:
        thing, place = words.noun(d), words.city(d)
    found = words.with_article(thing)
    about = d.choice([f"{name}, {found} and {place}", f"{name} and {found} in {place}"]) if given else name
    asked = d.wording(STORY_WORDINGS).format(n=words.spelled(d, count, 0.35), about=about)
    told = [each.format(name=name, found=found, thing=thing, place=place) for each in STORY[: count - 1]]
    answer = " ".join([*told, STORY_END.format(name=name)])

    def form(got: Message) -> bool:
        return len(re.findall(r"\.(?= |$)", got["content"].strip())) == count

    return asked_and_said(d, asked, answer, form)


def long_text(d: Draw) -> Sample:
    """Any of the five."""
    return d.choice([counting, counting, series, numbered_lines, repeated, story, story])(d)


ENTRIES = [Entry("long text", long_text, bar=0.9, share=5)]
