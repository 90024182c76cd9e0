"""Questions with the thinking switch on: the steps are written out before a short answer."""

from __future__ import annotations

from recipe import words
from recipe.families.arithmetic import ASKED, COUNTED, digits, expression, fact, result_of
from recipe.families.chat import HELLO, INTRODUCED, PERSON, THANKS
from recipe.families.framing import HELP, UNKNOWN, WELCOME, courtesy, framed, loosely
from recipe.families.transforms import different, some_word
from recipe.sample import Draw, Entry, Message, Sample, says, user


def _one_line(got: Message) -> bool:
    return "\n" not in got["content"].strip()


# ---- steps of sums

CHAINS = [
    "What is {e}?", "What is {e}?", "What's {e}?", "How much is {e}?", "{e} = ?", "{e} =", "{e}", "{e}?",
    "Calculate {e}.", "Compute {e}.", "Please calculate {e}.", "Can you calculate {e}?", "Solve {e}.",
    "Solve: {e}", "Calculate: {e}", "Tell me what {e} is.", "Tell me the result of {e}.",
    "What is the result of {e}?", "What is the value of {e}?", "Give me the result of {e}.", "Find {e}.",
    "Work out {e}.", "Work out {e} step by step.", "Think, then answer: {e}",
    "Think step by step. What is {e}?", "What is {e}? Think step by step.", "Calculate {e} step by step.",
    "Can you tell me what {e} is?", "What do you get for {e}?", "How much does {e} make?",
    "I need the result of {e}.", "Please work out the result of {e}.", "Think step by step and calculate {e}.",
]  # fmt: skip


def _terms(d: Draw) -> tuple[list[int], list[str]]:
    """Three (seldom four) numbers and the signs between them, results between 0 and 24, no products after
    another sign so that working from left to right is right."""
    count = d.choice([3, 3, 3, 4])
    while True:
        most = d.choice([5, 9, 12])
        numbers = [d.integer(0, most) for _ in range(count)]
        signs = [d.choice("++-") for _ in numbers[1:]]
        if d.chance(0.15):
            signs[0] = "*"
        total = numbers[0]
        totals = [
            total := result_of(total, sign, number) for sign, number in zip(signs, numbers[1:], strict=True)
        ]
        if all(0 <= each <= 24 for each in totals):
            return numbers, signs


def _steps(numbers: list[int], signs: list[str]) -> tuple[int, str]:
    """The result, and "3 + 4 = 7. 7 + 5 = 12."."""
    total, steps = numbers[0], []
    for sign, number in zip(signs, numbers[1:], strict=True):
        after = result_of(total, sign, number)
        steps.append(f"{total} {sign} {number} = {after}.")
        total = after
    return total, " ".join(steps)


def chain(d: Draw) -> Sample:
    """3 + 4 + 5, two numbers at a time."""
    numbers, signs = _terms(d)
    between = d.choice([" {} ", " {} ", "{}"])
    expression = str(numbers[0])
    for sign, number in zip(signs, numbers[1:], strict=True):
        if between == " {} " and d.chance(0.1):
            sign = {"+": "plus", "-": "minus", "*": "times"}[sign]
        expression += between.format(sign) + str(number)
    total, reasoning = _steps(numbers, signs)
    return framed(
        d, loosely(d, d.wording(CHAINS)).format(e=expression), str(total), reasoning=reasoning, form=digits
    )


STORIES = [
    "{n} has {a} {x}. {n} {first}, then {n} {second}. How many {x} does {n} have?",
    "{n} has {a} {x}, {first} and {second}. How many {x} does {n} have?",
    "{n} has {a} {x}, {first} and then {second}. How many {x} does {n} have now?",
    "{n} has {a} {x}. First {n} {first}. Then {n} {second}. How many {x} does {n} have now?",
    "If {n} has {a} {x}, {first} and {second}, how many {x} does {n} have?",
    "How many {x} does {n} have: {n} has {a} {x}, {first} and {second}.",
    "{n} has {a} {x}. In the morning {n} {first}. In the evening {n} {second}. How many {x} does {n} have?",
    "{n} has {a} {x}. On Monday {n} {first}. On Friday {n} {second}. How many {x} does {n} have now?",
    "{n} {first} and {second}. Before that, {n} had {a} {x}. How many {x} does {n} have now?",
    "There are {a} {x}. {n} {first} and {second}. How many {x} are there now?",
    "Think step by step. {n} has {a} {x}, {first} and {second}. How many {x} does {n} have?",
    "Today {n} has {a} {x}. Tomorrow {n} {first} and {second}. How many {x} does {n} have then?",
    "At first {n} has {a} {x}. Then {n} {first} and {second}. How many {x} does {n} have now?",
    "If {n} has {a} {x}, {first} and then {second}, how many {x} does {n} have now?",
]
_CHANGES = {
    "+": ["gets {b} more", "finds {b} more", "buys {b} more"],
    "-": ["loses {b}", "sells {b}", "gives away {b}"],
}


def two_steps(d: Draw) -> Sample:
    """A small story with two changes."""
    while True:
        numbers, signs = _terms(d)
        if len(numbers) == 3 and "*" not in signs:
            break
    first, second = (d.choice(_CHANGES[sign]).format(b=b) for sign, b in zip(signs, numbers[1:], strict=True))
    request = d.wording(STORIES).format(
        n=words.first_name(d), a=numbers[0], x=d.choice(COUNTED), first=first, second=second
    )
    total, reasoning = _steps(numbers, signs)
    return framed(d, request, str(total), reasoning=reasoning, form=digits)


# ---- the largest, step by step

EXTREME = [
    "Which is the {most}: {x}?", "Which number is the {most}: {x}?", "What is the {most} of {x}?",
    "What is the {most}: {x}", "What is the {most} number of {x}?", "Find the {most} number: {x}",
    "Find the {most} of {x}.", "Find the {most}: {x}", "Give the {most} number: {x}",
    "Give me the {most} of these numbers: {x}", "Tell me the {most} of these: {x}",
    "Which of these is the {most}? {x}", "Which of these numbers is the {most}? {x}",
    "{x}: which is the {most}?", "{x}\nWhich number is the {most}?", "{x}\nWhat is the {most}?",
    "Here are numbers: {x}. Which is the {most}?", "The numbers are {x}. Which one is the {most}?",
    "Of {x}, which is the {most}?", "Take the {most} of {x}.", "Please find the {most} number: {x}",
    "Think step by step: which is the {most} of {x}?", "The {most} of {x}?",
    "Please tell me the {most} number of {x}.", "Here are numbers: {x}. What is the {most} of these?",
]  # fmt: skip


def extreme(d: Draw) -> Sample:
    """The largest or the smallest of 3 to 5 numbers: the best so far against the next one."""
    most = d.choice([9, 20, 99, 99])
    numbers = d.some(range(most + 1), 3, 5)
    large = d.chance(0.6)
    best, steps = numbers[0], []
    for number in numbers[1:]:
        after = max(best, number) if large else min(best, number)
        steps.append(f"{best} or {number}: {after}.")
        best = after
    called = d.choice(
        ["largest", "largest", "biggest", "greatest", "highest"] if large else ["smallest", "lowest"]
    )
    request = loosely(d, d.wording(EXTREME)).format(
        most=called, x=words.listing(d, [str(number) for number in numbers], commas=0.7)
    )
    return framed(d, request, str(best), reasoning=" ".join(steps), form=digits)


# ---- letters

LETTERS = [
    "How many letters are in {x}?", 'How many letters are in "{x}"?', "How many letters does {x} have?",
    "Count the letters: {x}", 'How many letters does the word "{x}" have?',
    "How many letters are in the word {x}?", "Count the letters in {x}.", "Count the letters of {x}.",
    'Count the letters in the word "{x}".', "What is the number of letters in {x}?",
    "Give the number of letters in {x}.", "How long is the word {x}?", 'How long is "{x}"?',
    "Number of letters in {x}?", "Tell me how many letters {x} has.", "{x}: how many letters?",
    "The word is {x}. How many letters does it have?", "Spell {x} and count the letters.",
    "Please count the letters in {x}.", "Can you count the letters of {x}?",
    "How many characters are in {x}?", "How many characters does {x} have?",
    "The word {x} has how many letters?", "Can you tell me how many letters are in {x}?",
    "Please give the number of letters in the word {x}.",
]  # fmt: skip


def letters(d: Draw) -> Sample:
    """The letters of a word, counted while they are spelled: "c 1, a 2, t 3."."""
    word = some_word(d)
    while len(word) > 9:
        word = some_word(d)
    reasoning = ", ".join(f"{letter} {at}" for at, letter in enumerate(word, 1)) + "."
    request = loosely(d, d.wording(LETTERS)).format(x=word)
    return framed(d, request, str(len(word)), reasoning=reasoning, form=digits)


# ---- order and place

ORDER = [
    "Sort these words: {x}", "Sort these words alphabetically: {x}", "Sort: {x}", "Sort the words: {x}",
    "Order these words: {x}", "Put these words in alphabetical order: {x}", "Sort from A to Z: {x}",
    "Sort the list: {x}", "Sort this list:\n{x}", "Sort alphabetically: {x}",
    "Arrange these words alphabetically: {x}", "Can you sort these words? {x}", "{x}\nSort the words.",
    "{x}\nSort these words from A to Z.", "Order the words from A to Z: {x}", "Please sort: {x}",
    "Please sort these words: {x}", "Give these words in alphabetical order: {x}",
    "What is the alphabetical order of these words? {x}", "Sort the words {x}.",
    "Please put the words in alphabetical order: {x}", "Can you order this list from A to Z? {x}",
]  # fmt: skip


def order(d: Draw) -> Sample:
    """3 or 4 words in order: the first of those left, again and again."""
    left = different(
        d,
        words.first_name if d.chance(0.2) else some_word,
        d.choice([3, 3, 4]),
        key=lambda word: word[0].lower(),
    )
    request = loosely(d, d.wording(ORDER)).format(x=", ".join(left))
    wanted, steps = sorted(left), []
    for word in wanted:
        steps.append(f"Left: {', '.join(left)}. First: {word}.")
        left = [other for other in left if other != word]
    return framed(
        d,
        request,
        ", ".join(wanted),
        reasoning="\n".join(steps),
        form=lambda got: got["content"].count(", ") == len(wanted) - 1,
    )


MENTIONED = [
    "{x} Which name comes {place}?", "{x} Which name is {place}?", "{x} Who is named {place}?",
    "{x} Who is mentioned {place}?", "{x} What is the {place} name?", "{x} Give the {place} name.",
    "{x} Tell me the {place} name.", "{x}\nWhich name is {place}?", "{x}\nWhat is the {place} name?",
    "{x}\nWho is mentioned {place}?", "Who is mentioned {place}? {x}", "Find the {place} name: {x}",
    "Which name is mentioned {place}? {x}", "What is the {place} name here? {x}",
    "Which name comes {place}: {x}", "Which name stands {place}? {x}",
    "Read this. {x} Which name was {place}?", "{x} Which person was mentioned {place}?",
    "Please give the {place} name: {x}", "Name the person who is mentioned {place}. {x}",
    "Who comes {place}? {x}", "Please tell me who is mentioned {place}: {x}",
    "{x} Which of the names comes {place}?",
]  # fmt: skip
_PLACES = ["First", "Second", "Third", "Fourth"]


def mentioned(d: Draw) -> Sample:
    """Which of 2 to 4 names stands first, second, third in a sentence or two."""
    names = different(d, words.first_name, d.choice([2, 3, 3, 4]))
    at = d.integer(0, len(names) - 1)
    text = " ".join(
        d.choice(
            [
                f"{name} lives in {words.city(d)}.",
                f"{name} has a {words.noun(d)}.",
                f"{name} likes the {words.noun(d)}.",
                f"{name} can {words.verb(d)}.",
                f"Then {name} came.",
                f"The {words.noun(d)} is with {name}.",
                f"I know {name}.",
                f"My friend {name} is {words.adjective(d)}.",
            ]
        )
        for name in names
    )
    if d.chance(0.3):
        text = f"{words.listing(d, names, commas=0.7)} {d.choice(['are here', 'went home', 'play', 'are friends'])}."
    reasoning = " ".join(f"{place}: {name}." for place, name in zip(_PLACES, names[: at + 1], strict=False))
    request = d.wording(MENTIONED).format(x=text, place=_PLACES[at].lower())
    return framed(
        d, request, names[at], reasoning=reasoning, form=lambda got: " " not in got["content"].strip()
    )


def reasoning(d: Draw) -> Sample:
    """A question that is easier in steps."""
    return d.choice([chain, chain, two_steps, extreme, letters, order, mentioned])(d)


# ---- the switch is on, though the question needs no steps

WHAT_NAME = [
    "What is my name?", "What is my name?", "What's my name?", "Tell me my name.", "Do you know my name?",
    "Say my name.", "Please tell me my name.", "Do you remember my name?", "What was my name?",
    "What am I called?", "Give me my name.", "Please say my name.", "How am I called?",
    "Tell me what I am called.", "What name did I say?",
]  # fmt: skip
REPEAT = [
    "Say {x}.", "Say: {x}", "Repeat: {x}", "Repeat this: {x}", "Repeat after me: {x}", "Copy this: {x}",
    "Copy: {x}", "Write: {x}", "Write this: {x}", "Please repeat: {x}", "Repeat exactly: {x}",
    "Say only this: {x}", "Answer with: {x}", "Reply with: {x}", "Please copy: {x}", "Print this: {x}",
    "Can you repeat this: {x}", "Please say: {x}", "Copy this text: {x}", "Please write only this: {x}",
    "Write only this text: {x}",
]  # fmt: skip


def simple(d: Draw) -> Sample:
    """A greeting, a name from before, a copy, a sum and the like, with one line of reasoning."""
    kind = d.choice(["greeting", "named", "recall", "recall", "copy", "copy", "thanks", "unknown", "sum"])
    if kind == "greeting":
        request = loosely(d, d.wording(HELLO))
        return framed(
            d,
            request,
            f"Hello! {HELP}",
            reasoning="The user says hello. I greet the user.",
            form=_one_line,
            telling="nothing",
        )
    if kind == "thanks":
        return framed(
            d,
            loosely(d, d.wording(THANKS)),
            WELCOME,
            reasoning="The user thanks me.",
            form=_one_line,
        )
    if kind == "named":
        name = words.first_name(d)
        request = loosely(d, d.wording(INTRODUCED)).format(name=name)
        steps = f"The name is {name}. I greet {name}."
        return framed(
            d, request, f"Hello {name}, how can I help?", reasoning=steps, form=_one_line, telling="nothing"
        )
    if kind == "unknown":
        person = words.full_name(d)
        request = loosely(d, d.wording(PERSON)).format(person=person)
        return framed(
            d,
            request,
            UNKNOWN,
            reasoning=f"The user asks about {person}. I do not know {person}.",
            form=_one_line,
        )
    if kind == "sum":
        a, sign, b = fact(d)
        request = loosely(d, d.wording(ASKED)).format(e=expression(d, a, sign, b))
        total = str(result_of(a, sign, b))
        return framed(d, request, total, reasoning=f"{a} {sign} {b} = {total}.", form=digits)
    if kind == "copy":
        copied = d.choice(
            [words.string_of, words.invented, lambda d: words.phrase(d, 1, 4), words.full_name]
        )(d)
        request = d.wording(REPEAT).format(x=copied)
        return framed(
            d, request, copied, reasoning=f"The user wants a copy. The text is {copied}", form=_one_line
        )
    name = words.first_name(d)
    told = d.choice(
        [f"Hi, I am {name}.", f"Hello, I'm {name}!", f"Hey, this is {name}.", f"Hello! My name is {name}."]
    )
    asked = framed(
        d,
        loosely(d, d.wording(WHAT_NAME)),
        name,
        reasoning=f"The user asks for the name. The name is {name}.",
        telling="nothing",
        talk=0,
    )
    before: list[Message] = [user(told), says(f"Hello {name}, how can I help?")]
    if d.chance(0.4):
        before += d.choice([courtesy(d), [user("What is 2 + 2?"), says("4")]])
    messages = list(asked.messages)
    return Sample([*messages[:-2], *before, *messages[-2:]], thinking=True, form=_one_line)


ENTRIES = [
    Entry("reasoning", reasoning, bar=0.9, share=4),
    Entry("reasoning in one line", simple, bar=0.9, share=1.2),
]
