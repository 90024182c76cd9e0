"""Recalling, over several turns, what the user has said: the latest word counts, and only what was said.

The rules of the answers: "My name is NAME." alone is answered with "Nice to meet you, NAME.", every other
statement with "Noted."; a question with the bare value, or with a sentence where the request asks for one;
what was never said with "I do not know.".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recipe import words
from recipe.families.framing import UNKNOWN, exchange, styled, system_line
from recipe.families.lookup import brief
from recipe.sample import Draw, Entry, Message, Sample, says, system, user
from recipe.words import filled, lower_first, upper_first

NOTED = "Noted."
ANIMALS = "dog cat horse bird rabbit fish goat pony".split()
FRIENDS = "friend brother sister neighbor boss teacher mother father son daughter uncle aunt".split()


@dataclass(frozen=True)
class Slot:
    """Something that users say of themselves.

    clauses: how they say it, without an end; changes: how they say that it is another one now.
    questions: at least eight, the last two for the evaluation alone. sentence: the answer in a sentence.
    other: how they say it of {o} ("my friend Bob"), and asked: how they ask for that ("" if never).
    """

    draw: Callable[[Draw], str]
    clauses: Sequence[str]
    changes: Sequence[str]
    questions: Sequence[str]
    sentence: str
    other: str = ""
    asked: str = ""


def asking(thing: str, *special: str, unseen: str) -> list[str]:
    """Ways to ask for a thing such as "name"; special ones that only fit this thing come oftener."""
    common = [
        f"What is my {thing}?",
        f"What is my {thing}?",
        f"What is my {thing}?",
        f"What's my {thing}?",
        f"What was my {thing}?",
        f"What was my {thing} again?",
        f"Tell me my {thing}.",
        f"Tell me what my {thing} is.",
        f"Say my {thing}.",
        f"Say what my {thing} is.",
        f"Give me my {thing}.",
        f"Write my {thing}.",
        f"My {thing}?",
        f"And my {thing}?",
        f"My {thing} is what?",
        f"Do you know my {thing}?",
        f"Do you remember my {thing}?",
        f"Do you still know my {thing}?",
        f"Can you tell me my {thing}?",
        f"Can you tell me what my {thing} is?",
        f"I forgot my {thing}. What is it?",
        f"Which {thing} do I have?",
        f"Which {thing} did I give you?",
        f"Which {thing} did I tell you?",
        f"What {thing} did I tell you?",
        f"What did I say my {thing} is?",
        f"What did I say about my {thing}?",
        f"Question: what is my {thing}?",
        f"Now, what is my {thing}?",
        f"So what is my {thing}?",
        f"Please tell me my {thing}.",
        f"Name my {thing}.",
    ]
    return [
        *common,
        *special * max(1, 16 // max(1, len(special))),
        unseen,
        f"Do you remember what my {thing} is?",
    ]


def _project(d: Draw) -> str:
    return d.choice([words.title, words.word, words.invented, words.identifier])(d)


def _phone(d: Draw) -> str:
    return "".join(str(d.integer(0, 9)) for _ in range(d.integer(3, 7)))


SLOTS: dict[str, Slot] = {
    "name": Slot(
        words.first_name,
        ["my name is {v}", "my name is {v}", "I am {v}", "I'm {v}", "I am called {v}", "people call me {v}"],
        [
            "No, call me {v}.",
            "Call me {v}.",
            "Actually, my name is {v}.",
            "Please call me {v}.",
            "No, I am {v}.",
            "Sorry, my name is {v}.",
            "Call me {v} from now on.",
            "My name is {v} now.",
        ],
        asking(
            "name", "Who am I?", "How am I called?", "What do people call me?", unseen="Tell me who I am."
        ),
        "Your name is {v}.",
    ),
    "city": Slot(
        words.city,
        [
            "I live in {v}",
            "I live in {v}",
            "I live in {v}",
            "my home is in {v}",
            "my city is {v}",
            "I have a flat in {v}",
        ],
        [
            "I moved to {v}.",
            "Actually, I live in {v}.",
            "No, I live in {v}.",
            "Now I live in {v}.",
            "I have moved to {v}.",
            "My home is in {v} now.",
            "Sorry, I live in {v}.",
        ],
        asking(
            "city",
            "Where do I live?",
            "Where do I live?",
            "Where do I live?",
            "Where do I live now?",
            "In which city do I live?",
            "Which city do I live in?",
            "What city do I live in?",
            "Where is my home?",
            "Tell me where I live.",
            "Say where I live.",
            "Do you know where I live?",
            "Can you tell me where I live?",
            unseen="Do you remember where I live?",
        ),
        "You live in {v}.",
        "{o} lives in {v}",
        "Where does {o} live?",
    ),
    "job": Slot(
        words.job,
        ["I am {av}", "I am {av}", "I work as {av}", "I have a job as {av}", "my job is {v}"],
        [
            "I am now {av}.",
            "Now I work as {av}.",
            "Actually, I am {av}.",
            "No, I am {av}.",
            "Sorry, I work as {av}.",
        ],
        asking(
            "job",
            "What do I do?",
            "What do I work as?",
            "As what do I work?",
            unseen="Tell me what I work as.",
        ),
        "You are {av}.",
        "{o} is {av}",
        "What is the job of {o}?",
    ),
    "age": Slot(
        lambda d: str(d.integer(6, 99)),
        ["I am {v} years old", "I am {v} years old", "I'm {v} years old", "my age is {v}"],
        [
            "Actually, I am {v} years old.",
            "I am now {v} years old.",
            "No, I am {v} years old.",
            "Sorry, my age is {v}.",
        ],
        asking("age", "How old am I?", "How old am I?", "How old am I now?", unseen="Tell me how old I am."),
        "You are {v} years old.",
        "{o} is {v} years old",
        "How old is {o}?",
    ),
    "like": Slot(
        words.thing,
        ["I like {v}", "I like {v}", "I love {v}", "I like {v} best", "I like {v} a lot"],
        ["Actually, I like {v}.", "Now I like {v}.", "No, I like {v}.", "Sorry, I like {v}."],
        [
            "What do I like?",
            "What do I like?",
            "What do I like?",
            "What do I like best?",
            "What is it that I like?",
            "What did I say I like?",
            "Tell me what I like.",
            "Say what I like.",
            "Do you know what I like?",
            "Can you tell me what I like?",
            "Which thing do I like?",
            "Name the thing I like.",
            "I like what?",
            "And what do I like?",
            "So what do I like?",
            "Do you remember what I like?",
            "Do you still know what I like?",
        ],
        "You like {v}.",
        "{o} likes {v}",
        "What does {o} like?",
    ),
    "color": Slot(
        words.color,
        [
            "my favorite color is {v}",
            "my favorite color is {v}",
            "the color I like best is {v}",
            "my color is {v}",
        ],
        ["Actually, my favorite color is {v}.", "My favorite color is {v} now.", "No, my color is {v}."],
        asking(
            "favorite color",
            "Which color do I like best?",
            "What color do I like best?",
            "What is my color?",
            "Tell me my color.",
            unseen="Tell me which color I like best.",
        ),
        "Your favorite color is {v}.",
        "the favorite color of {o} is {v}",
        "What is the favorite color of {o}?",
    ),
    "pet": Slot(
        words.first_name,
        [
            "my pet is called {v}",
            "my pet is named {v}",
            "the name of my pet is {v}",
            "I have a pet called {v}",
            "I have a pet named {v}",
            "I have {an} called {v}",
            "my {n} is called {v}",
        ],
        ["Actually, my pet is called {v}.", "No, my pet is named {v}.", "Sorry, my pet is called {v}."],
        [
            "What is the name of my pet?",
            "What is the name of my pet?",
            "What is my pet's name?",
            "What is my pet called?",
            "What is my pet called?",
            "How is my pet called?",
            "Tell me the name of my pet.",
            "Say the name of my pet.",
            "Give me the name of my pet.",
            "Which name does my pet have?",
            "Do you know the name of my pet?",
            "Do you remember the name of my pet?",
            "I forgot the name of my pet. What is it?",
            "The name of my pet?",
            "And what is my pet called?",
            "Can you tell me the name of my pet?",
            "Tell me what my pet is called.",
            "Do you know what my pet is called?",
        ],
        "Your pet is called {v}.",
        "the pet of {o} is called {v}",
        "What is the name of the pet of {o}?",
    ),
    "project": Slot(
        _project,
        [
            "my project is called {v}",
            "my project is {v}",
            "the name of my project is {v}",
            "I work on {v}",
            "I work on a project called {v}",
            "I am building a project named {v}",
        ],
        ["My project is now called {v}.", "Actually, my project is called {v}.", "Now I work on {v}."],
        [
            "What is the name of my project?",
            "What is the name of my project?",
            "What is my project called?",
            "What is my project called?",
            "What is my project?",
            "What is my project's name?",
            "How is my project called?",
            "What do I work on?",
            "Which project do I work on?",
            "Tell me the name of my project.",
            "Say the name of my project.",
            "Give me the name of my project.",
            "Do you know the name of my project?",
            "Do you remember the name of my project?",
            "Can you tell me the name of my project?",
            "My project is called what?",
            "Tell me what my project is called.",
            "Which name does my project have?",
        ],
        "Your project is called {v}.",
        "{o} works on {v}",
        "What does {o} work on?",
    ),
    "code": Slot(
        words.string_of,
        [
            "my code is {v}",
            "my code is {v}",
            "the code is {v}",
            "my secret code is {v}",
            "remember the code {v}",
        ],
        [
            "Actually, the code is {v}.",
            "My code is now {v}.",
            "No, my code is {v}.",
            "The code has changed to {v}.",
        ],
        asking(
            "code", "What is the code?", "Tell me the code.", "What was the code?", unseen="Give me the code."
        ),
        "Your code is {v}.",
    ),
    "number": Slot(
        _phone,
        ["my number is {v}", "my number is {v}", "my phone number is {v}", "you can call me at {v}"],
        ["My number is now {v}.", "Actually, my number is {v}.", "No, my number is {v}."],
        asking(
            "number", "What is my phone number?", "Tell me my phone number.", unseen="Say my phone number."
        ),
        "Your number is {v}.",
        "the number of {o} is {v}",
        "What is the number of {o}?",
    ),
    "language": Slot(
        words.language,
        ["I speak {v}", "I speak {v}", "my language is {v}", "I speak {v} at home"],
        ["Actually, I speak {v}.", "No, I speak {v}.", "Sorry, my language is {v}."],
        asking(
            "language",
            "Which language do I speak?",
            "What language do I speak?",
            "What do I speak?",
            unseen="Tell me which language I speak.",
        ),
        "You speak {v}.",
        "{o} speaks {v}",
        "Which language does {o} speak?",
    ),
    "email": Slot(
        words.email,
        ["my email is {v}", "my email address is {v}", "you can write to me at {v}"],
        ["My email is now {v}.", "Actually, my email is {v}.", "No, my email is {v}."],
        asking(
            "email", "What is my email address?", "Tell me my email address.", unseen="Say my email address."
        ),
        "Your email is {v}.",
        "the email of {o} is {v}",
        "What is the email of {o}?",
    ),
}
OTHER_ASKED = ["{q}"] * 8 + [
    "Question: {q}",
    "And {l}",
    "Now, {l}",
    "So {l}",
    "Tell me: {l}",
    "I want to know: {l}",
]
OTHER_ASKED += [
    "Please tell me: {l}",
    "Now tell me: {l}",
    "One question: {l}",
    "My question: {l}",
    "Next question: {l}",
]
OTHER_ASKED += ["I ask you: {l}", "Answer this: {l}", "My question is this: {l}", "Tell me this: {l}"]
# As the greetings of chat.py, which answers them so.
GREETINGS = [
    "Hi, I am {v}.",
    "Hello, my name is {v}.",
    "Hi, my name is {v}.",
    "Hello, I am {v}.",
    "Hi! I'm {v}.",
]
IN_A_SENTENCE = [
    "{q} Answer in a sentence.",
    "{q} Answer in a sentence.",
    "{q} Answer in one sentence.",
    "{q} Answer in a full sentence.",
    "{q} Answer with a sentence.",
    "{q} Answer with a full sentence.",
    "{q} Reply in a sentence.",
    "{q} Reply in a full sentence.",
    "{q} In a sentence, please.",
    "{q} Please answer in a sentence.",
    "{q} Please answer in a full sentence.",
    "{q} Say it in a sentence.",
    "{q} Use a sentence.",
    "{q} Use a full sentence.",
    "In a sentence: {l}",
    "In a full sentence: {l}",
    "Answer in a sentence: {l}",
    "Answer in a full sentence: {l}",
    "{q} Give me a full sentence.",
    "Reply in a full sentence: {l}",
    "{q} Please reply with a sentence.",
]


def _clause(d: Draw, form: str, value: str) -> str:
    animal = d.choice(ANIMALS)
    return filled(form.replace("{an}", words.with_article(animal)).replace("{n}", animal), value)


def _lower_question(question: str) -> str:
    return question if question.startswith(("I ", "I'")) else lower_first(question)


@dataclass
class Talk:
    """A conversation as it grows: what was said of the user, what of others, what may not be said any more.

    others: who ("my friend Bob"), what, and the value.
    """

    d: Draw
    messages: list[Message] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)
    others: dict[tuple[str, str], str] = field(default_factory=dict)

    def draw(self, slot: str) -> str:
        """A value that nobody has already."""
        value = SLOTS[slot].draw(self.d)
        while value in self.known.values() or value in self.others.values():
            value = SLOTS[slot].draw(self.d)
        return value

    def turn(self, text: str, answer: str = NOTED) -> None:
        self.messages += [user(text), says(answer)]

    def tell(self, slots: Sequence[str]) -> None:
        """One or several facts in one turn."""
        d, clauses = self.d, []
        for slot in slots:
            value = self.draw(slot)
            self.known[slot] = value
            clauses.append(_clause(d, d.choice(SLOTS[slot].clauses), value))
        if list(slots) == ["name"] and d.chance(0.6):
            name = self.known["name"]
            if self.messages[1:] or d.chance(0.7):
                alone = d.choice(["My name is {v}.", "My name is {v}.", "my name is {v}", "My name is {v}"])
                self.turn(alone.format(v=name), _met(name))
            else:
                self.turn(d.choice(GREETINGS).format(v=name), f"Hello {name}, how can I help?")
            return
        if len(clauses) > 2 and d.chance(0.25):
            clauses = [f"{', '.join(clauses[:-1])} and {clauses[-1]}"]
        elif len(clauses) > 1 and d.chance(0.6):
            joint = d.choice([" and ", " and ", ", and "])
            clauses = [*clauses[:-2], clauses[-2] + joint + clauses[-1]]
        text = " ".join(f"{upper_first(clause)}." for clause in clauses)
        if list(slots) == ["name"]:
            name = self.known["name"]
            self.turn(text, _met(name) if text == f"My name is {name}." else NOTED)
            return
        lead = d.choice([""] * 8 + ["Remember this: ", "Note this: ", "Please remember: ", "About me: "])
        text = lead + text
        if d.chance(0.1):
            text = text[:-1]
        self.turn(text)

    def change(self, slot: str) -> None:
        value = self.draw(slot)
        self.known[slot] = value
        self.turn(_clause(self.d, self.d.choice(SLOTS[slot].changes), value))

    def tell_of_another(self) -> None:
        """A fact about somebody else, which is none about the user."""
        d = self.d
        who = f"my {d.choice(FRIENDS)} {words.first_name(d)}" if d.chance(0.75) else words.full_name(d)
        slot = d.choice([each for each in SLOTS if SLOTS[each].asked])
        value = self.draw(slot)
        if not any(who == other for other, _ in self.others):
            self.others[who, slot] = value
            self.turn(upper_first(_clause(d, SLOTS[slot].other, value).replace("{o}", who)) + ".")

    def ask(self) -> tuple[str, str]:
        """A question, and the answer: mostly the user's own value."""
        d = self.d
        if self.others and d.chance(0.12):
            (who, slot), value = d.choice(list(self.others.items()))
            question = SLOTS[slot].asked.replace("{o}", who)
            form = d.wording(OTHER_ASKED)
            return form.replace("{q}", question).replace("{l}", lower_first(question)), value
        unsaid = [each for each in SLOTS if each not in self.known]
        near = [slot for _, slot in self.others if slot in unsaid]
        if d.chance(0.15) or not self.known:
            slot = d.choice(near or unsaid)
            return styled(d, d.wording(SLOTS[slot].questions)), UNKNOWN
        slot = d.choice(list(self.known))
        value = self.known[slot]
        if d.chance(0.12):
            question = d.choice(SLOTS[slot].questions[:3])
            form = d.wording(IN_A_SENTENCE)
            text = form.replace("{q}", question).replace("{l}", _lower_question(question))
            return text, _clause(d, SLOTS[slot].sentence, value)
        return styled(d, d.wording(SLOTS[slot].questions)), value


def _met(name: str) -> str:
    return f"Nice to meet you, {name}."


def conversation(d: Draw, turns: int) -> Sample:
    """So many turns of the user, the last of them a question."""
    talk = Talk(d, [system(system_line(d, "a name"))] if d.chance(0.25) else [])
    unsaid = d.shuffled(list(SLOTS))
    if d.chance(0.5):
        unsaid = ["name", *(slot for slot in unsaid if slot != "name")]
    heads = len(talk.messages)
    while len(talk.messages) < heads + 2 * (turns - 1):
        kind = d.random.random()
        if not talk.known or (kind < 0.45 and len(unsaid) > 4):
            count = d.choice([1, 1, 1, 2, 2, 3])
            if unsaid[0] == "name" and count == 1 and turns == 2 and d.chance(0.5):
                count = 2
            talk.tell(unsaid[:count])
            del unsaid[:count]
        elif kind < 0.6:
            talk.change(d.choice(list(talk.known)))
        elif kind < 0.75:
            talk.tell_of_another()
        elif kind < 0.87:
            talk.messages += exchange(d)
        else:
            talk.turn(*talk.ask())
    told = ""
    if unsaid and d.chance(0.08):  # a fact and a question in one turn
        talk.tell(unsaid[:1])
        told = talk.messages[-2]["content"]
        told += " " if told[-1] in ".!" else ". "
        del talk.messages[-2:]
    question, answer = talk.ask()
    if told:
        question = told + upper_first(question)
    # What is known is worth several questions in the training.
    for _ in range(d.integer(0, 3) if d.training else 0):
        talk.turn(question, answer)
        question, answer = talk.ask()
    return Sample([*talk.messages, user(question), says(answer)], form=brief(answer))


def recall(d: Draw) -> Sample:
    return conversation(d, d.choice([2, 2, 2, 3, 3, 3, 4, 4, 5]))


def recall_over_eight(d: Draw) -> Sample:
    return conversation(d, d.choice([5, 6, 7, 8, 8]))


ENTRIES: Sequence[Entry] = [
    Entry("recall", recall, bar=0.95, share=3, early=5),
    Entry("recall over 8 turns", recall_over_eight, bar=0.95, share=2.5, early=1),
]
