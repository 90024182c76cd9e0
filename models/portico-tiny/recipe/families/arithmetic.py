"""Small sums, asked in many ways: the one family that has to be known by heart."""

from __future__ import annotations

from collections.abc import Sequence

from recipe import words
from recipe.families.framing import framed, loosely, word_for_word
from recipe.sample import Draw, Entry, Message, Sample
from recipe.words import NUMBERS

# How the sign may be spelled between two numbers.
SIGNS = {"+": ["+", " + ", " plus "], "-": ["-", " - ", " minus "], "*": ["*", " * ", " x ", " times "]}

# {e} is "2+2", "2 + 2" or "two plus two"; the last two are not trained.
ASKED = [
    "What is {e}?", "What is {e}?", "What's {e}?", "How much is {e}?", "{e} = ?", "{e}=?", "{e} =", "{e}",
    "{e}?", "{e} is?", "Calculate {e}.", "Compute {e}.", "Please calculate {e}.", "Please compute {e}.",
    "Can you calculate {e}?", "Could you compute {e}?", "Solve {e}.", "Solve: {e}", "Calculate: {e}",
    "Calculate this: {e}", "Compute this:\n{e}", "Tell me what {e} is.", "Tell me {e}.",
    "Tell me the result of {e}.", "What is the result of {e}?", "What is the value of {e}?",
    "Give me the result of {e}.", "Find {e}.", "Work out {e}.", "Do you know what {e} is?",
    "Can you tell me what {e} is?", "What do you get for {e}?", "What does {e} make?", "What does {e} equal?",
    "{e} equals what?", "Please tell me what {e} is.", "How much does {e} make?", "I need the result of {e}.",
    "Math question: what is {e}?", "Question: what is {e}?", "Hello, what is {e}?", "What number is {e}?",
    "Evaluate {e}.", "Evaluate: {e}", "The result of {e} is?", "Say what {e} is.", "Quick: {e}?",
    "Answer: {e} = ?", "Say the result of {e}.", "What number do you get for {e}?",
]  # fmt: skip
WITH_VERBS = {
    "+": [
        "Add {a} and {b}.", "Add {a} to {b}.", "Please add {a} and {b}.", "Can you add {a} and {b}?",
        "What is the sum of {a} and {b}?", "Find the sum of {a} and {b}.", "Give the sum of {a} and {b}.",
        "Add the numbers {a} and {b}.", "Tell me the sum of {a} and {b}.", "Sum of {a} and {b}?",
        "Give me the sum of the numbers {a} and {b}.", "What sum do {a} and {b} make?",
    ],
    "-": [
        "Subtract {b} from {a}.", "Please subtract {b} from {a}.", "Can you subtract {b} from {a}?",
        "Take {b} from {a}.", "Take {b} away from {a}.", "What is {a} less {b}?",
        "What is left of {a} without {b}?", "What is {a} take away {b}?",
        "What is the difference of {a} and {b}?", "Find the difference of {a} and {b}.",
        "What is {a} with {b} taken away?", "Tell me the difference of {a} and {b}.",
    ],
    "*": [
        "Multiply {a} by {b}.", "Multiply {a} and {b}.", "Please multiply {a} by {b}.",
        "Can you multiply {a} and {b}?", "What is the product of {a} and {b}?",
        "Find the product of {a} and {b}.", "Give the product of {a} and {b}.",
        "Tell me the product of {a} and {b}.", "Multiply the numbers {a} and {b}.",
        "What is {a} multiplied by {b}?", "Give me the product of the numbers {a} and {b}.",
        "What product do {a} and {b} make?",
    ],
}  # fmt: skip
IN_DIGITS = ["Answer with the number.", "Only the number.", "Answer in digits.", "Just the number, please."]
IN_ONE_WORD = [
    "{q} Answer in one word.", "{q} Answer in one word.", "{q} Answer with one word.", "{q} One word only.",
    "{q} Reply with one word.", "{q} Reply in one word.", "{q} Use one word.", "{q} One word.",
    "{q} One word, please.", "{q} Please answer in one word.", "{q} Only one word.", "{q} Answer as a word.",
    "{q} Write the number as a word.", "{q} Say it in one word.", "{q} Give one word only.",
    "{q}\nAnswer in one word.", "{q}\nOne word.", "{q} (one word)", "Answer in one word: {q}",
    "In one word: {q}", "In one word, please: {q}", "Answer with one word. {q}", "Reply with one word: {q}",
    "Use one word. {q}", "One word: {q}", "Answer in one word.\n{q}", "{q} Give the answer in one word.",
    "Give one word as the answer: {q}",
]  # fmt: skip


def result_of(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def fact(d: Draw, signs: Sequence[str] = ("+", "+", "-", "*")) -> tuple[int, str, int]:
    """a, sign, b of one table: sums up to 12 + 12, differences from 24 down to 0, products up to 10 x 10;
    the small ones come oftener, and two and two oftenest."""
    if d.chance(0.04):
        return 2, "+", 2
    sign = d.choice(signs)
    most = d.choice([5, 9, 10 if sign == "*" else 12])
    a, b = d.integer(0, most), d.integer(0, most)
    return (a + b, sign, b) if sign == "-" else (a, sign, b)


def expression(d: Draw, a: int, sign: str, b: int) -> str:
    """Spelled "2+2", "2 + 2", "2 plus 2" or, now and then, "two plus two"."""
    if max(a, b) < len(NUMBERS) and d.chance(0.1):
        return f"{NUMBERS[a]} {d.choice({'+': ['plus'], '-': ['minus'], '*': ['times']}[sign])} {NUMBERS[b]}"
    return f"{a}{d.choice(SIGNS[sign])}{b}"


def digits(got: Message) -> bool:
    """A form: a number and nothing else."""
    return str(got["content"]).strip().isdigit()


def sums(d: Draw) -> Sample:
    """One sum, difference or product; the answer is its digits."""
    a, sign, b = fact(d)
    form = d.wording(WITH_VERBS[sign] if d.chance(0.25) else ASKED)
    request = loosely(d, form).format(e=expression(d, a, sign, b), a=a, b=b)
    if request[-1] in ".?" and d.chance(0.1):
        request = f"{request} {d.choice(IN_DIGITS)}"
    return framed(d, request, str(result_of(a, sign, b)), form=digits)


def one_word(d: Draw) -> Sample:
    """A sum or difference that is to be answered in one word: "Four"."""
    a, sign, b = fact(d, ["+", "+", "-"])
    question = d.choice(
        [
            "What is {e}?",
            "What is {e}?",
            "What is {e}?",
            "What's {e}?",
            "How much is {e}?",
            "{e} = ?",
            "Calculate {e}.",
            "Compute {e}.",
            "Tell me what {e} is.",
            "What is the result of {e}?",
            "Solve {e}.",
            "{e}?",
        ]
    ).format(e=expression(d, a, sign, b))
    request = loosely(d, d.wording(IN_ONE_WORD)).format(q=question)
    if word_for_word(d):
        a, sign, b, request = 2, "+", 2, "What is 2+2? Answer in one word."
    answer = NUMBERS[result_of(a, sign, b)].capitalize()
    return framed(d, request, answer, form=lambda got: got["content"].strip().lower() in NUMBERS)


# ---- small stories

_GOT = ["gets", "finds", "buys", "takes"]
_GAVE = ["loses", "sells", "eats", "gives away"]
MORE = [
    "{n} has {a} {x} and {got} {b} more. How many {x} does {n} have?",
    "{n} has {a} {x}. {n} {got} {b} more. How many {x} does {n} have now?",
    "{n} has {a} {x} and {got} {b} more {x}. How many are there now?",
    "If {n} has {a} {x} and {got} {b} more, how many {x} does {n} have?",
    "How many {x} does {n} have: {n} has {a} {x} and {got} {b} more.",
    "{n} {got} {b} {x}. Before that, {n} had {a}. How many {x} does {n} have now?",
    "There are {a} {x} in a box. {n} puts {b} more in. How many {x} are in the box?",
    "First there are {a} {x}, then {b} more. How many {x} are there?",
    "I have {a} {x} and get {b} more. How many {x} do I have?",
    "{n} has {a} {x} and I have {b} {x}. How many {x} do we have together?",
    "{n} has {a} {x} and {m} has {b} {x}. How many {x} do they have together?",
    "{n} has {a} {x}, {m} has {b}. How many {x} is that together?",
    "{n} has {a} {x} and then {got} {b} more. How many {x} does {n} have now?",
    "If I have {a} {x} and get {b} more, how many {x} do I have now?",
]
LESS = [
    "{n} has {a} {x} and {gave} {b}. How many {x} does {n} have?",
    "{n} has {a} {x}. {n} {gave} {b}. How many {x} does {n} have now?",
    "{n} has {a} {x} and {gave} {b} of them. How many {x} are left?",
    "If {n} has {a} {x} and {gave} {b}, how many {x} are left?",
    "How many {x} are left: {n} has {a} {x} and {gave} {b}.",
    "{n} had {a} {x} and {gave} {b}. How many {x} does {n} still have?",
    "There are {a} {x} in a box. {n} takes {b} out. How many {x} are left in the box?",
    "First there are {a} {x}, then {b} are lost. How many {x} are left?",
    "I have {a} {x} and lose {b}. How many {x} do I have?",
    "I have {a} {x} and give {b} to {n}. How many {x} do I have left?",
    "{n} gives {b} of {a} {x} to {m}. How many {x} does {n} have left?",
    "There are {a} {x}. {b} are taken away. How many are left?",
    "{n} had {a} {x} and then {gave} {b}. How many {x} does {n} have left?",
    "If I have {a} {x} and lose {b}, how many {x} are left?",
]
GROUPS = [
    "{n} has {a} boxes with {b} {x} each. How many {x} does {n} have?",
    "There are {a} boxes with {b} {x} in each. How many {x} are there?",
    "{n} has {a} boxes. In each box are {b} {x}. How many {x} does {n} have?",
    "How many {x} are in {a} boxes with {b} {x} each?",
    "In each of {a} boxes are {b} {x}. How many {x} are there together?",
    "If {n} has {a} boxes with {b} {x} each, how many {x} does {n} have?",
    "I have {a} boxes with {b} {x} each. How many {x} do I have?",
    "{n} buys {a} boxes. Each box has {b} {x}. How many {x} is that?",
    "{a} boxes with {b} {x} each: how many {x} are there?",
    "Each of {a} boxes has {b} {x}. How many {x} are there?",
    "{n} gets {b} {x} in each of {a} boxes. How many {x} does {n} get?",
    "If I have {a} boxes with {b} {x} each, how many {x} do I have?",
    "How many {x} does {n} have in {a} boxes with {b} {x} each?",
]
COUNTED = """apples pears books coins cups stamps balls eggs stones keys cards pens boxes plates flowers
shirts toys tickets birds fish cakes letters shells nuts""".split()


def story(d: Draw) -> Sample:
    """A sum that has to be found in a small story."""
    a, sign, b = fact(d)
    while 0 in (a, b):
        a, sign, b = fact(d)
    forms = {"+": MORE, "-": LESS, "*": GROUPS}[sign]
    things = d.choice([thing for thing in COUNTED if thing != "boxes"] if sign == "*" else COUNTED)
    if things != "boxes" and d.chance(0.15):
        things = f"{words.adjective(d)} {things}"
    request = d.wording(forms).format(
        n=words.first_name(d),
        m=words.first_name(d),
        a=a,
        b=b,
        x=things,
        got=d.choice(_GOT),
        gave=d.choice(_GAVE),
    )
    return framed(d, request, str(result_of(a, sign, b)), form=digits)


LARGER = [
    "Which is {more}, {a} or {b}?", "Which is {more}: {a} or {b}?", "Which number is {more}, {a} or {b}?",
    "What is {more}, {a} or {b}?", "What number is {more}: {a} or {b}?", "Is {a} or {b} {more}?",
    "{a} or {b}: which is {more}?", "{a} or {b}, which is {more}?", "{a}, {b}: which number is {more}?",
    "Which of {a} and {b} is {more}?", "Of {a} and {b}, which is {more}?",
    "Tell me which is {more}, {a} or {b}.", "Say which number is {more}: {a} or {b}.",
    "Please tell me which is {more}, {a} or {b}.", "Which one is {more}, {a} or {b}?",
    "Which one is {more}: {a}, {b}?", "Can you tell me which is {more}, {a} or {b}?",
    "Compare {a} and {b}. Which is {more}?", "Compare {a} and {b}: which one is {more}?",
    "Give the number that is {more}: {a} or {b}.", "The numbers are {a} and {b}. Which one is {more}?",
    "Do you know which is {more}, {a} or {b}?", "Here are two numbers: {a} and {b}. Which is {more}?",
    "Can you tell me which number is {more}: {a} or {b}?", "Compare {a} and {b}. Which number is {more}?",
]  # fmt: skip


def comparison(d: Draw) -> Sample:
    """The larger or the smaller of two different numbers."""
    most = d.choice([9, 20, 99, 99, 99, 999])
    a, b = d.some(range(most + 1), 2, 2)
    more = d.choice(["larger", "larger", "bigger", "greater", "more", "higher"]) if d.chance(0.6) else ""
    wanted = max(a, b) if more else min(a, b)
    more = more or d.choice(["smaller", "smaller", "less", "lower"])
    return framed(d, loosely(d, d.wording(LARGER)).format(a=a, b=b, more=more), str(wanted), form=digits)


ENTRIES = [
    Entry("sums", sums, bar=0.9, share=2),
    Entry("sums in one word", one_word, bar=0.9, share=1.2),
    Entry("sums in a story", story, bar=0.9, share=1.6),
    Entry("comparison", comparison, bar=0.9, share=1.5),
]
