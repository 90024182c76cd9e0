"""A coding agent with tools of anybody's making: it writes, runs, reads, mends and says when it is done."""

from __future__ import annotations

from recipe import words
from recipe.families import programs
from recipe.sample import Draw, Entry, Message, Sample, Tool, calls, result, says, system, tool, user

_SYSTEMS = [
    "You are a coding agent.",
    "You are the Programmer.",
    "You are a programmer. Use the tools.",
    "You are a helpful assistant with tools.",
    "You write small programs and run them.",
    "You are a careful developer.",
]

_PRINTS = [
    "Write {path} that prints {text}.",
    "Create {path} that prints {text}.",
    "Make a program {path} that prints {text}.",
    "write a program that prints {text}, in {path}",
    "Write a Python program {path} which prints {text}.",
    "Please write {path}. It prints {text}.",
    "{path} should print {text}. Write it and run it.",
    "I need {path}: it prints {text}.",
    "Write a file {path} that prints {text} and run it.",
    "Add {path} to the project, it should print {text}.",
    "Please make {path} that prints {text}.",
    "Can you write {path} that prints {text}?",
    # never trained
    "Please create a file {path} which prints {text}.",
    "Make {path}, a Python program that prints {text}.",
]

_ADDS = [
    "Write {path} with a function {name} that {does}.",
    "Create {path} with a function {name} that {does}.",
    "Write a function {name} in {path}. It {does}.",
    "{path} needs a function {name} that {does}. Write it and run it.",
    "Please write {path} with a function {name}. It {does}.",
    "Make a file {path} with the function {name}, which {does}.",
    "Add a function {name} that {does} to the new file {path}.",
    "I need a function {name} that {does}, in {path}.",
    # never trained
    "Can you write a function {name} that {does}? Put it in {path}.",
    "Please create {path}. It has a function {name} that {does}.",
]

_READS = [
    "What does {path} say?",
    "Read {path} and tell me what it says.",
    "Show me {path}.",
    "What is in {path}?",
    "Tell me what is in {path}.",
    "Please read {path}.",
    "Open {path} and show what it says.",
    "What is the text of {path}?",
    # never trained
    "Please show me what is in {path}.",
    "Can you read {path} and tell me the text?",
]


def _tools(d: Draw, command: bool) -> list[Tool]:
    """write_file and run, with a few others, in any order."""
    text = {"type": "string"}
    found = [
        tool(
            "write_file",
            d.choice(["Write a file", "Write text to a file", "Create a file"]),
            {"path": text, "content": text},
        ),
        tool(
            "run",
            d.choice(["Run a command", "Run a program", "Run it"]),
            {"command": text} if command else {"path": text},
        ),
        tool("read_file", d.choice(["Read a file", "Show a file"]), {"path": text}),
    ]
    if d.chance(0.4):
        found.append(tool("list_files", "List the files", {}))
    if d.chance(0.3):
        found.append(tool("delete_file", "Delete a file", {"path": text}))
    return d.shuffled(found)


def _start(d: Draw, asked: str) -> list[Message]:
    return [*([system(d.choice(_SYSTEMS))] if d.chance(0.6) else []), user(asked)]


def _wrote(d: Draw) -> str:
    return d.choice(["ok", "Written.", "done", "The file was written.", '{"ok": true}'])


def program(d: Draw) -> Sample:
    """Write a program, run it, mend it once where it fails, say that it is done."""
    path = words.path(d, "py") if d.chance(0.5) else d.choice(["main.py", "hello.py", "app.py"])
    command = d.chance(0.5)
    ran = {"command": f"python {path}"} if command else {"path": path}
    if d.chance(0.7):
        text = "hello world" if d.chance(0.2) else programs.shown_text(d)
        asked = d.wording(_PRINTS).format(path=path, text=text)
        content, output = f'print("{text}")\n', text
        broken, error = f'print("{text})\n', "SyntaxError: unterminated string literal (detected at line 1)"
    else:
        known, does, parameters, right, _, example, value = d.choice(programs.FUNCTIONS)
        name = known if d.chance(0.4) else words.identifier(d)
        asked = d.wording(_ADDS).format(path=path, name=name, does=does)
        content = f"def {name}({parameters}):\n    return {right}\n\n\nprint({name}({example}))\n"
        output = value.strip('"')
        broken = content.replace("):\n", ")\n")
        error = "SyntaxError: expected ':'"
    rounds: list[tuple[Message, str]] = []
    if d.chance(0.25):
        faulty = calls(("write_file", {"path": path, "content": broken}))
        faulty["untrained"] = True
        trace = f'  File "{path}", line 1\n    {broken.splitlines()[0]}\n{error}'
        rounds += [(faulty, _wrote(d)), (calls(("run", ran)), trace)]
    rounds += [
        (calls(("write_file", {"path": path, "content": content})), _wrote(d)),
        (calls(("run", ran)), output),
    ]
    return _cut(d, _start(d, asked), rounds, f"Done. {path} works.", _tools(d, command))


def reading(d: Draw) -> Sample:
    """Read a file and say what it says, or what went wrong."""
    path = words.path(d)
    asked = d.wording(_READS).format(path=path)
    if d.chance(0.3):
        trouble = d.choice(["no such file", "permission denied", "not found", f"{path} does not exist"])
        rounds = [(calls(("read_file", {"path": path})), f"Error: {trouble}")]
        return _cut(d, _start(d, asked), rounds, f"The tool read_file failed: {trouble}.", _tools(d, True))
    text = words.phrase(d, 1, 6)
    rounds = [(calls(("read_file", {"path": path})), text)]
    return _cut(d, _start(d, asked), rounds, f"{path} says: {text}", _tools(d, True))


def _cut(
    d: Draw, start: list[Message], rounds: list[tuple[Message, str]], end: str, tools: list[Tool]
) -> Sample:
    """The conversation up to a drawn answer."""
    ends = [at for at, (said, _) in enumerate(rounds) if not said.get("untrained")] + [len(rounds)]
    last = len(rounds) if d.training and d.chance(0.6) else d.choice(ends)
    messages = list(start)
    for said, given in rounds[:last]:
        messages += [said, result(given)]
    messages.append(rounds[last][0] if last < len(rounds) else says(end))
    return Sample(messages, tools=tools)


def agent(d: Draw) -> Sample:
    return program(d) if d.chance(0.75) else reading(d)


ENTRIES = [Entry("agent: write, run, read, mend", agent, bar=0.95, share=2.5)]
