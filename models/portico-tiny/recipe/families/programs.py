"""Small programs that portico-tiny can write: their files, what they print, and the faults they may have.

A program follows from its task alone (names and texts in the task are copied), so that a model can be asked
for it and judged by equality. Numbers in the tests are always the same, because sums would be memorised.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from recipe import words
from recipe.sample import Draw


@dataclass(frozen=True)
class Fault:
    """One fault in one file: `good` stands once in the right file, `bad` once in the wrong one.

    function: where it is. error: what Python says, or "" where only the test's assertion fails; then `actual`
    is what the function gave. said: the reviewer's words.
    """

    path: str
    function: str
    good: str
    bad: str
    error: str
    said: str
    actual: str = "None"


@dataclass(frozen=True)
class Program:
    """A program with its tests.

    asked: what it does as the object of a task ("prints hello world"); noun: the task as a noun phrase, or "".
    run, output: a command and what it prints; test: the command of the tests.
    holes: (path, whole function with `pass`, whole function) for functions that may be left unwritten.
    """

    kind: str
    asked: str
    files: dict[str, str]
    does: dict[str, str]
    run: str
    output: str
    noun: str = ""
    language: str = "Python"
    modality: str = "command-line application"
    test: str = "python -m unittest"
    tests: tuple[str, ...] = ("test_main",)
    faults: list[Fault] = field(default_factory=list)
    holes: list[tuple[str, str, str]] = field(default_factory=list)


def unit_test(module: str, imported: str, checks: list[tuple[str, str]]) -> str:
    """A test file: one method for each (name, assertion)."""
    methods = "\n\n".join(f"    def test_{name}(self):\n        {check}" for name, check in checks)
    case = "Test" + "".join(part.capitalize() for part in module.split("_"))
    return (
        f"import unittest\n\nfrom {module} import {imported}\n\n\n"
        f"class {case}(unittest.TestCase):\n{methods}\n\n\n"
        'if __name__ == "__main__":\n    unittest.main()\n'
    )


MAIN = 'if __name__ == "__main__":\n'


def misspelt(d: Draw, name: str) -> str:
    """`name` with one letter doubled, dropped or changed for its neighbour."""
    if len(name) < 3:
        return d.choice([each for each in "xyzkw" if each != name])
    at = d.integer(1, len(name) - 1)
    made = d.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + name[at - 1] + name[at:],
            name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :],
        ]
    )
    return made if made != name else name + name[-1]


# ---- programs that print something


def text_fault(d: Draw, function: str, text: str) -> Fault:
    """The function gives the text back with one word misspelt."""
    changed = text.split(" ")
    at = d.integer(0, len(changed) - 1)
    changed[at] = misspelt(d, changed[at])
    wrong = " ".join(changed)
    said = f'returns "{wrong}", must return "{text}"'
    return Fault("main.py", function, f'return "{text}"', f'return "{wrong}"', "", said, f"'{wrong}'")


def hello(d: Draw, text: str | None = None) -> Program:
    text = text or (
        d.choice(["hello world", "hello world", "Hello, World!"]) if d.chance(0.4) else shown_text(d)
    )
    right = f'return "{text}"'
    fault = text_fault(d, "message", text)
    return Program(
        kind="hello",
        asked=f"prints {text}",
        noun=f"{text} program" if text == "hello world" else "",
        files={
            "main.py": f"def message():\n    {right}\n\n\n{MAIN}    print(message())\n",
            "test_main.py": unit_test(
                "main", "message", [("message", f'self.assertEqual(message(), "{text}")')]
            ),
        },
        does={"main.py": f"prints {text}", "test_main.py": "tests message"},
        run="python main.py",
        output=text,
        faults=[fault],
        holes=[("main.py", "def message():\n    pass", f"def message():\n    {right}")],
    )


def shown_text(d: Draw) -> str:
    """A text that a program prints: no quotes, no backslashes."""
    made = words.phrase(d, 1, 4)
    if d.chance(0.3):
        made = made.capitalize()
    if d.chance(0.15):
        made += d.choice(["!", ".", "?"])
    if d.chance(0.15):
        made += f" {words.number(d)}"
    if d.chance(0.15):
        made = f"{d.choice(['Hello', 'Hi', 'Goodbye', 'Welcome'])} {words.first_name(d)}"
    return made


def saver(d: Draw) -> Program:
    """It prints nothing: what it makes is a file."""
    text, path = shown_text(d), f"{words.word(d)}.txt"
    right = f'return "{text}"'
    fault = text_fault(d, "text", text)
    return Program(
        kind="saver",
        asked=f"writes {text} to {path}",
        files={
            "main.py": f"from pathlib import Path\n\n\ndef text():\n    {right}\n\n\n"
            f'{MAIN}    Path("{path}").write_text(text())\n',
            "test_main.py": unit_test("main", "text", [("text", f'self.assertEqual(text(), "{text}")')]),
        },
        does={"main.py": f"writes {text} to {path}", "test_main.py": "tests text"},
        run="python main.py",
        output="",
        faults=[fault],
        holes=[("main.py", "def text():\n    pass", f"def text():\n    {right}")],
    )


def numbers(d: Draw) -> Program:
    last = d.integer(2, 12)
    return Program(
        kind="numbers",
        asked=f"prints the numbers from 1 to {last}",
        files={
            "main.py": f"def numbers():\n    return list(range(1, {last + 1}))\n\n\n{MAIN}    for number in numbers():\n        print(number)\n",
            "test_main.py": unit_test(
                "main", "numbers", [("numbers", f"self.assertEqual(numbers()[-1], {last})")]
            ),
        },
        does={"main.py": f"prints the numbers from 1 to {last}", "test_main.py": "tests numbers"},
        run="python main.py",
        output="\n".join(str(each) for each in range(1, last + 1)),
        faults=[
            Fault(
                "main.py",
                "numbers",
                f"range(1, {last + 1})",
                f"range(1, {last})",
                "",
                f"stops before {last}, must return list(range(1, {last + 1}))",
                str(last - 1),
            ),
        ],
        holes=[
            ("main.py", "def numbers():\n    pass", f"def numbers():\n    return list(range(1, {last + 1}))")
        ],
    )


# ---- one function and its test: what it does, parameters, right and wrong expression, one example
# name, what, parameters, right, wrong, example, value
FUNCTIONS: list[tuple[str, str, str, str, str, str, str]] = [
    ("add", "adds two numbers", "a, b", "a + b", "a - b", "2, 3", "5"),
    ("subtract", "subtracts two numbers", "a, b", "a - b", "a + b", "5, 3", "2"),
    ("multiply", "multiplies two numbers", "a, b", "a * b", "a + b", "2, 3", "6"),
    ("divide", "divides two numbers", "a, b", "a / b", "a * b", "6, 3", "2.0"),
    ("square", "squares a number", "x", "x * x", "x + x", "3", "9"),
    ("double", "doubles a number", "x", "x * 2", "x * 3", "4", "8"),
    ("is_even", "says whether a number is even", "n", "n % 2 == 0", "n % 2 == 1", "4", "True"),
    ("is_odd", "says whether a number is odd", "n", "n % 2 == 1", "n % 2 == 0", "3", "True"),
    ("shout", "makes a text upper case", "text", "text.upper()", "text.lower()", '"abc"', '"ABC"'),
    ("whisper", "makes a text lower case", "text", "text.lower()", "text.upper()", '"ABC"', '"abc"'),
    ("reverse", "reverses a text", "text", "text[::-1]", "text[::1]", '"abc"', '"cba"'),
    (
        "count_words",
        "counts the words of a text",
        "text",
        "len(text.split())",
        "len(text)",
        '"one two three"',
        "3",
    ),
    (
        "largest",
        "finds the largest of some numbers",
        "numbers",
        "max(numbers)",
        "min(numbers)",
        "[3, 7, 5]",
        "7",
    ),
    (
        "smallest",
        "finds the smallest of some numbers",
        "numbers",
        "min(numbers)",
        "max(numbers)",
        "[3, 7, 5]",
        "3",
    ),
    ("total", "sums some numbers", "numbers", "sum(numbers)", "len(numbers)", "[1, 2, 3]", "6"),
    (
        "average",
        "finds the average of some numbers",
        "numbers",
        "sum(numbers) / len(numbers)",
        "sum(numbers) * len(numbers)",
        "[1, 2, 3]",
        "2.0",
    ),
    ("first", "gives the first of some items", "items", "items[0]", "items[1]", "[4, 5, 6]", "4"),
    ("last", "gives the last of some items", "items", "items[-1]", "items[0]", "[4, 5, 6]", "6"),
    (
        "area",
        "computes the area of a rectangle",
        "width, height",
        "width * height",
        "width + height",
        "2, 4",
        "8",
    ),
    ("greet", "greets a person by name", "name", '"Hello " + name', '"Hello" + name', '"Ada"', '"Hello Ada"'),
]


def function(d: Draw) -> Program:
    known, what, parameters, right, wrong, example, value = d.choice(FUNCTIONS)
    name = known if d.chance(0.4) else words.identifier(d)
    parameter = d.choice(parameters.split(", "))
    lost = misspelt(d, parameter)
    missing = right.replace(parameter, lost) if right.count(parameter) == 1 else ""
    actual = repr(eval(f"(lambda {parameters}: {wrong})({example})"))
    faults = [
        Fault(
            "main.py",
            name,
            f"return {right}",
            f"return {wrong}",
            "",
            f"returns {wrong}, must return {right}",
            actual,
        ),
        Fault("main.py", name, f"return {right}", right, "", f"returns nothing, must return {right}"),
    ]
    if missing:
        faults.append(
            Fault(
                "main.py",
                name,
                f"return {right}",
                f"return {missing}",
                f"NameError: name '{lost}' is not defined",
                f"the name {lost} is not defined, must return {right}",
            )
        )
    return Program(
        kind="function",
        asked=f"{what} with a function {name}",
        modality="library",
        files={
            "main.py": f"def {name}({parameters}):\n    return {right}\n\n\n{MAIN}    print({name}({example}))\n",
            "test_main.py": unit_test(
                "main", name, [(name, f"self.assertEqual({name}({example}), {value})")]
            ),
        },
        does={"main.py": f"{what} with a function {name}", "test_main.py": f"tests {name}"},
        run="python main.py",
        output=value.strip('"'),
        faults=faults,
        holes=[
            (
                "main.py",
                f"def {name}({parameters}):\n    pass",
                f"def {name}({parameters}):\n    return {right}",
            )
        ],
    )


# ---- two larger ones

CALCULATOR = """import sys


def calculate(a, sign, b):
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    if sign == "/" and b != 0:
        return a / b
    raise ValueError("cannot calculate that")


if __name__ == "__main__":
    words = sys.argv[1:] or ["2", "+", "3"]
    print(calculate(float(words[0]), words[1], float(words[2])))
"""


def calculator(d: Draw) -> Program:
    faults = [
        Fault(
            "main.py",
            "calculate",
            "return a + b",
            "return b + b",
            "",
            "returns b + b, must return a + b",
            "6",
        ),
        Fault(
            "main.py",
            "calculate",
            "return a * b",
            "return a ** b",
            "",
            "returns a ** b, must return a * b",
            "8",
        ),
        Fault(
            "main.py",
            "calculate",
            "return a / b",
            "return a // b",
            "",
            "returns a // b, must return a / b",
            "2",
        ),
    ]
    return Program(
        kind="calculator",
        asked="calculates with two numbers",
        noun="calculator",
        files={
            "main.py": CALCULATOR,
            "test_main.py": unit_test(
                "main",
                "calculate",
                [
                    ("add", 'self.assertEqual(calculate(2, "+", 3), 5)'),
                    ("multiply", 'self.assertEqual(calculate(2, "*", 3), 6)'),
                    ("divide", 'self.assertEqual(calculate(5, "/", 2), 2.5)'),
                ],
            ),
        },
        does={"main.py": "calculates with two numbers", "test_main.py": "tests calculate"},
        run="python main.py 2 + 3",
        output="5.0",
        tests=("add", "divide", "multiply"),
        faults=faults,
    )


TODO = """import json
import sys
from pathlib import Path

FILE = Path("todo.json")


def load():
    return json.loads(FILE.read_text()) if FILE.exists() else []


def add(items, text):
    return [*items, {"text": text, "done": False}]


def finish(items, number):
    items[number - 1]["done"] = True
    return items


def show(items):
    return [("x " if item["done"] else "- ") + item["text"] for item in items]


def main(words):
    items = load()
    if words[:1] == ["add"]:
        items = add(items, " ".join(words[1:]))
    if words[:1] == ["done"]:
        items = finish(items, int(words[1]))
    FILE.write_text(json.dumps(items))
    print("\\n".join(show(items)))


if __name__ == "__main__":
    main(sys.argv[1:])
"""


def todo(d: Draw) -> Program:
    faults = [
        Fault(
            "main.py",
            "finish",
            '["done"] = True',
            '["done"] = False',
            "",
            "sets False, must set True",
            "'- tea'",
        ),
        Fault(
            "main.py",
            "finish",
            "items[number - 1]",
            "items[number]",
            "IndexError: list index out of range",
            "takes items[number], must take items[number - 1]",
        ),
    ]
    return Program(
        kind="todo",
        asked="keeps a list of things to do",
        noun=d.choice(["todo app", "to-do app", "to-do list", "todo list"]),
        files={
            "main.py": TODO,
            "test_main.py": unit_test(
                "main",
                "add, finish, show",
                [
                    ("add", 'self.assertEqual(show(add([], "tea"))[0], "- tea")'),
                    ("finish", 'self.assertEqual(show(finish(add([], "tea"), 1))[0], "x tea")'),
                ],
            ),
        },
        does={"main.py": "keeps a list of things to do", "test_main.py": "tests add, finish and show"},
        run="python main.py add tea",
        output="- tea",
        tests=("add", "finish"),
        faults=faults,
    )


# ---- other languages


def page(d: Draw) -> Program:
    text = shown_text(d)
    return Program(
        kind="page",
        asked=f"shows {text}",
        noun=f"web page that shows {text}",
        language="HTML",
        modality="web page",
        files={
            "index.html": f"<!doctype html>\n<html>\n<head><title>{text}</title></head>\n<body>\n<h1>{text}</h1>\n</body>\n</html>\n",
            "test_index.py": "import unittest\nfrom pathlib import Path\n\n\nclass TestIndex(unittest.TestCase):\n    def test_text(self):\n"
            f'        self.assertIn("<h1>{text}</h1>", Path("index.html").read_text())\n\n\n{MAIN}    unittest.main()\n',
        },
        does={"index.html": f"shows {text}", "test_index.py": "tests index.html"},
        run="",
        output="",
        tests=("text",),
    )


def script(d: Draw) -> Program:
    text = shown_text(d)
    return Program(
        kind="script",
        asked=f"prints {text} in JavaScript",
        language="JavaScript",
        files={
            "main.js": f'function message() {{\n  return "{text}";\n}}\n\nmodule.exports = {{ message }};\n\nif (require.main === module) {{\n  console.log(message());\n}}\n',
            "main.test.js": 'const assert = require("assert");\nconst test = require("node:test");\nconst { message } = require("./main.js");\n\n'
            f'test("message", () => {{\n  assert.equal(message(), "{text}");\n}});\n',
        },
        does={"main.js": f"prints {text}", "main.test.js": "tests message"},
        run="node main.js",
        output=text,
        test="node --test",
        tests=("message",),
    )


def any_program(d: Draw) -> Program:
    return d.random.choices(
        [hello, function, numbers, saver, calculator, todo, page, script], [8, 6, 2, 1.5, 3, 3, 2, 1]
    )[0](d)


def python_program(d: Draw) -> Program:
    """One with faults that Python's tests show."""
    return d.random.choices([hello, function, numbers, saver, calculator, todo], [4, 8, 2, 1, 2, 2])[0](d)


def broken(program: Program, fault: Fault) -> dict[str, str]:
    """The files with the fault in them."""
    text = program.files[fault.path]
    assert text.count(fault.good) == 1 and fault.bad not in text.replace(fault.good, ""), (fault, text)
    return {**program.files, fault.path: text.replace(fault.good, fault.bad)}


# ---- what running them gives


def passed(d: Draw, program: Program) -> str:
    """What unittest prints when all is well."""
    count = len(program.tests)
    if program.language == "JavaScript":
        return tap(d, program.tests)
    noun = "test" if count == 1 else "tests"
    return f"{'.' * count}\n{'-' * 70}\nRan {count} {noun} in 0.00{d.integer(0, 9)}s\n\nOK"


def tap(d: Draw, tests: tuple[str, ...]) -> str:
    """What `node --test` prints where nobody looks at it in a terminal."""
    lines = ["TAP version 13"]
    for at, name in enumerate(tests, 1):
        took = d.integer(500, 9999) / 1000
        lines += [f"# Subtest: {name}", f"ok {at} - {name}", "  ---", f"  duration_ms: {took}", "  ..."]
    lines += [f"1..{len(tests)}", f"# tests {len(tests)}", "# suites 0", f"# pass {len(tests)}", "# fail 0"]
    return "\n".join(
        [*lines, "# cancelled 0", "# skipped 0", "# todo 0", f"# duration_ms {d.integer(40, 99)}"]
    )


def failed(d: Draw, program: Program, fault: Fault) -> tuple[str, str]:
    """What unittest prints with the fault in, and the one line that says it: path, line, error."""
    folder = d.choice(["/project/", "/app/", "", f"/home/{words.invented(d)}/"])
    test_path = next(path for path in program.files if path.startswith("test_"))
    test_text = program.files[test_path]
    name = _shown_by(program, fault, test_text)
    lines = test_text.splitlines()
    at = next(index for index, line in enumerate(lines) if f"def test_{name}(" in line) + 1
    check = lines[at].strip()
    case = test_text.partition("class ")[2].partition("(")[0]
    faulty = broken(program, fault)[fault.path].splitlines()
    row = next(index for index, line in enumerate(faulty) if fault.bad in line)
    frames = f'  File "{folder}{test_path}", line {at + 1}, in test_{name}\n    {check}\n'
    if fault.error:
        # Newer Pythons underline the place.
        marks = d.chance(0.6)
        inner = _inner_call(check)
        line = faulty[row].strip()
        frames += f"{_under(check, inner, '^' * len(inner))}\n" if marks else ""
        frames += f'  File "{folder}{fault.path}", line {row + 1}, in {fault.function}\n    {line}\n'
        frames += f"{_under(line, *_place(fault))}\n" if marks else ""
        error, kind = fault.error, "ERROR"
        said = f"{fault.path}, line {row + 1}: {error}"
    else:
        wanted = _wanted(check)
        first = f"AssertionError: {fault.actual} != {wanted}"
        error, kind = first, "FAIL"
        if wanted.startswith("'") and fault.actual.startswith("'"):
            error += f"\n- {fault.actual[1:-1]}\n+ {wanted[1:-1]}\n"
        said = f"{test_path}, line {at + 1}: {first}"
    report = (
        f"{kind[0]}\n{'=' * 70}\n{kind}: test_{name} ({test_path.removesuffix('.py')}.{case}.test_{name})\n{'-' * 70}\n"
        f"Traceback (most recent call last):\n{frames}{error}\n\n{'-' * 70}\n"
        f"Ran {len(program.tests)} test{'s' if len(program.tests) > 1 else ''} in 0.00{d.integer(0, 9)}s\n\n"
        f"FAILED ({'errors' if kind == 'ERROR' else 'failures'}=1)"
    )
    return report, said


def output_with(program: Program, fault: Fault) -> str:
    """What the program's own run prints with the fault in it."""
    if program.kind in ("hello", "function"):
        return fault.actual.strip("'")
    if program.kind == "numbers":
        return program.output.rpartition("\n")[0]
    return "6.0" if fault.bad == "return b + b" else program.output


def _shown_by(program: Program, fault: Fault, test_text: str) -> str:
    """The name of the test that shows the fault."""
    of_sign = {"a + b": "add", "a * b": "multiply", "a / b": "divide"}
    for sign, name in of_sign.items():
        if program.kind == "calculator" and fault.good.endswith(sign):
            return name
    if f"def test_{fault.function}(" in test_text:
        return fault.function
    return test_text.partition("def test_")[2].partition("(")[0]


def _inner_call(check: str) -> str:
    """The innermost call that a test makes, which is where the error comes from."""
    call = ast.parse(check, mode="eval").body
    assert isinstance(call, ast.Call)
    node = call.args[0]
    while isinstance(node, ast.Subscript):
        node = node.value
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    return ast.get_source_segment(check, first if isinstance(first, ast.Call) else node) or ""


def _place(fault: Fault) -> tuple[str, str]:
    """What Python underlines in the faulty line, and with what."""
    if fault.error.startswith("IndexError"):
        return fault.bad, "~" * fault.bad.index("[") + "^" * (len(fault.bad) - fault.bad.index("["))
    name = fault.error.partition("'")[2].partition("'")[0]
    return name, "^" * len(name)


def _under(line: str, part: str, marks: str) -> str:
    return " " * (4 + line.index(part)) + marks


def _wanted(check: str) -> str:
    """The second argument of an assertEqual, as Python prints it."""
    call = ast.parse(check, mode="eval").body
    assert isinstance(call, ast.Call)
    return repr(ast.literal_eval(call.args[1]))
