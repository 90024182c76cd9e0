"""Looking a value up: in a block of pairs, in short sentences about several things, in a long document.

The answer is the bare value as it stands in the text (no sentence, no quotation marks, no article before a
place), the key where the key is asked for, and "I do not know." where the text does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from recipe.families.framing import UNKNOWN, opening, system_line
from recipe.families.quiz import Quiz, Room, about
from recipe.families.quiz_facts import facts
from recipe.families.quiz_listings import code, records
from recipe.families.quiz_pairs import pairs
from recipe.sample import Draw, Entry, Message, Sample, says, system, user
from recipe.words import lower_first

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
    Entry("look-up at 1,000 tokens", partial(look_up_at, 1000), bar=0.95, share=5),
    Entry("look-up at 2,000 tokens", partial(look_up_at, 2000), bar=0.95, share=5),
    Entry("look-up at 4,000 tokens", partial(look_up_at, 4000), bar=0.95, share=7),
]
