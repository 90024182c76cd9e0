"""A conversation and its settings, without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from portico.cli import talk
from portico.cli.failure import Failure
from portico.cli.talk import Talk


def test_a_request_holds_the_system_text_the_turns_and_what_was_set() -> None:
    conversation = Talk(model="toy")
    conversation.set("system", "Be brief.")
    conversation.set("temperature", "0.2")
    conversation.set("stop", "###")
    conversation.set("num_ctx", "4096")
    conversation.set("think", "off")
    conversation.set("json", "")
    conversation.ask("Hi", ("aW1n",))
    conversation.answered("Hello.")
    conversation.ask("And?")
    request = conversation.request()
    messages = [(message.role, message.content, message.images) for message in request.pop("messages")]
    assert messages == [
        ("system", "Be brief.", ()),
        ("user", "Hi", ("aW1n",)),
        ("assistant", "Hello.", ()),
        ("user", "And?", ()),
    ]
    assert request == {
        "model": "toy",
        "stream": True,
        "think": False,
        "format": "json",
        "options": {"temperature": 0.2, "stop": ["###"], "num_ctx": 4096},
    }


def test_an_empty_value_goes_back_to_the_default() -> None:
    conversation = Talk(model="toy")
    for name, value in (("system", "x"), ("temperature", "1"), ("json", "on"), ("keep_alive", "10m")):
        conversation.set(name, value)
    assert [name for name, _ in conversation.settings()] == ["system", "format", "keep_alive", "temperature"]
    for name in ("system", "temperature", "keep_alive"):
        conversation.set(name, "")
    conversation.set("json", "off")
    assert conversation.settings() == []
    assert conversation.request() == {"model": "toy", "messages": [], "stream": True}


def test_think_is_a_switch_or_a_level() -> None:
    conversation = Talk(model="toy")
    for typed, meant in (("", True), ("on", True), ("off", False), ("high", "high")):
        conversation.set("think", typed)
        assert conversation.think == meant
    conversation.set("nothink", "")
    assert conversation.think is False


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("temprature", "1", "there is no option 'temprature'; nearest: temperature"),
        ("num-ctxx", "1", "there is no option 'num-ctxx'; nearest: num_ctx"),
        ("a b", "1", "'a b' is not the name of an option"),
        ("format", "xml", "format is json, off or a JSON schema"),
    ],
)
def test_what_cannot_be_set_says_why(name: str, value: str, wrong: str) -> None:
    with pytest.raises(ValueError) as caught:
        Talk(model="toy").set(name, value)
    assert str(caught.value) == wrong


def test_names_that_only_an_engine_knows_are_passed_on() -> None:
    assert talk.option("dry_multiplier", "0.8") == ("dry_multiplier", 0.8)
    assert talk.option("top_a", "0.2") == ("top_a", 0.2)
    assert talk.option("num-predict", "5") == ("num_predict", 5)
    assert talk.option("stop", '["a", "b"]') == ("stop", ["a", "b"])


def test_an_answer_without_a_word_takes_its_question_back() -> None:
    conversation = Talk(model="toy")
    conversation.ask("Hi")
    conversation.answered("")
    assert conversation.messages == []


def test_undo_takes_back_the_last_question_and_its_answer() -> None:
    conversation = Talk(model="toy")
    for word in ("one", "two"):
        conversation.ask(word)
        conversation.answered(word.upper())
    question = conversation.take_back()
    assert question is not None and question.content == "two"
    assert [message.content for message in conversation.messages] == ["one", "ONE"]
    conversation.take_back()
    assert conversation.take_back() is None


def test_a_saved_conversation_comes_back_and_is_nobody_elses(tmp_path: Path) -> None:
    conversation = Talk(model="toy")
    conversation.set("system", "Be brief.")
    conversation.set("temperature", "0.2")
    conversation.ask("Hi")
    conversation.answered("Hello.")
    path = tmp_path / "folder" / "talk.json"
    conversation.save(path)
    assert talk.load(path) == conversation
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_conversation(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    for name in ("x.json", "none.json"):
        with pytest.raises(Failure) as caught:
            talk.load(tmp_path / name)
        assert caught.value.slug == "file"
