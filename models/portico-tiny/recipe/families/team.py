"""The turns of Portico's software team, phase by phase, in exactly the words of portico/prompts.toml.

Each sample is a phase up to one turn of its first role. In turns of actions the conversation is cut at a
drawn turn, so that the evaluation asks for every step: the files, the runs, the mending, the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

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


Step = tuple[dict[str, str], str]  # an action and what it gave back


def write(path: str, content: str) -> Step:
    return {"action": "write_file", "path": path, "content": content}, prompts.action_result(
        "wrote", path=path
    )


def edit(path: str, find: str, replace: str) -> Step:
    made = {"action": "edit_file", "path": path, "find": find, "replace": replace}
    return made, prompts.action_result("edited", path=path)


def run(command: str, code: int, output: str) -> Step:
    given = prompts.action_result("ran", code=code, output=output or prompts.texts()["team"]["nothing"])
    return {"action": "run", "command": command}, given


def finish(summary: str) -> Step:
    return {"action": "finish", "summary": summary}, ""


def opening(
    d: Draw,
    program: Program,
    asked: str,
    phase: str,
    *,
    tools: bool,
    files: dict[str, str] | None = None,
    omitted: Sequence[str] = (),
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
        files=prompts.show_files(files or {}, omitted),
    )
    return [system(text), user(prompts.phase_opening(phase, tools=tools, **values))]


def conversation(d: Draw, start: list[Message], steps: list[Step], *, tools: bool, slip: int = -1) -> Sample:
    """Steps as turns, in bare JSON or as tool calls, cut at a drawn turn (never at `slip`, a turn with a fault
    in it, which is shown and not trained on)."""
    ends = [at for at in range(len(steps)) if at != slip]
    last = len(steps) - 1 if d.training and d.chance(0.6) else d.choice(ends)
    messages = list(start)
    for at, (action, given) in enumerate(steps[: last + 1]):
        if tools:
            name = action["action"]
            said = calls((name, {key: value for key, value in action.items() if key != "action"}))
        else:
            said = says_json(action)
        if at == slip:
            said["untrained"] = True
        messages.append(said)
        if at < last:
            messages.append(result(given) if tools else user(given))
    return Sample(
        messages,
        tools=prompts.action_tools() if tools else None,
        schema=None if tools else prompts.action_schema(),
        form=is_action,
        max_tokens=900,
    )


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
    slip = -1
    tested = run(program.test, 0, programs.passed(d, program))
    started = [run(program.run, 0, program.output)] if program.run else []
    faults = [fault for fault in program.faults if not fault.error or program.kind == "todo"]
    if faults and d.chance(0.3):
        fault = d.choice(faults)
        slip = list(program.files).index(fault.path)
        steps[slip] = write(fault.path, programs.broken(program, fault)[fault.path])
        report, _ = programs.failed(d, program, fault)
        output = programs.output_with(program, fault)
        steps += [run(program.run, 0, output), run(program.test, 1, report), *mending(program, fault), tested]
    else:
        steps += [*started, tested]
    steps.append(finish(f"{next(iter(program.files))} {program.asked}."))
    return conversation(d, start, steps, tools=tools, slip=slip)


def mending(program: Program, fault: Fault) -> list[Step]:
    return [edit(fault.path, fault.bad, fault.good)]


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
    steps = [
        *mending(program, fault),
        run(program.test, 0, programs.passed(d, program)),
        finish(f"Mended {fault.function} in {fault.path}."),
    ]
    return conversation(d, start, steps, tools=tools)


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
    steps = [
        *mending(program, fault),
        run(program.test, 0, programs.passed(d, program)),
        finish(f"Mended {fault.function} in {fault.path}."),
    ]
    return conversation(d, start, steps, tools=tools)


def complete(d: Draw, *, tools: bool) -> Sample:
    """The programmer writes a function that was left open."""
    program = programs.python_program(d)
    while not program.holes:
        program = programs.python_program(d)
    path, hole, whole = d.choice(program.holes)
    files = {**program.files, path: program.files[path].replace(whole, hole)}
    start = opening(d, program, task(d, program), "complete", tools=tools, files=files, path=path)
    steps = [
        edit(path, hole, whole),
        run(program.test, 0, programs.passed(d, program)),
        finish(f"Completed {path}."),
    ]
    return conversation(d, start, steps, tools=tools)


def drawn_step(d: Draw, *, tools: bool) -> Sample:
    return d.random.choices([coding, change, fix, complete], [6, 3, 3, 1])[0](d, tools=tools)


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
    topic = d.choice(["demand", "language"])
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


def decisions(d: Draw) -> Sample:
    return d.choice([demand, language, plan, reflection])(d)


def papers(d: Draw) -> Sample:
    return d.choice([environment, manual, art])(d)


ENTRIES = [
    Entry("team: decide and plan", decisions, bar=0.95, weight=2),
    Entry("team: write, run, fix, finish", actions, bar=0.95, weight=4),
    Entry("team: the same as tool calls", actions_as_calls, bar=0.95, weight=2),
    Entry("team: review", review, bar=0.95, weight=2),
    Entry("team: test report", test_report, bar=0.95, weight=1),
    Entry("team: packages, manual, pictures", papers, bar=0.95, weight=1.5),
    Entry("team at 1,000 tokens", long_work(1000), bar=0.95, weight=0.8),
    Entry("team at 2,000 tokens", long_work(2000), bar=0.95, weight=0.4),
    Entry("team at 4,000 tokens", long_work(4000), bar=0.95, weight=0.25),
]
