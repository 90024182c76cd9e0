"""How the bundled model is measured: what counts as an answer, what is asked, what stands in the card, what is
replaced by an export. Nothing here asks the model anything."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

MODEL = Path(__file__).parents[1] / "models" / "portico-tiny"
sys.path.insert(0, str(MODEL))

from recipe import agreement, asking, card, evaluate, logbook, questions, serving, table  # noqa: E402
from recipe.families import chat, team  # noqa: E402
from recipe.families.call_or_finish import forced  # noqa: E402
from recipe.judging import fits, right, well_formed  # noqa: E402
from recipe.sample import Draw, Entry, Message, Sample, calls, says, says_json, tool, user  # noqa: E402
from recipe.staging import replacing  # noqa: E402

WEATHER = tool("get_weather", "", {"city": {"type": "string"}, "days": {"type": "integer"}}, ["city"])
LIGHT = tool("light", "", {"on": {"type": "boolean"}})
TOOLS = [WEATHER, LIGHT]


def judged(sample: Sample, got: Message) -> tuple[bool, bool]:
    """(form, value), of the answer as it comes over HTTP: arguments are text there."""
    got = asking.spelled(got)
    return well_formed(sample, got), right(sample, got)


# ---- what is an answer


def test_a_call_is_of_the_tool_with_the_arguments_that_its_definition_asks_for() -> None:
    sample = Sample([user("?"), calls(("get_weather", {"city": "Oslo", "days": 2}))], tools=TOOLS)
    assert judged(sample, sample.answer) == (True, True)
    assert judged(sample, calls(("get_weather", {"city": "Rome"}))) == (True, False)
    for arguments in ({}, {"zzz": 1}, {"city": 5}, {"city": "Oslo", "days": "2"}, {"city": "Oslo", "zzz": 1}):
        assert judged(sample, calls(("get_weather", arguments))) == (False, False), arguments
    assert judged(sample, calls(("light", {"on": True}))) == (True, False)
    assert judged(sample, calls(("no_such_tool", {"city": "Oslo"}))) == (False, False)
    assert judged(sample, says("Oslo")) == (False, False)
    no_json = {
        "content": "",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city": "Oslo"'}}],
    }
    assert judged(sample, no_json) == (False, False)


def test_text_beside_a_call_is_noise() -> None:
    wanted = ("light", {"on": True})
    sample = Sample([user("?"), calls(wanted)], tools=TOOLS)
    assert judged(sample, calls(wanted, text="noise")) == (False, False)
    assert judged(sample, {**calls(wanted), "content": None}) == (True, True)
    spoken = Sample([user("?"), calls(wanted, text="I do it.")], tools=TOOLS)
    assert judged(spoken, calls(wanted, text="I do it.")) == (True, True)
    assert judged(spoken, calls(wanted)) == (False, False)


def test_as_many_calls_as_are_wanted() -> None:
    one, two = ("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})
    sample = Sample([user("?"), calls(one, two)], tools=TOOLS)
    assert judged(sample, calls(one, two)) == (True, True)
    assert judged(sample, calls(two, one)) == (True, False)
    assert judged(sample, calls(one)) == judged(sample, calls(one, two, two)) == (False, False)


def test_one_is_not_true_and_five_is_not_five_point_nought() -> None:
    switch = Sample([user("?"), calls(("light", {"on": True}))], tools=TOOLS)
    assert judged(switch, calls(("light", {"on": 1}))) == (False, False)
    shape = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    sample = Sample([user("?"), says_json({"n": 5})], schema=shape)
    assert judged(sample, says('{"n":5}')) == (True, True)
    assert judged(sample, says_json({"n": 5.0})) == (True, False)
    assert judged(sample, says_json({"n": "5"})) == judged(sample, says_json({"n": True})) == (False, False)


def test_json_has_the_keys_and_the_types_of_its_schema() -> None:
    shape = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    sample = Sample([user("?"), says_json({"a": "x", "b": 1})], schema={**shape, "required": ["a", "b"]})
    assert judged(sample, says_json({"b": 1, "a": "x"})) == (True, True)
    for value in ({"a": "x"}, {"a": 1, "b": 1}, {"a": "x", "b": 1.5}, {"a": "x", "b": 1, "c": 2}, [], "a", 5):
        assert judged(sample, says_json(value)) == (False, False), value
    assert judged(sample, says('{"a": "x", "b": 1} noise')) == (False, False)
    assert judged(sample, {**calls(("light", {"on": True})), "content": '{"a": "x", "b": 1}'})[0] is False


def test_shapes_are_those_of_json_schema() -> None:
    """Where the standard says no, so does `fits`; it says no also to properties that are not named."""
    shapes: list[dict[str, Any]] = [
        {"type": "integer"},
        {"type": "number"},
        {"type": "boolean"},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"enum": ["a", 1, None]},
        {"const": True},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"type": "object"},
        {},
    ]
    values: list[Any] = [None, True, False, 0, 1, 2.5, "a", "b", [], [1], ["a"], {}, {"a": 1}, {"a": "1"}]
    for shape in shapes:
        for value in values:
            valid = jsonschema.Draft202012Validator(shape).is_valid(value)
            assert fits(shape, value) == valid, (shape, value)
    assert not fits({"properties": {"a": {}}}, {"a": 1, "b": 2})
    assert not fits({"type": "integer"}, 5.0)


def test_a_turn_of_call_or_finish_is_a_call_as_its_tool_is_defined() -> None:
    sample = forced([user("?"), calls(("get_weather", {"city": "Oslo"}))], TOOLS)
    assert judged(sample, sample.answer) == (True, True)
    turns: list[Any] = [
        {"call": 5, "arguments": "x"},
        {"call": "get_weather", "arguments": {}},
        {"call": "get_weather", "arguments": {"city": 1}},
        {"finish": "Oslo"},
        {"call": "get_weather", "arguments": {"city": "Oslo"}, "finish": ""},
        5,
    ]
    for turn in turns:
        assert judged(sample, says_json(turn)) == (False, False), turn
    assert judged(sample, says_json({"call": "light", "arguments": {"on": True}})) == (True, False)


def test_an_answer_of_the_team_and_a_refusal_have_a_form() -> None:
    assert team.is_review(says("main.py, add: it subtracts.")) and team.is_review(says("<INFO> Finished"))
    assert not team.is_review(says("It is good.")) and not team.is_review(
        says("main.py, add: a.\nb.py, c: d.")
    )
    assert team.is_finding(says("test_main.py, line 7: AssertionError: 1 != 2"))
    assert not team.is_finding(says("The test fails."))
    assert team.are_pictures(says("icon.png: a box\nbanner.png: a box in large letters"))
    assert not team.are_pictures(says("icon.png: a box")) and not team.are_pictures(says("a box\nanother"))
    refusal = chat.refusal(Draw("refusal"))
    assert judged(refusal, says("I do not know.")) == (True, True)
    assert judged(refusal, says("I have no idea.")) == (True, False)
    assert (
        judged(refusal, says("Paris")) == judged(refusal, says("I do not know. It is 5.")) == (False, False)
    )


# ---- what is asked


def one_of(count: int) -> Entry:
    """A family of so many questions. In unseen wordings there are twice as many."""

    def make(d: Draw) -> Sample:
        asked = d.integer(1, count if d.wordings == "trained" else 2 * count)
        return Sample([user(f"{d.wordings} {asked}"), calls(("light", {"on": True}))], tools=TOOLS)

    return Entry("few", make, bar=0.9)


def test_no_question_of_a_column_is_asked_twice() -> None:
    entry = one_of(6)
    asked = [sample.prompt[0]["content"] for _, sample in questions.distinct(entry, "trained", 50)]
    assert len(asked) == len(set(asked)) == 6
    asked = [sample.prompt[0]["content"] for _, sample in questions.distinct(one_of(500), "trained", 50)]
    assert len(asked) == len(set(asked)) == 50
    for number, sample in questions.distinct(entry, "unseen", 4):
        assert questions.question(entry, "unseen", number) == sample


def test_the_entries_take_turns_and_the_grammar_gets_some_of_the_same_questions() -> None:
    few, many = replace(one_of(2), name="few"), replace(one_of(900), name="many")
    asked = list(evaluate.jobs([few, many], {"few": 10, "many": 10}, forced=5))
    columns = {
        name: [job.column for job in asked if job.entry.name == name].count for name in ("few", "many")
    }
    assert [columns["few"](column) for column in table.COLUMNS] == [2, 4, 5]
    assert [columns["many"](column) for column in table.COLUMNS] == [10, 10, 5]
    assert [job.entry.name for job in asked[:6]] == ["few", "many"] * 3
    plain = {questions.fingerprint(job.sample) for job in asked if job.column != "grammar"}
    assert {questions.fingerprint(job.sample) for job in asked if job.column == "grammar"} <= plain


def test_a_family_is_asked_enough_and_each_of_its_entries_not_too_little() -> None:
    rows = [
        replace(one_of(9), name=name, family=family) for name, family in (("a", "x"), ("b", "x"), ("c", ""))
    ]
    assert evaluate.counts(rows, samples=100, least=30) == {"a": 50, "b": 50, "c": 100}
    assert evaluate.counts(rows, samples=101, least=60) == {"a": 60, "b": 60, "c": 101}
    assert evaluate.counts(rows, samples=8, least=30) == {"a": 8, "b": 8, "c": 8}
    shares = evaluate.counts(questions.entries(), samples=100, least=30)
    for family in {entry.family for entry in questions.entries()}:
        assert sum(shares[entry.name] for entry in questions.entries() if entry.family == family) >= 100


def test_the_rows_known_by_heart_exist() -> None:
    marked = {entry.name for entry in questions.entries() if entry.by_heart}
    assert marked == questions.BY_HEART


@pytest.mark.parametrize("entry", questions.entries(), ids=lambda entry: entry.name)
def test_no_other_question_was_trained(entry: Entry) -> None:
    """Or only a few: some sums have two digits, some refusals no name in them, some tasks of the team are all known."""
    draws = 100 if "tokens" in entry.name else 3000
    trained = {questions.fingerprint(entry.make(Draw(f"training/test/{at}"))) for at in range(draws)}
    shares = []
    for wordings in questions.WORDINGS:
        asked = [questions.fingerprint(sample) for _, sample in questions.distinct(entry, wordings, 100)]
        shares.append(sum(mark in trained for mark in asked) / len(asked))
    assert shares[0] < 0.15 or entry.by_heart, shares
    assert shares[1] < 0.05, shares


def test_our_own_mark_on_a_message_is_not_sent() -> None:
    sample = Sample([user("?"), {**calls(("light", {"on": True})), "untrained": True}, user("!"), says("a")])
    assert "untrained" not in json.dumps(asking.request(sample)[1])


@contextmanager
def scripted(dropped: int) -> Iterator[str]:
    """The address of a server that hangs up on the first so many requests, and answers "no" to the others."""
    left = [dropped]

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if left[0]:
                left[0] -= 1
                return
            choice = {"message": {"role": "assistant", "content": "no"}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1}
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def evaluated(url: str, program: str, folder: Path) -> table.Tally:
    """The column of trained wordings of five questions, asked of a server whose process runs `program`."""
    (folder / "log").write_text("its last words")
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        entry = one_of(900)
        evaluation = evaluate.Evaluation(serving.Server(url, process, folder / "log"), [entry], failures=9)
        asyncio.run(evaluation.run(evaluate.jobs([entry], {entry.name: 5}, forced=0), at_once=1))
        assert process.stdin is not None
        process.stdin.close()
    return evaluation.rows["few"].columns["trained"]


def test_an_answer_that_does_not_come_is_a_wrong_one(tmp_path: Path) -> None:
    with scripted(dropped=1) as url:
        tally = evaluated(url, "input()", tmp_path)
    assert (tally.asked, tally.errors, tally.form) == (5, 1, 0)


def test_a_server_that_is_gone_ends_the_evaluation(tmp_path: Path) -> None:
    with scripted(dropped=1) as url, pytest.raises(ExceptionGroup) as found:
        evaluated(url, "", tmp_path)
    assert found.group_contains(serving.ServerFailed, match="exit code 0.*\nits last words")


def test_a_line_of_the_server_that_is_no_json_says_nothing() -> None:
    assert serving._port(b'{"event": "server_started", "port": 5}') == 5
    assert serving._port(b'not "server_started"') is serving._port(b"{}") is None


# ---- what is told


def tally(asked: int, form: int, value: int) -> table.Tally:
    return table.Tally(asked=asked, form=form, value=value)


def test_figures_are_rounded_down_and_bold_below_their_bar() -> None:
    assert table.figure(0.98, 0.98) == "0.980"
    assert table.figure(0.9799, 0.98) == "**0.979**"
    assert table.figure(0.29, 0.29) == "0.290"  # 0.29 * 1000 is 289.99999999999994
    assert table.figure(1.0, 0.98) == "1.000"
    assert table.cell(tally(200, 196, 189), 0.95) == "0.980 / **0.945** (200)"
    assert table.cell(tally(0, 0, 0), 0.95) == "–"


def test_the_table_says_what_was_asked_of_which_weights() -> None:
    good = table.Row(Entry("good", one_of(1).make, bar=0.9), prompts=[1, 3, 5])
    good.columns["trained"], good.columns["grammar"] = tally(100, 98, 90), tally(13, 13, 13)
    bad = table.Row(Entry("bad", one_of(1).make, bar=0.9, by_heart=True))
    bad.columns["unseen"] = tally(43, 43, 1)
    made = table.table([good, bad], "abc123")
    assert "sha256 `abc123`" in made and "1 of 2 entries reach every bar." in made
    assert "1 of 2 families reach every bar." in made
    assert "| good | 1 / 3 / 5 | 0.90 | 0.980 / 0.900 (100) | – | 1.000 / 1.000 (13) | ok |" in made
    assert "| bad (*by heart*) | – | 0.90 | – | 1.000 / **0.023** (43) | – | below |" in made
    assert bad.below() == ["unseen value"]
    assert table.results([good], "abc123", 1.5)["weights"] == "abc123"


def test_a_family_is_its_entries_together() -> None:
    first = table.Row(Entry("first", one_of(1).make, bar=0.9, by_heart=True, family="both"), prompts=[1, 5])
    second = table.Row(Entry("second", one_of(1).make, bar=0.9, family="both"), prompts=[9])
    first.columns["trained"], second.columns["trained"] = tally(50, 50, 50), tally(50, 48, 30)
    (both,) = table.families([first, second])
    assert (both.columns["trained"], both.prompts) == (tally(100, 98, 80), [1, 5, 9])
    assert not both.entry.by_heart and both.below() == ["trained value"]
    made = table.table([first, second], "abc123")
    assert "| both | 1 / 5 / 9 | 0.90 | 0.980 / **0.800** (100) | – | – | below |" in made
    assert first.columns["trained"] == tally(50, 50, 50)


def test_a_section_of_the_card_is_replaced_and_nothing_else() -> None:
    section = card.EVALUATION
    text = f"before\n{section.begin}\nold\n{section.end}\nafter\n"
    new = card.updated(text, section, "new")
    assert new == f"before\n{section.begin}\nnew\n{section.end}\nafter\n"
    assert card.updated(new, section, "new") == new
    assert card.written(new, section) == "new"
    for broken in ("", text.replace(section.begin, ""), text.replace(section.end, "")):
        with pytest.raises(card.NoPlace, match="lacks"):
            card.updated(broken, section, "new")


def test_the_card_has_a_place_for_every_table_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--check", str(MODEL / "README.md")]) == 0
    (tmp_path / "README.md").write_text("no place\n")
    assert evaluate.main(["--check", str(tmp_path / "README.md")]) == 2
    assert evaluate.main(["--update", str(tmp_path / "README.md")]) == 2
    assert "lacks" in capsys.readouterr().err


def test_a_part_of_the_table_does_not_go_into_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--only", "chat", "--update", str(MODEL / "README.md")])
    assert "--only" in capsys.readouterr().err


# ---- other engines


WEIGHTS = {"model.safetensors": "a", "portico-tiny.gguf": "b"}


def test_answers_are_compared_of_the_same_weights_to_the_same_questions(tmp_path: Path) -> None:
    asked = [questions.Asked(f"sum/{at}", Sample([user(f"{at}?"), says(f"{at}")])) for at in range(4)]
    same = {each.name: agreement.told(each.sample.answer, "stop") for each in asked}
    run = agreement.Run(WEIGHTS, questions.digest(asked), same)
    run.write(tmp_path / "one.json")
    assert agreement.Run.read(tmp_path / "one.json") == run

    other = replace(run, answers={**same, "sum/2": agreement.told(says("two"), "stop")})
    made = agreement.report({"one": run, "other": other}, asked, WEIGHTS)
    assert "| one, other | **3 of 4** | sum/2 |" in made and "| other | 3 of 4 |" in made
    assert "| one, again | 4 of 4 |  |" in agreement.report({"one": run, "again": run}, asked, WEIGHTS)

    old = replace(run, weights={**WEIGHTS, "model.safetensors": "c"})
    strange = replace(run, questions=questions.digest(asked[:3]))
    for odd, why in ((old, "other weights"), (strange, "other questions")):
        with pytest.raises(agreement.NotComparable, match=f"odd .*{why}|odd.*{why}"):
            agreement.report({"one": run, "odd": odd}, asked, WEIGHTS)
    with pytest.raises(agreement.NotComparable, match="other weights"):
        agreement.report({"one": run, "again": run}, asked, {**WEIGHTS, "portico-tiny.gguf": "new"})
    with pytest.raises(agreement.NotComparable, match="1 engines"):
        agreement.report({"one": run}, asked, WEIGHTS)
    (tmp_path / "one.json").write_text(json.dumps(same))
    with pytest.raises(agreement.NotComparable, match="which weights"):
        agreement.Run.read(tmp_path / "one.json")


# ---- what an export and a training leave


def test_an_export_replaces_all_files_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("weights", "config", "card"):
        (folder / name).write_text("old")

    def export(fails: bool) -> None:
        with replacing(folder) as made:
            for name in ("weights", "config"):
                (made / name).write_text("new")
            assert (folder / "weights").read_text() == "old"
            if fails:
                raise ValueError("not what was trained")

    with pytest.raises(ValueError, match="not what was trained"):
        export(fails=True)
    assert {path.read_text() for path in folder.iterdir()} == {"old"}
    export(fails=False)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "weights": "new",
        "config": "new",
        "card": "old",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_training_that_goes_on_forgets_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines: list[dict[str, Any]] = [{"parameters": 5, "step": 0}]
    lines += [{"step": step, "loss": 1.0} for step in (50, 100, 150)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 20')
    for _ in range(2):  # broken twice at the same place
        with logbook.opened(path, 100) as log:
            log.write(json.dumps({"parameters": 5, "step": 100}) + "\n")
            log.write(json.dumps({"step": 150, "loss": 2.0}) + "\n")
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in steps] == [0, 50, 100, 100, 150]
    assert steps[-1]["loss"] == 2.0
    with logbook.opened(path, 0):
        pass
    assert path.read_text() == ""


def test_the_log_names_the_machine_and_no_places_on_it() -> None:
    heading = logbook.heading({"seed": 1, "out": Path("/home/x"), "tokenizer": Path("/home/x/t")}, step=0)
    assert "/home" not in json.dumps(heading)
    assert heading["seed"] == 1 and heading["cores"] >= 1 and heading["processor"]
