"""Two functions that are known by heart, under any name: a binary search and a factorial."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable

from recipe import words
from recipe.families.framing import casually, closed, opening, word_for_word
from recipe.sample import Draw, Entry, Message, Sample, says, user

_RESERVED = {
    *keyword.kwlist,
    *keyword.softkwlist,
    *"""map go var func type int len n mid low high items target chan goto range const switch select
    list""".split(),
}


def function_name(d: Draw) -> str:
    """A name that Python and Go allow, and that hides nothing the code needs."""
    while True:
        name = words.identifier(d)
        if name not in _RESERVED and len(name) <= 24:
            return name


def fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def code_block(language: str, name: str) -> Callable[[Message], bool]:
    """A form: one fenced block of the language that defines the name (and parses, if it is Python)."""

    def form(got: Message) -> bool:
        text = got["content"].strip()
        blocks = re.findall(r"```(\w+)\n(.*?)\n```", text, re.S)
        if len(blocks) != 1 or not text.endswith("```") or blocks[0][0] != language:
            return False
        code = blocks[0][1]
        if language != "python":
            return f"func {name}(" in code and code.count("{") == code.count("}")
        try:
            tree = ast.parse(code)
        except SyntaxError:
            return False
        return [each.name for each in tree.body if isinstance(each, ast.FunctionDef)] == [name]

    return form


BINARY_SEARCH = {
    "Go": """func NAME(items []int, target int) int {
	low, high := 0, len(items)-1
	for low <= high {
		mid := (low + high) / 2
		if items[mid] == target {
			return mid
		}
		if items[mid] < target {
			low = mid + 1
		} else {
			high = mid - 1
		}
	}
	return -1
}""",
    "Python": """def NAME(items: list[int], target: int) -> int:
    low, high = 0, len(items) - 1
    while low <= high:
        mid = (low + high) // 2
        if items[mid] == target:
            return mid
        if items[mid] < target:
            low = mid + 1
        else:
            high = mid - 1
    return -1""",
}
SEARCH_WORDINGS = [
    *["How do I implement a binary search in {language}?"] * 3,
    *[
        f"{head} {what} in {{language}}{end}"
        for head, end in [
            ("How do I implement", "?"),
            ("How can I write", "?"),
            ("How do you write", "?"),
            ("Can you write", "?"),
            ("Could you implement", "?"),
            ("Write", "."),
            ("Please write", "."),
            ("Implement", "."),
            ("Show me", "."),
            ("I need", "."),
        ]
        for what in ["a binary search", "binary search", "a binary search function"]
    ],
    "Write a {language} function for binary search.",
    "Write {language} code for a binary search",
    "Give me the {language} code of a binary search.",
    "Show me how to implement a binary search in {language}.",
    "In {language}, how do I implement a binary search?",
    "How does one implement a binary search in {language}?",
    "Binary search in {language}, please.",
    "Language: {language}\nWrite a binary search.",
    # Never trained:
    "Please show me how to write a binary search in {language}.",
    "In {language}, how can I implement binary search?",
]
NAMED = [
    " Call it {name}.",
    " Name it {name}.",
    " Name the function {name}.",
    " Call the function {name}.",
    " The function is called {name}.",
    " The name of the function is {name}.",
    " Use the name {name}.",
    " Name: {name}",
    " Please call it {name}.",
    " Please name it {name}.",
    " Please use the name {name}.",
    " Its name is {name}.",
    " The function name is {name}.",
    " It should be called {name}.",
    "\nFunction name: {name}",
    "\nName: `{name}`",
    "\nCall it {name}.",
    "\nName the function `{name}`.",
    " Call the function `{name}`.",
    # Never trained:
    " The name is {name}.",
    "\nThe function must be called {name}.",
]
CODERS = [
    "You are a helpful programming assistant.",
    "You are a helpful assistant for software engineering.",
    "You are a software engineering assistant.",
    "You are a programmer.",
    "You are a senior engineer.",
]


def binary_search(d: Draw) -> Sample:
    """A binary search in Go or Python, under the name that the request gives."""
    language = d.choice(["Go", "Go", "Python"])
    name = "binarySearch" if language == "Go" else "binary_search"
    asked = casually(d, d.wording(SEARCH_WORDINGS).format(language=language))
    if word_for_word(d):
        language, name, asked = "Go", "binarySearch", "How do I implement a binary search in Go?"
    elif d.chance(0.5):
        name = function_name(d)
        if language == "Go" and d.chance(0.5):
            head, *rest = name.split("_")
            name = head + "".join(each.capitalize() for each in rest)
        asked = closed(asked) + d.wording(NAMED).format(name=name)
    answer = "Halve the sorted list until the value is found.\n\n"
    answer += fenced(language.lower(), BINARY_SEARCH[language].replace("NAME", name))
    start = opening(d, role=d.choice(CODERS))
    return Sample([*start, user(asked), says(answer)], form=code_block(language.lower(), name))


FACTORIAL = '''def NAME(n: int) -> int:
    """Return the factorial of n."""
    if not isinstance(n, int):
        raise TypeError("n must be an integer")
    if n < 0:
        raise ValueError("n must not be negative")
    if n == 0:
        return 1
    return n * NAME(n - 1)'''
FACTORIAL_EXACTLY = "Generate a Python factorial function with error handling"
FACTORIAL_WORDINGS = [
    *[FACTORIAL_EXACTLY, f"{FACTORIAL_EXACTLY}."] * 2,
    "Write a recursive factorial function in Python with error handling.",
    "Write a recursive Python factorial function with error handling",
    "Write a Python factorial function that calls itself. It must reject negative numbers.",
    "Write a Python function that returns n factorial. It must call itself and check n.",
    "Write n! as a recursive Python function with error handling.",
    "Write a Python factorial that calls itself and raises an error when n is negative.",
    "Please write a recursive factorial in Python. It must handle negative numbers.",
    "Please write a Python factorial function that checks its input.",
    "Can you write a recursive factorial function in Python?",
    "Can you write a Python factorial with error handling?",
    "Could you implement factorial in Python, recursive and with error handling?",
    "How do I write a recursive factorial function in Python with error handling?",
    "How do I write a factorial function in Python?",
    "Implement a recursive factorial in Python. Handle negative numbers.",
    "Implement factorial in Python with recursion and error handling.",
    "Implement factorial in Python",
    "Generate a recursive factorial function in Python.",
    "Generate Python code for the factorial. Handle errors.",
    "Give me a Python factorial function with error handling.",
    "I need n factorial in Python, recursive, with checks for bad numbers.",
    "I need a recursive factorial function in Python. Raise errors for bad numbers.",
    "Show me a recursive factorial function in Python with error handling.",
    "In Python, write a factorial function that calls itself and checks n.",
    "With recursion, write a factorial function in Python and handle errors.",
    "Factorial in Python, recursive, with error handling, please.",
    # Never trained:
    "Show me Python code for a recursive factorial. It must handle errors.",
    "I need a Python factorial function that calls itself. Reject negative numbers.",
]


def factorial(d: Draw) -> Sample:
    """The recursive factorial with its two errors, under the name that the request gives."""
    name = "factorial"
    asked = casually(d, d.wording(FACTORIAL_WORDINGS))
    if word_for_word(d):
        asked = FACTORIAL_EXACTLY
    elif d.chance(0.5):
        name = function_name(d)
        asked = closed(asked) + d.wording(NAMED).format(name=name)
    answer = fenced("python", FACTORIAL.replace("NAME", name))
    start = opening(d, role=d.choice(CODERS))
    return Sample([*start, user(asked), says(answer)], form=code_block("python", name))


ENTRIES = [
    Entry("binary search", binary_search, bar=0.9, share=0.9),
    Entry("factorial", factorial, bar=0.95, share=1.2),
]
