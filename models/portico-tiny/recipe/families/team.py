"""The turns of Portico's software team, phase by phase, in exactly the words of portico/prompts.toml.

Each sample is a phase up to one turn of its first role. In turns of actions the conversation is cut at a
drawn turn, so that the evaluation asks for every step: the files, the runs, the mending, the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from portico import prompts
from recipe import words
from recipe.families import programs
from recipe.families.programs import Fault, Program
from recipe.sample import Draw, Entry, Message, Sample, calls, is_json, result, says, says_json, system, user

_TASKS = [
    "create a {noun}",
    "create a program that {asked}",
    "Create a {noun}.",
    "Write a program that {asked}.",
    "write a {noun}",
    "make a {noun}",
    "make a program that {asked}",
    "build a small {noun}",
    "Build a program that {asked}.",
    "I need a {noun}.",
    "I need a program that {asked}.",
    "I want a {noun} in {language}.",
    "a {noun}",
    "a program that {asked}",
    "develop a simple {noun}",
    "Develop a small program that {asked}, please.",
    "Please create a {noun}.",
    "Please write a small program that {asked}.",
    "{imperative}",
    "{imperative}.",
    "please {imperative}",
    "a {language} program that {asked}",
    "write me a {noun}",
    "write a simple program which {asked}",
    "Could you build a {noun}?",
    "Can you make a program which {asked}?",
    # never trained
    "please make me a simple {noun}",
    "Can you write a {language} program that {asked}?",
]

_NOUNS = {
    "hello": "program that {asked}",
    "function": "library that {asked}",
    "numbers": "program that {asked}",
}
_CALCULATORS = ["calculator", "simple calculator", "small calculator"]


def task(d: Draw, program: Program) -> str:
    """The customer's words for a program."""
    if program.kind == "calculator":
        noun = d.choice(_CALCULATORS)
    else:
        noun = program.noun or _NOUNS.get(program.kind, "program that {asked}").format(asked=program.asked)
    verb, _, rest = program.asked.partition(" ")
    imperative = f"{_base_form(verb)} {rest}"
    form = d.wording(_TASKS)
    if "{noun}" in form and noun.startswith("program that") and "in {language}" in form:
        form = "a {noun}"
    return form.format(noun=noun, asked=program.asked, language=program.language, imperative=imperative)


def _base_form(verb: str) -> str:
    """ "multiplies" -> "multiply", "squares" -> "square"."""
    return verb[:-3] + "y" if verb.endswith("ies") else verb[:-1]


def project_name(d: Draw, program: Program) -> str:
    """HelloWorld, TodoApp, or anything."""
    if d.chance(0.3):
        return {"hello": "HelloWorld", "calculator": "Calculator", "todo": "TodoApp"}.get(
            program.kind, "Test"
        )
    made = words.phrase(d, 1, 2).title()
    return made.replace(" ", "") if d.chance(0.8) else words.identifier(d)


def plan_of(program: Program) -> str:
    return "\n".join(f"{path}: {does}" for path, does in program.does.items())


@dataclass(frozen=True)
class Step:
    """A turn and what it gave back: an action, or, where there is none, a text that is no answer of the form.

    slip: the turn has a fault in it; it is shown and not trained on.
    """

    action: dict[str, str]
    given: str = ""
    slip: bool = False
    text: str = ""


def write(path: str, content: str) -> Step:
    made = {"action": "write_file", "path": path, "content": content}
    return Step(made, prompts.action_result("wrote", path=path))


def edit(path: str, find: str, replace: str) -> Step:
    made = {"action": "edit_file", "path": path, "find": find, "replace": replace}
    return Step(made, prompts.action_result("edited", path=path))


def delete(path: str) -> Step:
    return Step({"action": "delete_file", "path": path}, prompts.action_result("deleted", path=path))


def run(command: str, code: int, output: str) -> Step:
    output = output or prompts.texts()["team"]["nothing"]
    return Step({"action": "run", "command": command}, prompts.action_result("ran", code=code, output=output))


def finish(summary: str) -> Step:
    return Step({"action": "finish", "summary": summary})


def tests_pass(d: Draw, program: Program) -> Step:
    return run(program.test, 0, programs.passed(d, program))


def opening(
    d: Draw,
    program: Program,
    asked: str,
    phase: str,
    *,
    tools: bool,
    files: dict[str, str] | None = None,
    known: int = 2,
    name: str = "",
    **values: object,
) -> list[Message]:
    """The system and first user message of a phase. known: 0 nothing decided, 1 the kind, 2 the language too."""
    text = prompts.brief(
        name or project_name(d, program),
        asked,
        modality=program.modality if known > 0 else "",
        language=program.language if known > 1 else "",
        ideas=words.phrase(d, 2, 6) if d.chance(0.08) else "",
        files=prompts.show_files(files or {}, left_out(d) if files and d.chance(0.1) else ()),
    )
    return [system(text), user(prompts.phase_opening(phase, tools=tools, **values))]


def left_out(d: Draw) -> list[str]:
    """Names of files that did not fit."""
    return [words.path(d) for _ in range(d.integer(1, 4))]


def conversation(d: Draw, start: list[Message], steps: list[Step], *, tools: bool) -> Sample:
    """Steps as turns, in bare JSON or as tool calls, cut at a drawn turn that is no slip."""
    ends = [at for at, step in enumerate(steps) if not step.slip]
    last = len(steps) - 1 if d.training and d.chance(0.6) else d.choice(ends)
    messages = list(start)
    for at, step in enumerate(steps[: last + 1]):
        called = tools and bool(step.action)
        if called:
            fields = {key: value for key, value in step.action.items() if key != "action"}
            said = calls((step.action["action"], fields))
        else:
            said = says_json(step.action) if step.action else says(step.text)
        if step.slip:
            said["untrained"] = True
        messages.append(said)
        if at < last:
            messages.append(result(step.given) if called else user(step.given))
    return Sample(
        messages,
        tools=prompts.action_tools() if tools else None,
        schema=None if tools else prompts.action_schema(),
        form=is_action,
        max_tokens=900,
    )


# What is said instead of an action, and what is refused with its reason.
_TALK = [
    "I will write the files now.",
    "Here is the program.",
    "Sure, I can do that.",
    "Done.",
    "First I write main.py, then its tests.",
    "```python\nprint(1)\n```",
    '{"action": "write_file", "path": "main.py"',
    "The program is ready.",
]
_REFUSED = [
    ("pip install requests", "there is no network here"),
    ("pip install flask", "there is no network here"),
    ("git push", "only python and its tests run here"),
    ("rm -r .", "that would delete the project"),
    ("sudo python main.py", "sudo is not allowed"),
    ("cd .. && ls", "outside of the project"),
]


def with_mishap(d: Draw, steps: list[Step], files: dict[str, str]) -> list[Step]:
    """Now and then a turn goes wrong and is told so; the next one does what was due."""
    if not d.chance(0.2):
        return steps
    at = d.integer(0, len(steps) - 1)
    due = steps[at].action
    kinds = ["again"]
    if due["action"] == "edit_file" and due["path"] in files:
        kinds += ["no_match", "not_found", "many_matches"]
    if due["action"] == "run":
        kinds += ["refused", "refused"]
    return [*steps[:at], _mishap(d, d.choice(kinds), due, files), *steps[at:]]


def _mishap(d: Draw, kind: str, due: dict[str, str], files: dict[str, str]) -> Step:
    path = due.get("path", "")
    if kind == "no_match":
        wrong = {**due, "find": programs.misspelt(d, due["find"])}
        return Step(wrong, prompts.action_result(kind, path=path), slip=True)
    if kind == "not_found":
        other = programs.misspelt(d, path)
        return Step({**due, "path": other}, prompts.action_result(kind, path=other), slip=True)
    often = [
        each
        for each in ("return", "message", "numbers", "text", "self")
        if files.get(path, "").count(each) > 1
    ]
    if kind == "many_matches" and often:
        find = d.choice(often)
        told = prompts.action_result(kind, path=path, count=files[path].count(find))
        return Step({**due, "find": find}, told, slip=True)
    if kind == "refused":
        command, reason = d.choice(_REFUSED)
        told = prompts.action_result(kind, reason=reason)
        return Step({"action": "run", "command": command}, told, slip=True)
    return Step({}, prompts.texts()["team"]["again"], slip=True, text=d.choice(_TALK))


def is_action(message: Message) -> bool:
    """One object with a known action and exactly its fields."""
    if not is_json(message):
        return False
    said = json.loads(message["content"])
    branches = prompts.action_schema()["anyOf"]
    return isinstance(said, dict) and any(
        said.get("action") == branch["properties"]["action"]["const"] and set(said) == set(branch["required"])
        for branch in branches
    )


# ---- coding


def coding(d: Draw, *, tools: bool) -> Sample:
    """The programmer writes what the plan says, runs it, and mends it where the run shows a fault."""
    program = programs.any_program(d)
    asked = task(d, program)
    start = opening(d, program, asked, "coding", tools=tools, plan=plan_of(program))
    steps = [write(path, text) for path, text in program.files.items()]
    started = [run(program.run, 0, program.output)] if program.run else []
    faults = [fault for fault in program.faults if not fault.error or program.kind == "todo"]
    if faults and d.chance(0.3):
        fault = d.choice(faults)
        at = list(program.files).index(fault.path)
        broken = programs.broken(program, fault)[fault.path]
        steps[at] = replace(write(fault.path, broken), slip=True)
        report, _ = programs.failed(d, program, fault)
        steps += [run(program.run, 0, programs.output_with(program, fault)), run(program.test, 1, report)]
        steps += with_mishap(d, [mending(fault), tests_pass(d, program)], {fault.path: broken})
    else:
        steps = with_mishap(d, [*steps, *started, tests_pass(d, program)], {})
    steps.append(finish(f"{next(iter(program.files))} {program.asked}."))
    return conversation(d, start, steps, tools=tools)


def mending(fault: Fault) -> Step:
    return edit(fault.path, fault.bad, fault.good)


def mended(d: Draw, program: Program, fault: Fault) -> list[Step]:
    """The fault is mended, the tests pass, the work is done."""
    steps = [mending(fault), tests_pass(d, program)]
    steps = with_mishap(d, steps, programs.broken(program, fault))
    return [*steps, finish(f"Mended {fault.function} in {fault.path}.")]


# ---- changes to files that are there


def around(d: Draw, program: Program, files: dict[str, str], tokens: int) -> dict[str, str]:
    """`files` among other files of a project, about `tokens` tokens in all (0: only `files`)."""
    if not tokens:
        return files
    others: dict[str, str] = {}
    size = sum(len(text) for text in files.values())
    while size < tokens * CHARACTERS_A_TOKEN:
        other = programs.function(d)
        path = words.file_name(d, "py")
        text = other.files["main.py"].partition("\n\n\nif __name__")[0] + "\n"
        for _ in range(d.integer(0, 4)):
            more = programs.function(d).files["main.py"].partition("\n\n\nif __name__")[0]
            text += f"\n\n{more}\n"
        if path in files or path in others:
            continue
        others[path] = text
        size += len(text) + len(path) + 20
    named = d.shuffled(list(others.items()) + list(files.items()))
    return dict(named)


# Code and JSON as this tokenizer cuts them; only used to aim at a length, the true one is measured.
CHARACTERS_A_TOKEN = 2.6


def change(d: Draw, *, tools: bool, tokens: int = 0) -> Sample:
    """The programmer follows a reviewer's comment."""
    program = programs.python_program(d)
    fault = d.choice(program.faults)
    files = around(d, program, programs.broken(program, fault), tokens)
    comments = comment(fault)
    start = opening(d, program, task(d, program), "change", tools=tools, files=files, comments=comments)
    return conversation(d, start, mended(d, program, fault), tools=tools)


def comment(fault: Fault) -> str:
    return f"{fault.path}, {fault.function}: {fault.said}."


def fix(d: Draw, *, tools: bool, tokens: int = 0) -> Sample:
    """The programmer mends what the test report shows."""
    program = programs.python_program(d)
    fault = d.choice(program.faults)
    report, said = programs.failed(d, program, fault)
    files = around(d, program, programs.broken(program, fault), tokens)
    start = opening(
        d, program, task(d, program), "fix", tools=tools, files=files, report=report, summary=said
    )
    return conversation(d, start, mended(d, program, fault), tools=tools)


def complete(d: Draw, *, tools: bool) -> Sample:
    """The programmer writes a function that was left open."""
    program = programs.python_program(d)
    while not program.holes:
        program = programs.python_program(d)
    path, hole, whole = d.choice(program.holes)
    files = {**program.files, path: program.files[path].replace(whole, hole)}
    start = opening(d, program, task(d, program), "complete", tools=tools, files=files, path=path)
    steps = with_mishap(d, [edit(path, hole, whole), tests_pass(d, program)], files)
    return conversation(d, start, [*steps, finish(f"Completed {path}.")], tools=tools)


_OTHER_TEXT = [
    "Print {new} instead of {old}.",
    "Print {new} and not {old}.",
    "Please print {new} instead of {old}.",
    "The program must print {new}.",
    "It should print {new}.",
    "Change the text to {new}.",
    "Please change the text to {new}.",
    "I want it to print {new}.",
    "Can you make it print {new}?",
    "Replace {old} with {new}.",
    "The text is wrong, it must be {new}.",
    "Use the text {new} instead of {old}.",
    # never trained
    "Please replace the text with {new}.",
    "The text should be {new} instead of {old}.",
]


def other_text(d: Draw, *, tools: bool) -> Sample:
    """A person who reviews wants another text: the program and its test change together."""
    program = programs.hello(d)
    old, new = program.output, programs.shown_text(d)
    comments = d.wording(_OTHER_TEXT).format(old=old, new=new)
    start = opening(
        d, program, task(d, program), "change", tools=tools, files=program.files, comments=comments
    )
    steps = [
        edit("main.py", f'return "{old}"', f'return "{new}"'),
        edit("test_main.py", f'message(), "{old}"', f'message(), "{new}"'),
        tests_pass(d, program),
    ]
    steps = with_mishap(d, steps, program.files)
    return conversation(d, start, [*steps, finish("Changed the text in main.py.")], tools=tools)


_UNUSED = [
    "{path} is not used, delete it.",
    "{path}: is not used, must be deleted.",
    "Delete {path}.",
    "Please delete {path}, nothing uses it.",
    "Remove the file {path}.",
    "{path} can go.",
    "We do not need {path}.",
    "The file {path} is left over, delete it.",
    # never trained
    "Please remove {path}, it is not used.",
    "Nothing needs {path}, please delete it.",
]


def unused(d: Draw, *, tools: bool) -> Sample:
    """A file that nothing uses is deleted."""
    program = programs.python_program(d)
    path = words.file_name(d, "py")
    while path in program.files:
        path = words.file_name(d, "py")
    files = dict(d.shuffled([*program.files.items(), (path, f'print("{programs.shown_text(d)}")\n')]))
    comments = d.wording(_UNUSED).format(path=path)
    start = opening(d, program, task(d, program), "change", tools=tools, files=files, comments=comments)
    steps = with_mishap(d, [delete(path), tests_pass(d, program)], files)
    return conversation(d, start, [*steps, finish(f"Deleted {path}.")], tools=tools)


def pictures(d: Draw, *, tools: bool) -> Sample:
    """The first picture goes into a web page; other programs show none."""
    program = programs.page(d) if d.chance(0.5) else programs.python_program(d)
    names = [f"{words.word(d)}.png" for _ in range(d.integer(1, 3))]
    listed = "\n".join(f"{name}: {words.phrase(d, 2, 4)}" for name in names)
    start = opening(
        d, program, task(d, program), "art_integration", tools=tools, files=program.files, images=listed
    )
    if program.kind != "page":
        return conversation(d, start, [finish("No picture fits in this program.")], tools=tools)
    placed = edit("index.html", "<body>", f'<body>\n<img src="{names[0]}">')
    steps = with_mishap(d, [placed, tests_pass(d, program)], program.files)
    return conversation(d, start, [*steps, finish(f"index.html shows {names[0]}.")], tools=tools)


def drawn_step(d: Draw, *, tools: bool) -> Sample:
    kinds = [coding, change, fix, complete, other_text, unused, pictures]
    return d.random.choices(kinds, [6, 3, 3, 1, 1, 0.7, 0.7])[0](d, tools=tools)


def actions(d: Draw) -> Sample:
    return drawn_step(d, tools=False)


def actions_as_calls(d: Draw) -> Sample:
    return drawn_step(d, tools=True)


def long_work(tokens: int) -> Callable[[Draw], Sample]:
    """A change or a fix in a project of about `tokens` tokens."""

    def make(d: Draw) -> Sample:
        return d.choice([change, fix])(d, tools=d.chance(0.3), tokens=tokens - 400)

    return make


# ---- the phases of words


_KINDS = {
    "command-line application": "It runs in a terminal and needs no window.",
    "library": "Other programs call its functions.",
    "web page": "It is read in a browser.",
    "game": "It is there to be played.",
}
_GAMES = [
    "guessing game",
    "tic tac toe game",
    "snake game",
    "memory game",
    "word game",
    "card game",
    "quiz game",
]


def _decided(text: str, value: str) -> Message:
    return says(f"{text}\n<INFO> {value}")


def ends_with_info(message: Message) -> bool:
    return (message.get("content") or "").strip().splitlines()[-1].startswith("<INFO> ")


def demand(d: Draw) -> Sample:
    program = programs.any_program(d)
    asked, modality = task(d, program), program.modality
    if d.chance(0.15):
        asked, modality = (
            f"{d.choice(['create a', 'make a', 'build a small', 'write a'])} {d.choice(_GAMES)}",
            "game",
        )
    start = opening(d, program, asked, "demand", tools=False, known=0)
    return Sample([*start, _decided(_KINDS[modality], modality)], form=ends_with_info)


_REASONS = {
    "Python": "Python runs everywhere and needs no build.",
    "HTML": "A browser reads HTML as it is.",
    "JavaScript": "The task asks for JavaScript.",
    "Go": "The task asks for Go.",
    "Rust": "The task asks for Rust.",
}


def language(d: Draw) -> Sample:
    program = programs.any_program(d)
    asked, chosen = task(d, program), program.language
    if chosen == "Python" and "Python" not in asked and d.chance(0.15):
        chosen = d.choice(["Go", "Rust", "JavaScript"])
        asked = f"{asked.rstrip('.?')} in {chosen}"
    start = opening(d, program, asked, "language", tools=False, known=1)
    return Sample([*start, _decided(_REASONS[chosen], chosen)], form=ends_with_info)


def plan(d: Draw) -> Sample:
    program = programs.any_program(d)
    start = opening(d, program, task(d, program), "plan", tools=False)
    return Sample([*start, _decided(plan_of(program), "Planned.")], form=ends_with_info)


def review(d: Draw) -> Sample:
    """Half of the files have a fault."""
    program = programs.python_program(d)
    if d.chance(0.5):
        fault = d.choice(program.faults)
        files, said = programs.broken(program, fault), says(comment(fault))
    else:
        files, said = program.files, says("<INFO> Finished")
    start = opening(d, program, task(d, program), "review", tools=False, files=files)
    return Sample([*start, said], form=is_review)


def is_review(message: Message) -> bool:
    """One comment, as `comment` writes them, or that there is none."""
    return bool(re.fullmatch(r"\S+\.\w+, \w+: \S.*\.|<INFO> Finished", message["content"].strip()))


def is_finding(message: Message) -> bool:
    """One line: a place in a file, and the error there."""
    return bool(re.fullmatch(r"\S+\.\w+, line \d+: \S.*", message["content"].strip()))


def test_report(d: Draw) -> Sample:
    program = programs.python_program(d)
    fault = d.choice(program.faults)
    report, said = programs.failed(d, program, fault)
    start = opening(
        d,
        program,
        task(d, program),
        "test_report",
        tools=False,
        files=programs.broken(program, fault),
        report=report,
    )
    return Sample([*start, says(said)], form=is_finding)


_STANDARD = (
    "json sys os math re pathlib datetime random time csv unittest collections string itertools".split()
)
_PACKAGES = "requests numpy flask rich click pygame pandas httpx pydantic jinja2 django pillow pytest".split()


def environment(d: Draw) -> Sample:
    """Which imports are no part of Python."""
    program = programs.python_program(d)
    needed = d.some(_PACKAGES, 1, 3) if d.chance(0.5) else []
    imports = d.shuffled(needed + d.some(_STANDARD, 0, 3))
    files = dict(program.files)
    head = "\n".join(f"import {name}" for name in imports)
    files["main.py"] = f"{head}\n{files['main.py']}" if head else files["main.py"]
    start = opening(d, program, task(d, program), "environment", tools=False, files=files)
    named = [name for name in imports if name in needed]
    text = "\n".join([*named, f"<INFO> {len(named)}"])
    return Sample([*start, says(text)], form=ends_with_info)


def manual(d: Draw) -> Sample:
    program = programs.any_program(d)
    name = project_name(d, program)
    start = opening(d, program, task(d, program), "manual", tools=False, files=program.files, name=name)
    run_it = program.run or f"open {next(iter(program.files))}"
    text = f"# {name}\n\n{name} {program.asked}.\n\n## Run\n\n    {run_it}\n\n## Test\n\n    {program.test}"
    return Sample([*start, says(text)], form=lambda said: (said.get("content") or "").startswith("# "))


def art(d: Draw) -> Sample:
    program = programs.any_program(d)
    name = project_name(d, program)
    start = opening(d, program, task(d, program), "art", tools=False, files=program.files, name=name)
    text = f"icon.png: {name} as a small picture\nbanner.png: {name} in large letters"
    return Sample([*start, says(text)], form=are_pictures)


def are_pictures(message: Message) -> bool:
    """Two lines: a picture's file and what it shows."""
    return bool(re.fullmatch(r"\S+\.png: \S.*\n\S+\.png: \S.*", message["content"].strip()))


def reflection(d: Draw) -> Sample:
    """What was decided, out of a conversation."""
    program = programs.any_program(d)
    topic = d.choice(["demand", "language", "environment"])
    if topic == "environment":
        return _packages_decided(d, program)
    values = list(_KINDS) if topic == "demand" else list(_REASONS)
    titles = prompts.texts()["team"]["titles"]
    first, second = (titles["cpo"], titles["ceo"]) if topic == "demand" else (titles["cto"], titles["ceo"])
    decided = d.choice(values)
    lines = []
    if d.chance(0.6):
        other = d.choice([each for each in values if each != decided])
        lines += [
            f"{first}: {d.choice(['Perhaps', 'Maybe'])} {other}.",
            f"{second}: {d.choice(['I am not sure.', 'No, something else.', 'Are there others?'])}",
        ]
    lines += [
        f"{first}: {d.choice(['I propose', 'Then let us take', 'Better is', 'We take'])} {decided}.",
        f"{second}: {d.choice(['I agree.', 'Good.', 'Yes, let us do that.', 'Agreed.'])}",
    ]
    start = opening(
        d,
        program,
        task(d, program),
        "reflection",
        tools=False,
        known=0,
        conversation="\n".join(lines),
        question=prompts.texts()["team"]["questions"][topic],
    )
    return Sample([*start, says(f"<INFO> {decided}")], form=ends_with_info)


def _packages_decided(d: Draw, program: Program) -> Sample:
    titles = prompts.texts()["team"]["titles"]
    needed = ", ".join(d.some(_PACKAGES, 1, 3)) if d.chance(0.7) else "none"
    lines = [
        f"{titles['programmer']}: {d.choice(['The files need', 'We need', 'Packages'])}: {needed}",
        f"{titles['cto']}: {d.choice(['I agree.', 'Good.', 'Agreed.'])}",
    ]
    question = prompts.texts()["team"]["questions"]["environment"]
    start = opening(
        d,
        program,
        task(d, program),
        "reflection",
        tools=False,
        known=2,
        conversation="\n".join(lines),
        question=question,
    )
    return Sample([*start, says(f"<INFO> {needed}")], form=ends_with_info)


def decisions(d: Draw) -> Sample:
    return d.choice([demand, language, plan, reflection])(d)


def papers(d: Draw) -> Sample:
    return d.choice([environment, manual, art])(d)


ENTRIES = [
    Entry("team: decide and plan", decisions, bar=0.95, share=1.4),
    Entry("team: write, run, fix, finish", actions, bar=0.95, share=6),
    Entry("team: the same as tool calls", actions_as_calls, bar=0.95, share=3.5),
    Entry("team: review", review, bar=0.95, share=5),
    Entry("team: test report", test_report, bar=0.95, share=1.2),
    Entry("team: packages, manual, pictures", papers, bar=0.95, share=3),
    Entry("team at 1,000 tokens", long_work(1000), bar=0.95, share=1.5),
    Entry("team at 2,000 tokens", long_work(2000), bar=0.95, share=1.3),
    Entry("team at 4,000 tokens", long_work(4000), bar=0.95, share=2),
]
