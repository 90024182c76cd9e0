"""Why a start of vLLM failed: its log read, in one sentence, with what to do.

A traceback comes up to three times: logged by the process that failed, raw when that process ends, and then another
from each process that waited for it ("See root cause above"), which names no cause.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import msgspec

from portico.engines.vllm.causes import CAUSES, Failure, FailureCode
from portico.engines.vllm.said import BAR, StageName, Stages, read, sign_of

_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|EngineCore encountered an issue|"
    r"Frontend process failed|EngineDeadError|EngineCore failed to start|WorkerProc failed|output_handler failed|"
    r"EngineCore encountered a fatal error|^SystemExit|"
    r"^KeyboardInterrupt|^Process \S+:$"
)
_ALWAYS = re.compile(r"Triton is installed, but|Found ulimit of ")
"""Said at every start on some machines, whatever becomes of it."""
_HARMLESS = re.compile(r"Error saving model info cache|Error during atomic write")
_ENDED = re.compile(
    r"Failed core proc\(s\): \{[^}]*?: -(?P<core>\d{1,3})\b|died unexpectedly \(exit code: -(?P<worker>\d{1,3})\)"
)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]{2,60}")
_ARGPARSE = re.compile(r"[\w./ -]+: error: ")
_QUALIFIED = re.compile(r"(?:[a-z]\w*\.)+[A-Z]\w+: ")
"""An exception that has no frames is printed without a line that announces a traceback."""
_INDENTED = re.compile(r"\s")
_FRAME_OF_PYDANTIC = re.compile(r"\S*ValidationError: \d+ validation errors? for")
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
_NOISE = re.compile(
    r"Route: /|Available routes are|usage: |\s*(?:[\^~]+|warnings\.warn\()|.*resource_tracker|\s*For further "
    r"information visit|For more information check|\s*[█▀▄]"
)
_PYDANTIC = re.compile(r"\n\s+Value error, |\s*\[type=\w+, input_value=.*", re.DOTALL)

_DOING: Mapping[StageName, str] = {
    "starting": "starting",
    "downloading": "loading the weights",
    "loading weights": "loading the weights",
    "compiling": "trying out a full batch",
    "profiling memory": "trying out a full batch",
    "tuning kernels": "tuning its kernels",
    "capturing graphs": "capturing CUDA graphs",
    "warming up": "warming up",
    "ready": "answering",
}
_BEFORE_KV_CACHE = "or spread it over more GPUs with --tensor-parallel-size."
_RELIEF: Mapping[str, str] = {
    "starting": f"Take a smaller or quantized model, {_BEFORE_KV_CACHE}",
    "loading the weights": f"Take a smaller or quantized model, {_BEFORE_KV_CACHE}",
    "trying out a full batch": f"Lower --max-num-batched-tokens and --max-num-seqs, {_BEFORE_KV_CACHE}",
}
_ROOM_BESIDE = "Lower --gpu-memory-utilization, so that more is left beside the KV cache, or --max-num-seqs."
_WIDEST = 300
_TAIL = 6


class _Complaint(NamedTuple):
    """An exception of a traceback, or a line that speaks for itself. `weight`: 0 an exception that was not caught or
    was logged as an error, or a wrong command line; 1 anything else that may be the cause; 2 only a warning."""

    weight: int
    text: str


def why(
    lines: Sequence[str], exit_code: int | None, *, model: str = "the model", port: int | None = None
) -> Failure:
    """Why a start with this log failed. `exit_code` as of a child: negative is the number of a signal.

    1. The first exception whose text is known is the cause; those after it are its consequences, or wrap it.
    2. A process of it was killed, or crashed.
    3. A line that is no exception, but whose text is known.
    4. The first exception, in its own words.
    5. A warning whose text is known.
    6. The last line, or how it ended.
    """
    complaints, told = scan(lines)
    stages = Stages()
    for line in lines:
        stages.feed(line)
    facts = _Facts(model, port, stages.now.name, lines)
    ended = _ended(lines, exit_code)
    strong, loose, warned = (
        [each.text for each in complaints if each.weight == weight] for weight in range(3)
    )
    strong = [text for text in strong if not _CONSEQUENCE.search(text)]
    failure = (
        _known(strong, facts)  # (1)
        or _by_signal(ended, said_something=bool(strong))  # (2)
        or _known(loose, facts)  # (3)
        or (_unknown(strong[0], exit_code) if strong else None)  # (4)
        or _known(warned, facts)  # (5)
        or _unknown(told[-1][1] if told else "", exit_code)  # (6)
    )
    if failure.code == "unknown_architecture" and "trust_remote_code=True" in "\n".join(warned):
        # It looked for the code in the repository, was not allowed to run it, and went on without.
        failure = _known(["\n".join(warned)], facts) or failure
    if failure.code not in ("other", "killed"):  # what went well before a cause that is known does not matter
        told = [(level, text) for level, text in told if level != "INFO"]
    return msgspec.structs.replace(failure, tail=_tail(told, strong))


class _Facts(NamedTuple):
    model: str
    port: int | None
    stage: StageName
    lines: Sequence[str]


def _known(texts: Sequence[str], facts: _Facts) -> Failure | None:
    for text in texts:
        for cause in CAUSES:
            if found := cause.sign.search(text):
                values = _values(found, facts)
                reason, do = cause.reason.format_map(values), cause.do.format_map(values)
                return Failure(code=cause.code, reason=reason, do=do)
    return None


class _Values(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def _values(found: re.Match[str], facts: _Facts) -> _Values:
    """What a cause's sentences may name: the groups of its sign, and what follows from them."""
    doing = _DOING[facts.stage]
    said = {name: _short(value).rstrip(".") for name, value in found.groupdict().items() if value}
    values = _Values(
        model=facts.model,
        repo=said.get("name", facts.model),
        type=said.get("name", "?"),
        dtype=said.get("given", "?"),
        path="its cache" if "space" in found[0] or "quota" in found[0] else facts.model,
        hub="the hub",
        method="of this model",
        width="its layers",
        device="the GPU",
        needs_minor="0",
        has_minor="0",
        port=f"port {facts.port}" if facts.port is not None else "its port",
        doing=doing,
        relief=_RELIEF.get(doing, _ROOM_BESIDE),
        or_share="",
    )
    values.update(said)
    if "archs" in said:
        values["archs"] = said["archs"].replace("'", "").replace('"', "")
    if "flag" in said:
        values["flag"] = said["flag"].replace("_", "-")
    if "bytes" in said:
        values["gib"] = f"{int(said['bytes']) / 2**30:.1f}"
    if "unknown" in said:
        values["nearest"] = _nearest_flag(said["unknown"], facts.lines)
    if "choices" in said:
        values["choices"] = _choices(found["choices"], said.get("value", ""))
    if "utilization" in said and float(said["total"]) > 0:
        share = int(float(said["free"]) / float(said["total"]) * 100) / 100
        values["or_share"] = f", or start it with --gpu-memory-utilization {share:g}" if share >= 0.1 else ""
    return values


def _nearest_flag(argument: str, lines: Sequence[str]) -> str:
    """Before an error argparse prints how the command is used: that is a list of its flags."""
    flags = {flag for line in lines if " error: " not in line for flag in _FLAG.findall(line)}
    near = get_close_matches(argument.partition(" ")[0].partition("=")[0], sorted(flags), n=1)
    return f"Take {near[0]}, or look it up: " if near else ""


def _choices(listed: str, value: str) -> str:
    """The choices nearest to what was given; the first of them where none is near."""
    choices = [each.strip(" '\"") for each in listed.split(",")]
    near = get_close_matches(value, choices, n=5, cutoff=0.3) or choices[:8]
    return ", ".join(near) + (" and so on" if len(near) < len(choices) else "")


# ---- how it ended

_OUT_OF_MEMORY = (
    "Stop other programs or take a smaller model; without a GPU lower --kv-cache-memory-bytes "
    "(VLLM_CPU_KVCACHE_SPACE) or --gpu-memory-utilization."
)
_SIGNALS: Mapping[int, tuple[FailureCode, str, str]] = {
    9: (
        "killed",
        "it was killed (SIGKILL), most likely by the system because memory ran out.",
        _OUT_OF_MEMORY,
    ),
    4: (
        "other",
        "it met an instruction that this CPU does not have (SIGILL).",
        "Install a build of vLLM for this CPU, or use a newer machine.",
    ),
    7: (
        "other",
        "it could not reach memory that it had reserved (SIGBUS), most likely because /dev/shm is full.",
        "Give it more shared memory: a container needs --ipc=host or a larger --shm-size.",
    ),
}
_LOOK_UP = (
    "Portico does not know this one: look for that sentence at https://github.com/vllm-project/vllm/issues."
)
_SILENT_WORKER = "WorkerProc initialization failed"


def _ended(lines: Sequence[str], exit_code: int | None) -> int | None:
    """The number of the signal that ended the process that mattered. A shell says 128 and the signal's number."""
    for line in lines:
        if found := _ENDED.search(line):
            return int(found["core"] or found["worker"])
        if line.strip() == "Killed":
            return 9
    if exit_code is not None and exit_code < 0:
        return -exit_code
    if exit_code is not None and 128 < exit_code < 128 + 32:
        return exit_code - 128
    return 0 if any(_SILENT_WORKER in line for line in lines) else None


def _by_signal(number: int | None, *, said_something: bool) -> Failure | None:
    if number is None or said_something:
        return None
    if number == 0:
        reason = (
            "a process of it ended without a word, most likely killed by the system because memory ran out."
        )
        return Failure(code="killed", reason=reason, do=_OUT_OF_MEMORY)
    if number in _SIGNALS:
        code, reason, do = _SIGNALS[number]
        return Failure(code=code, reason=reason, do=do)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    verb = "was ended from outside" if name in ("SIGTERM", "SIGINT", "SIGHUP") else "crashed"
    return Failure(code="other", reason=f"it {verb} ({name}).", do=_LOOK_UP)


def _unknown(text: str, exit_code: int | None) -> Failure:
    said = _plain(text)
    if not said:
        code = "" if exit_code is None else f" (exit code {exit_code})"
        said = f"it ended without a word{code}"
    return Failure(code="other", reason=said if said.endswith((".", "!", "?")) else f"{said}.", do=_LOOK_UP)


# ---- which lines matter


def scan(lines: Sequence[str]) -> tuple[list[_Complaint], list[tuple[str, str]]]:
    """The complaints of a log in their order, and all of its lines, with their levels, but for frames of tracebacks
    and other noise."""
    complaints: list[_Complaint] = []
    told: list[tuple[str, str]] = []
    traced: set[str] = set()  # marks whose lines are frames until one is not indented
    harmless: set[str] = set()
    open_mark: str | None = None  # the message whose last complaint may go on
    for raw in lines:
        # A bar writes over itself: of what was written to one line the last is what one sees.
        mark, level, text = read(raw.rstrip("\r").rpartition("\r")[2])
        if text.startswith("Traceback (most recent call last)"):
            traced.add(mark)
            if mark and mark == open_mark and _HARMLESS.match(complaints[-1].text):
                harmless.add(mark)
            open_mark = None
            continue
        if text.startswith(_CHAINED):
            open_mark = None
            continue
        if not text or _NOISE.match(text):
            continue
        if mark in traced:
            if _INDENTED.match(text):
                continue
            traced.discard(mark)
            complaints.append(_Complaint(2 if level == "WARNING" or mark in harmless else 0, text))
            open_mark = mark
        elif mark == open_mark and complaints[-1].text.count("\n") < 12:
            complaints[-1] = complaints[-1]._replace(text=f"{complaints[-1].text}\n{text}")
        elif not level and (_ARGPARSE.match(text) or _QUALIFIED.match(text)):
            complaints.append(_Complaint(0, text))
            open_mark = None
        elif level in ("", "ERROR", "CRITICAL", "WARNING") and not sign_of(text):
            complaints.append(_Complaint(2 if level == "WARNING" else 1, text))
            open_mark = mark if mark else None
        else:
            open_mark = None
        if not (mark == "" and _INDENTED.match(text)) or open_mark == "":
            told.append((level, text))
    return complaints, told


def _tail(told: Sequence[tuple[str, str]], strong: Sequence[str]) -> tuple[str, ...]:
    """The last lines that say something, each once. The first exception is among them, however much came after."""
    said: dict[str, str] = {}
    for _, text in told:
        if (
            _CONSEQUENCE.search(text)
            or _ALWAYS.match(text)
            or _FRAME_OF_PYDANTIC.match(text)
            or not (line := _plain(text))
        ):
            continue
        bar = BAR.match(text)
        name = bar["title"] if bar else line
        if bar:
            said.pop(name, None)  # the last state of a bar, at its place, and none of a finished one
        if bar is None or bar["percent"] != "100":
            said.setdefault(name, line)
    lines = list(said.values()) or [_short(text) for _, text in told]
    first = _plain(strong[0]) if strong else ""
    return tuple(lines[-_TAIL:] if not first or first in lines[-_TAIL:] else [first, *lines[1 - _TAIL :]])


def _plain(text: str) -> str:
    """A complaint's first line for people: without the class, where that says nothing, and pydantic's frame."""
    text = _PYDANTIC.sub(lambda found: "\n" if found[0].startswith("\n") else "", text)
    head, _, rest = text.strip().partition("\n")
    if "validation error" in head and rest:
        head = rest.partition("\n")[0]
    head = re.sub(r"^\s*(?:Value error, |(?:ValueError|RuntimeError|Exception|OSError): )", "", head)
    return _short(head)


def _short(text: str) -> str:
    """On one line, and no longer than people read."""
    text = " ".join(text.split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 4]} ..."
