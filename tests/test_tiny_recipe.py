"""The generator of portico-tiny's training text: its samples keep their own rules, and its programs are real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jsonschema
import pytest

RECIPE = Path(__file__).parents[1] / "models" / "portico-tiny"
sys.path.insert(0, str(RECIPE))

from recipe import families, render, words  # noqa: E402
from recipe.families import programs  # noqa: E402
from recipe.families.programs import Fault, Program  # noqa: E402
from recipe.judging import right, well_formed  # noqa: E402
from recipe.sample import Draw, Entry, Sample, called, says  # noqa: E402

T = TypeVar("T")

COLUMNS = [
    {"training": True},
    {"training": False, "wordings": "trained"},
    {"training": False, "wordings": "unseen"},
]


def samples(entry: Entry, count: int = 12) -> list[Sample]:
    return [entry.make(Draw(f"test/{at}", **column)) for column in COLUMNS for at in range(count)]


@pytest.mark.parametrize("entry", families.entries(), ids=lambda entry: entry.name)
def test_every_wanted_answer_is_right_and_no_other(entry: Entry) -> None:
    for sample in samples(entry):
        assert right(sample, sample.answer) and well_formed(sample, sample.answer)
        other = {**sample.answer, "content": f"{sample.answer.get('content') or ''} zzz"}
        if called(sample.answer):
            name, arguments = called(sample.answer)[0]
            first = {"function": {"name": name, "arguments": {**arguments, "zzz": 1}}}
            other = {**sample.answer, "tool_calls": [first, *sample.answer["tool_calls"][1:]]}
        assert not right(sample, other), other
        assert not well_formed(sample, says(""))
        if sample.schema is not None:
            jsonschema.validate(json.loads(sample.answer["content"]), sample.schema)
            assert not well_formed(sample, says("{"))


@pytest.mark.parametrize("entry", families.entries(), ids=lambda entry: entry.name)
def test_the_same_draw_gives_the_same_sample(entry: Entry) -> None:
    assert [render.text(sample) for sample in samples(entry, 3)] == [
        render.text(sample) for sample in samples(entry, 3)
    ]


def test_the_answers_of_a_conversation_are_what_the_template_writes_after_its_prompt() -> None:
    draw = Draw("answers")
    for _ in range(300):
        sample = families.drawn(draw, 0.5)[1]
        pieces = render.pieces(sample)
        assert "".join(piece for piece, _ in pieces) == render.text(sample)
        before, (last, is_answer) = pieces[:-1], pieces[-1]
        assert is_answer and last.endswith("<|im_end|>")
        assert "".join(piece for piece, _ in before) == render.prompt(sample) + sample.opening


def test_an_answer_with_a_fault_in_it_is_shown_and_not_trained() -> None:
    wrong, right_one = says("wrong"), says("right")
    sample = Sample(
        [
            {"role": "user", "content": "a"},
            {**wrong, "untrained": True},
            {"role": "user", "content": "b"},
            right_one,
        ]
    )
    assert [piece for piece, is_answer in render.pieces(sample) if is_answer] == ["right<|im_end|>"]
    assert "wrong<|im_end|>" in render.text(sample)


OPEN = [
    words.FIRST_NAMES,
    words.LAST_NAMES,
    words.CITIES,
    words.NOUNS,
    words.ADJECTIVES,
    words.VERBS,
    words.JOBS,
]
CLOSED = [words.COLORS, words.LANGUAGES, words.COUNTRIES, words.UNITS, words.DAYS, words.EXTENSIONS]


def test_a_list_is_split_where_it_can_be_and_drawn_whole_where_not() -> None:
    training, held = Draw("words"), Draw("words", training=False)
    for values in OPEN + CLOSED:
        trained = {words.listed(training, values) for _ in range(4000)}
        asked = {words.listed(held, values) for _ in range(1000)}
        assert trained | asked == set(values)
        assert trained == asked if values in CLOSED else not trained & asked


def test_held_out_words_stand_nowhere_in_the_training_text() -> None:
    draw = Draw("held out")
    for _ in range(4000):
        entry, sample = families.drawn(draw, 0.5)
        found = words.HELD_OUT.intersection(re.findall("[a-z]+", render.text(sample).lower()))
        assert not found, f"{entry.name}: choose others for words.HELD_OUT than {found}"


class Listening(Draw):
    """Keeps the lists of wordings that it is given, each with what it is drawn from."""

    lists: dict[tuple[object, ...], str]

    def wording(self, forms: Sequence[T]) -> T:
        self.lists.setdefault(tuple(forms), str(forms[0]))
        return super().wording(forms)


FILLERS = re.compile(r"\b(please|can you|could you|now|thanks|thank you)\b")


def core(form: object) -> str:
    """What is said, without the manner: no case, no punctuation, no please, any field for any other."""
    text = form if isinstance(form, str) else form[0]  # type: ignore[index]
    text = re.sub(r"[^a-z0-9 ]", " ", re.sub(r"\{\w+\}", " 0 ", text.lower().replace("'", "")))
    return " ".join(FILLERS.sub(" ", " ".join(text.split())).split())


def test_no_held_out_wording_is_a_trained_one_in_another_manner_or_family() -> None:
    lists: dict[tuple[object, ...], str] = {}
    for entry in families.entries():
        for at in range(10 if "tokens" in entry.name else 200):
            draw = Listening(f"wordings/{at}")
            draw.lists = lists
            entry.make(draw)
    assert len(lists) > 150
    trained = {core(form): form for forms in lists for form in forms[:-2]}
    again = [(form, trained[core(form)]) for forms in lists for form in forms[-2:] if core(form) in trained]
    assert not again


def test_the_last_two_wordings_are_held_out() -> None:
    forms = [str(at) for at in range(10)]
    training = Draw("wordings")
    assert {training.wording(forms) for _ in range(300)} == set(forms[:-2])
    assert {Draw(at, training=False, wordings="unseen").wording(forms) for at in range(50)} == set(forms[-2:])
    with pytest.raises(ValueError, match="8 wordings"):
        training.wording(forms[:7])


EXACTLY = {
    "bullets": [
        "Explain quantum computing in 5 bullet points",
        "Explain the difference between a compiler and an interpreter in 3 bullet points. Be concise and clear.",
    ],
    "simple terms": ["Explain quantum computing in simple terms"],
    "capitals": ["What is the capital of France?"],
    "haiku": ["Write a haiku about programming"],
    "binary search": ["How do I implement a binary search in Go?"],
    "factorial": ["Generate a Python factorial function with error handling"],
    "JSON: a known person": ["Tell me about Albert Einstein"],
    "sums in one word": ["What is 2+2? Answer in one word."],
    "chat": ["Hello, how are you?"],
    "raw completions": ["Once upon a time", "The weather today", "The capital of France is"],
}


@pytest.mark.parametrize("name", EXACTLY)
def test_the_prompts_of_the_documents_are_trained_word_for_word(name: str) -> None:
    (entry,) = [entry for entry in families.entries() if entry.name == name]
    made = [entry.make(Draw(f"exactly/{at}")) for at in range(1000)]
    asked = [sample.completion or sample.prompt[-1]["content"] for sample in made]
    for prompt in EXACTLY[name]:
        assert asked.count(prompt) > 30
        answers = {
            sample.answer["content"] for sample, each in zip(made, asked, strict=True) if each == prompt
        }
        assert len(answers) == 1


# ---- programs


def laid_out(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for path, text in files.items():
        (folder / path).write_text(text)
    return folder


def ran(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


def plain(report: str) -> str:
    """A report of unittest without times and folders, without the marks that only some Pythons draw, and
    without the dots of the tests that passed."""
    report = re.sub(r"in \d\.\d+s", "in T", re.sub(r'File "[^"]*?([\w.]+)"', r'File "\1"', report))
    report = re.sub(r"\n\s*[~^]+(?=\n)", "", re.sub(r"\n\?[^\n]*", "", report))
    return re.sub(r"\n+", "\n", re.sub(r"^[.FE]+\n", "", report.strip()))


KINDS = [
    programs.hello,
    programs.function,
    programs.numbers,
    programs.calculator,
    programs.todo,
    programs.page,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_the_programs_do_what_the_training_text_says_they_do(
    make: Callable[[Draw], Program], tmp_path: Path
) -> None:
    for at in range(3 if make is programs.function else 1):
        draw = Draw(f"program/{at}")
        program = make(draw)
        folder = laid_out(tmp_path / f"{at}", program.files)
        if program.run:
            assert ran(folder, *program.run.split()[1:]).stdout.strip() == program.output
        assert plain(ran(folder, "-m", "unittest").stderr) == plain(programs.passed(draw, program))
        for number, fault in enumerate(program.faults):
            broken = laid_out(tmp_path / f"{at}-{number}", programs.broken(program, fault))
            report, _ = programs.failed(draw, program, fault)
            assert plain(ran(broken, "-m", "unittest").stderr) == plain(report)
            if program.run:
                assert fault_shows(program, fault, ran(broken, *program.run.split()[1:]).stdout.strip())


def fault_shows(program: Program, fault: Fault, printed: str) -> bool:
    """Whether the program printed what the training text says a program with this fault prints. One that
    fails with an error prints its traceback instead; the text never runs those."""
    return bool(fault.error) or printed == programs.output_with(program, fault)
