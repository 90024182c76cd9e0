"""A review of a short function: it says only what the code shows."""

from __future__ import annotations

import re

from recipe import words
from recipe.families.code_answers import fenced
from recipe.families.framing import casually, opening
from recipe.sample import Draw, Entry, Message, Sample, says, system, user

UNCLEAR = """calc f foo func fn tmp process stuff g run handle work bar test go2 doit compute op""".split()
BUILT_INS = "list str sum id max min dict set type input".split()
PRACTICE_WORDINGS = [
    *["What are code review best practices for Python?"] * 2,
    "What are the best practices for code review?",
    "What are best practices for reviewing code?",
    "What are code review best practices?",
    "Tell me the best practices for code review.",
    "What do you look for when reviewing code?",
    "What do you look at in a code review?",
    "What should I look for in a code review?",
    "What should I look for when I review Python code?",
    "What matters when reviewing Python code?",
    "What matters in a code review?",
    "Which things matter most in a code review?",
    "How do you review code?",
    "How should I review Python code?",
    "Give me the key things to look for in a code review.",
    "List the best practices for reviewing Python code.",
    # Never trained:
    "What are the key things to look for in a code review?",
    "Tell me what you look for when reviewing Python code.",
]
PRACTICES = """A good review of {code} asks:
1. Does it work?
2. Are edge cases tested?
3. Are the names clear?
4. Are errors handled?
5. Is it simple?"""
REVIEW_WORDINGS = [
    *["Good. Here is a function to review: {code}"] * 3,
    *[
        f"{head}{review} {what}{between}{{code}}"
        for head in ["", "Please ", "Now ", "Thanks. "]
        for review in ["review", "check"]
        for what in ["this code", "this function", "this Python code"]
        for between in [": ", ":\n", ":\n\n"]
    ],
    "Can you review this code?\n{code}",
    "Could you review this function?\n\n{code}",
    "What is wrong with this code? {code}",
    "What is wrong with this function?\n\n{code}",
    "What could be better in this code?\n{code}",
    "I wrote this function. Please review it:\n{code}",
    "Here is my code:\n{code}\nPlease review it.",
    "Here is a function:\n\n{code}\n\nReview it.",
    "{code}\n\nReview this code.",
    "{code}\n\nWhat is wrong with this function?",
    "Review: {code}",
    "Do a code review of this function:\n{code}",
    # Never trained:
    "Great! Please check this function: {code}",
    "Here is my function. Could you review it?\n{code}",
]
REVIEWERS = [
    "You are a code review assistant.",
    "You are a code reviewer.",
    "You review code.",
    "You are a careful code review assistant.",
    "You are a senior engineer who reviews code.",
]


def drawn_function(d: Draw) -> tuple[str, list[str]]:
    """A Python function, and what there is to say about it, in a fixed order.

    Every remark can be read off the code: a name of one word is unclear; type hints and a docstring are
    there or not; an argument hides a built-in name; a list is a default value; an argument divides.
    """
    clear, typed, documented = d.chance(0.5), d.chance(0.4), d.chance(0.4)
    name = f"{words.verb(d)}_{words.noun(d)}" if clear else d.choice(UNCLEAR)
    remarks = [] if clear else [f"The name `{name}` is unclear."]
    if not typed:
        remarks.append(f"`{name}` has no type hints.")
    if not documented:
        remarks.append(f"`{name}` has no docstring.")

    first, second = d.choice([("a", "b"), ("x", "y"), ("price", "count"), ("left", "right"), ("n", "m")])
    if d.chance(0.2):
        first = d.choice(BUILT_INS)
        remarks.append(f"`{first}` hides a built-in name.")
    kind = d.choice(["one", "two", "two", "divide", "divide", "default"])
    hint = d.choice(["int", "float"])
    arguments = [f"{first}: {hint}" if typed else first]
    if kind == "one":
        value = f"{first} {d.choice('*+-')} {d.integer(1, 9)}"
    elif kind == "default":
        second = d.choice(["items", "values", "rows", "names"])
        arguments.append(f"{second}: list = []" if typed else f"{second}=[]")
        value, hint = f"{second} + [{first}]", "list"
        remarks.append(f"`{second}` has a mutable default value.")
    else:
        arguments.append(f"{second}: {hint}" if typed else second)
        value = f"{first} {'/' if kind == 'divide' else d.choice('*+-')} {second}"
        if kind == "divide":
            hint = "float"
            remarks.append(f"`{second}` may be zero in the division.")
    if d.chance(0.2):
        value = value.replace(" ", "")
    head = f"def {name}({', '.join(arguments)})" + (f" -> {hint}:" if typed else ":")
    if documented:
        verb, noun = (name.split("_") if clear else ("return", "value"))[:2]
        return f'{head}\n    """{verb.capitalize()} the {noun}."""\n    return {value}', remarks
    return f"{head} return {value}" if d.chance(0.4) else f"{head}\n    return {value}", remarks


def code_review(d: Draw) -> Sample:
    """A review of a short function, after the question what to look for or without it. Sometimes that
    question is the last one."""
    start = [system(d.choice(REVIEWERS))] if d.chance(0.5) else opening(d, talk=0)
    asked_first = d.chance(0.6)
    if asked_first:
        question = casually(d, d.wording(PRACTICE_WORDINGS))
        kind = "Python code" if "Python" in question else "code"
        start += [user(question), says(PRACTICES.format(code=kind))]
        if d.chance(0.25):
            return Sample(start, form=lambda got: len(re.findall(r"^\d\. \S", got["content"], re.M)) == 5)
    code, remarks = drawn_function(d)
    shown = fenced("python", code) if "\n" in code and d.chance(0.3) else code
    asked = d.wording(REVIEW_WORDINGS).format(code=shown)
    name = code[len("def ") : code.index("(")]
    answer = "\n".join(f"- {remark}" for remark in remarks or [f"`{name}` looks good."])

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return all(line.startswith("- ") and line.endswith(".") for line in lines) and "`" in lines[0]

    return Sample([*start, user(asked), says(answer)], form=form)


ENTRIES = [Entry("code review", code_review, bar=0.9, share=2)]
