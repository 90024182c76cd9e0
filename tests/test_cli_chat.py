"""chat and generate: for a script through pipes, and for somebody at a terminal."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_fixtures import Ollama, Terminal, environment, run, serving


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with serving(Ollama()) as ollama:
        yield ollama


@pytest.fixture
def env(tmp_path: Path, ollama: Ollama) -> dict[str, str]:
    return environment(tmp_path, PORTICO_HOST=ollama.url)


# ---- for a script ------------------------------------------------------------------------------


def test_one_question_gives_one_answer_and_nothing_else(env: dict[str, str], ollama: Ollama) -> None:
    ollama.thoughts = "hm"
    done = run("chat", "toy", "-p", "Hi", "-s", "Be brief.", "-o", "temperature=0.2", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello.\n", "")
    (asked,) = ollama.bodies("/api/chat")
    assert asked["model"] == "toy"
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert asked["options"] == {"temperature": 0.2}


def test_the_question_comes_through_a_pipe_or_both_ways(env: dict[str, str], ollama: Ollama) -> None:
    assert run("chat", "toy", env=env, stdin="piped in\n").stdout == "Hello.\n"
    assert run("chat", "toy", "-p", "Explain", env=env, stdin="x = 1\n").stdout == "Hello.\n"
    asked = [body["messages"][-1]["content"] for body in ollama.bodies("/api/chat")]
    assert asked == ["piped in", "Explain\n\nx = 1"]


def test_without_a_name_the_model_that_is_there(env: dict[str, str], ollama: Ollama) -> None:
    assert run("chat", "-p", "Hi", env=env).returncode == 0
    assert ollama.bodies("/api/chat")[0]["model"] == "toy:latest"
    ollama.models = []
    assert run("chat", "-p", "Hi", env=env).stderr.startswith("error[no_model]")


def test_an_answer_as_json(env: dict[str, str], ollama: Ollama) -> None:
    ollama.thoughts = "hm"
    done = run("chat", "toy", "-p", "Hi", "--json", env=env)
    answer = json.loads(done.stdout)
    assert answer["took_ms"] >= answer["first_token_ms"] > 0
    del answer["took_ms"], answer["first_token_ms"], answer["tokens_per_s"]
    assert answer == {
        "schema": 1,
        "model": "toy",
        "text": "Hello.",
        "thinking": "hm",
        "finish_reason": "stop",
        "tokens_in": 7,
        "tokens_out": 2,
    }


def test_wrong_questions_are_wrong_usage(env: dict[str, str]) -> None:
    for arguments in (
        ["-p", ""],
        ["--json"],
        ["-p", "Hi", "-o", "temperature"],
        ["-p", "Hi", "-o", "temprature=1"],
    ):
        done = run("chat", "toy", *arguments, env=env)
        assert (done.returncode, done.stdout) == (2, ""), arguments


def test_an_error_in_mid_answer_keeps_what_was_said_and_fails(env: dict[str, str], ollama: Ollama) -> None:
    def break_off(body: dict[str, Any]) -> Iterator[str]:
        yield "Half"
        raise ConnectionResetError  # the scripted server hangs up

    ollama.say = break_off
    done = run("chat", "toy", "-p", "Hi", env=env)
    assert (done.returncode, done.stdout) == (1, "Half\n")
    assert done.stderr.startswith("error[closed]: the server at http://127.0.0.1:")


def test_an_error_line_is_the_servers_own_words(env: dict[str, str], ollama: Ollama) -> None:
    ollama.lines = [{"message": {"content": "Half"}}, {"error": "the engine died"}]
    done = run("chat", "toy", "-p", "Hi", env=env)
    assert (done.returncode, done.stdout) == (1, "Half\n")
    assert done.stderr == "error[server]: the engine died\n"


def test_lines_are_split_at_newlines_alone(env: dict[str, str], ollama: Ollama) -> None:
    text = "one\u2028two\x85three"
    ollama.raw_text = True
    ollama.say = lambda body: iter([text])
    assert run("chat", "toy", "-p", "Hi", env=env).stdout == f"{text}\n"


def test_generate(env: dict[str, str], ollama: Ollama, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    arguments = ["--raw", "--suffix", "end", "--system", "s", "--image", str(picture), "--format", "json"]
    assert run("generate", "toy", "Once", *arguments, env=env).stdout == "Hello.\n"
    (asked,) = ollama.bodies("/api/generate")
    assert asked == {
        "model": "toy",
        "prompt": "Once",
        "stream": True,
        "raw": True,
        "suffix": "end",
        "system": "s",
        "images": [base64.b64encode(b"\x89PNG").decode()],
        "format": "json",
    }
    assert run("generate", "toy", "-", env=env, stdin="from a pipe").returncode == 0
    assert ollama.bodies("/api/generate")[1]["prompt"] == "from a pipe"
    assert run("generate", "toy", env=env).returncode == 2
    done = run("generate", "toy", "x", "--image", str(tmp_path / "none.png"), env=env)
    assert (done.returncode, done.stdout) == (1, "")


def test_an_unknown_model(env: dict[str, str]) -> None:
    done = run("chat", "toi", "-p", "Hi", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nearest  toy:latest" in done.stderr


# ---- at a terminal -----------------------------------------------------------------------------


class Held:
    """Answers whose pieces come when the test lets them: nothing here waits for a clock."""

    def __init__(self) -> None:
        self.more = threading.Event()

    def __call__(self, body: dict[str, Any]) -> Iterator[str]:
        question = body["messages"][-1]["content"]
        if question != "a long one":
            yield f"You said {question}."
            return
        yield "begun"
        while not self.more.wait(0.01):
            yield " and"  # until the caller hangs up


def test_a_conversation_survives_ctrl_c_in_the_middle_of_an_answer(
    env: dict[str, str], ollama: Ollama
) -> None:
    ollama.say = Held()
    with Terminal("chat", "toy", env=env) as terminal:
        greeting = terminal.wait_for(">>> ")
        assert "toy, context 8,192." in greeting and "/help" in greeting
        terminal.type("hello\n")
        terminal.wait_for("You said hello.")
        assert "1 tok" in terminal.wait_for(">>> ")
        terminal.type("a long one\n")
        terminal.wait_for("begun and")
        terminal.interrupt()
        terminal.wait_for("stopped; what was said is kept")
        assert ollama.hung_up.wait(10)  # the engine would otherwise go on for nobody
        terminal.wait_for(">>> ")
        terminal.type("and now?\n")
        terminal.wait_for("You said and now?.")
        terminal.wait_for(">>> ")
        terminal.type("/bye\n")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.seen
    roles = [
        (message["role"], message["content"][:9]) for message in ollama.bodies("/api/chat")[-1]["messages"]
    ]
    assert roles == [
        ("user", "hello"),
        ("assistant", "You said "),
        ("user", "a long on"),
        ("assistant", "begun and"),
        ("user", "and now?"),
    ]


def test_ctrl_c_on_a_line_clears_it_on_an_empty_one_hints_and_twice_leaves(env: dict[str, str]) -> None:
    with Terminal("chat", "toy", env=env) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("half a lin")
        terminal.wait_for("half a lin")
        terminal.interrupt()
        assert "Ctrl-C" not in terminal.wait_for(">>> ")
        terminal.interrupt()
        terminal.wait_for("Ctrl-C again leaves")
        terminal.wait_for(">>> ")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Traceback" not in terminal.seen


def test_ctrl_d_leaves(env: dict[str, str]) -> None:
    with Terminal("chat", "toy", env=env) as terminal:
        terminal.wait_for(">>> ")
        terminal.type("\x04")
        assert terminal.end() == 0


def test_slash_commands(env: dict[str, str], ollama: Ollama, tmp_path: Path) -> None:
    with Terminal("chat", "toy", env=env | {"NO_COLOR": "1"}) as terminal:

        def say(line: str) -> str:
            terminal.wait_for(">>> ")
            terminal.type(line + "\n")
            return line

        say('/set system """Be')
        terminal.wait_for("... ")
        terminal.type('brief."""\n')
        say("/set temperature 0.1")
        say("/set temprature 1")
        terminal.wait_for("nearest: temperature")
        say("/sett")
        terminal.wait_for("there is no command /sett; nearest: /set")
        say('"""two')
        terminal.wait_for("... ")
        terminal.type('lines"""\n')
        terminal.wait_for("Hello.")
        say("/save first")
        terminal.wait_for("saved to")
        say("/clear")
        terminal.wait_for("forgotten")
        say("/undo")
        terminal.wait_for("nothing to take back")
        say("/load first")
        terminal.wait_for("2 messages with toy")
        say("/retry")
        terminal.wait_for("Hello.")
        say("/show")
        terminal.wait_for("2 messages so far")
        say("/help")
        terminal.wait_for("/bye")
        say("/?")
        terminal.wait_for("/bye")
        say("/bye")
        assert terminal.end() == 0
    first, again = ollama.bodies("/api/chat")
    assert first["messages"] == [
        {"role": "system", "content": "Be\nbrief."},
        {"role": "user", "content": "two\nlines"},
    ]
    assert first["options"] == {"temperature": 0.1}
    assert again == first
    assert (tmp_path / "portico" / "chats" / "first.json").is_file()
    assert "/set temperature 0.1" in (tmp_path / "portico" / "chat_history").read_text()


def test_an_error_ends_the_answer_and_not_the_conversation(env: dict[str, str], ollama: Ollama) -> None:
    with Terminal("chat", "toy", env=env) as terminal:
        terminal.wait_for(">>> ")
        ollama.error = (500, "the engine died")
        terminal.type("hello\n")
        terminal.wait_for("the engine died")
        ollama.error = None
        terminal.wait_for(">>> ")
        terminal.type("again\n")
        terminal.wait_for("Hello.")
        terminal.type("/bye\n")
        assert terminal.end() == 0
    assert [message["content"] for message in ollama.bodies("/api/chat")[-1]["messages"]] == ["again"]


def test_thinking_is_shown_apart_and_escapes_are_taken_out(env: dict[str, str], ollama: Ollama) -> None:
    ollama.thoughts = "let me see"
    ollama.say = lambda body: iter(["\x1b]0;title\x07safe"])
    with Terminal("chat", "toy", "-p", "Hi", env=env) as terminal:
        assert terminal.end() == 0
        assert "\x1b[2mlet me see\x1b[0m" in terminal.seen
        assert "]0;titlesafe" in terminal.seen and "\x1b]0" not in terminal.seen
    with Terminal("chat", "toy", "-p", "Hi", "--hide-thinking", env=env) as terminal:
        assert terminal.end() == 0
        assert "let me see" not in terminal.seen


def test_ctrl_c_while_one_question_is_answered_leaves_with_130(env: dict[str, str], ollama: Ollama) -> None:
    ollama.say = Held()
    with Terminal("chat", "toy", "-p", "a long one", env=env) as terminal:
        terminal.wait_for("begun")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Traceback" not in terminal.seen
    assert ollama.hung_up.wait(10)
