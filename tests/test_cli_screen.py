"""Numbers and the screen: pure decisions, tested with plain values."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cli_fixtures import Ollama, environment, run, serving
from portico.cli import units
from portico.cli.address import find
from portico.cli.choices import Choices
from portico.cli.failure import Failure, as_lines, explained
from portico.cli.listing import read_time
from portico.cli.screen import decide, printable, table
from portico.errors import EngineStartFailed


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.00048, "0.48 ms"),
        (0.0084, "8.4 ms"),
        (0.00999, "10 ms"),
        (0.142, "142 ms"),
        (0.9996, "1.0 s"),
        (5.4, "5.4 s"),
        (9.96, "10 s"),
        (28, "28 s"),
        (59.7, "1m00s"),
        (109, "1m49s"),
        (7500, "2h05m"),
        (273600, "3d 4h"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert units.duration(seconds) == written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (units.file_size(812), "812 B"),
        (units.file_size(4_736_448), "4.7 MB"),
        (units.file_size(999_999), "1.0 MB"),
        (units.file_size(48_000_000), "48 MB"),
        (units.file_size(5_234_000_000), "5.2 GB"),
        (units.memory(9.4 * 2**30), "9.4 GiB"),
        (units.memory(0), "-"),
        (units.rate(8.31), "8.3"),
        (units.rate(61.4), "61"),
        (units.rate(1840), "1,840"),
        (units.rate(None), "-"),
        (units.rough(318), "318"),
        (units.rough(6_140), "6.1k"),
        (units.rough(302_000), "302k"),
        (units.rough(1_240_000), "1.2M"),
        (units.until(290), "in 4m50s"),
        (units.until(4.2), "in 4 s"),
        (units.until(9e9), "never"),
        (units.ago(7_300), "2 h ago"),
        (units.bar(42, 100, 24), "[##########..............]"),
        (units.shortened("a-very-long-name-of-a-model", 15), "a-very...-model"),
    ],
)
def test_figures(written: str, expected: str) -> None:
    assert written == expected


def test_percent_is_floored_and_100_means_finished() -> None:
    assert [units.percent(done, 1000) for done in (0, 999, 1000)] == [0, 99, 100]


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal, self._encoding = terminal, encoding

    def isatty(self) -> bool:
        return self._terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def choose(environ: dict[str, str], **choices: object) -> Choices:
    chosen = Choices(environ=environ)
    for name, value in choices.items():
        setattr(chosen, name, value)
    return chosen


@pytest.mark.parametrize(
    ("environ", "choices", "color", "live"),
    [
        ({}, {}, True, True),
        ({"NO_COLOR": "1"}, {}, False, True),
        ({"NO_COLOR": "", "FORCE_COLOR": "1"}, {}, True, True),
        ({"NO_COLOR": "1"}, {"color": "always"}, True, True),
        ({"TERM": "dumb"}, {}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, {}, True, False),
        ({"CI": "true"}, {}, True, False),
        ({}, {"quiet": True}, True, False),
        ({}, {"as_json": True}, True, False),
        ({}, {"color": "never", "progress": "plain"}, False, False),
    ],
)
def test_color_and_motion_are_two_decisions(
    environ: dict[str, str],
    choices: dict[str, object],
    color: bool,
    live: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", Stream(terminal=True))
    screen = decide(choose(environ, **choices))
    assert (screen.color_out, screen.live) == (color, live)


def test_signs_become_ascii_where_the_stream_cannot_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Stream(terminal=True, encoding="cp1252"))
    assert "+" in decide(choose({})).sign("done")
    monkeypatch.setattr("sys.stderr", Stream(terminal=True))
    assert "✓" in decide(choose({})).sign("done")
    assert "+" in decide(choose({"PORTICO_ASCII": "1"})).sign("done")
    monkeypatch.setattr("sys.stderr", Stream(terminal=False))
    assert decide(choose({})).sign("done") == "ok  "


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b]0;title\x07b\r\x9bc\td\ne") == "a]0;titlebc\td\ne"
    assert printable("héllo ✓ 日本") == "héllo ✓ 日本"


def test_a_table_is_aligned_leaves_empty_columns_out_and_cuts_only_names() -> None:
    rows = [("a-very-long-name-of-a-model", "1,024", ""), ("b", "8", "")]
    assert table(("MODEL", "SIZE", "NONE"), rows, right=("SIZE",)) == [
        "MODEL                         SIZE",
        "a-very-long-name-of-a-model  1,024",
        "b                                8",
    ]
    assert max(map(len, table(("MODEL", "SIZE", "NONE"), rows, right=("SIZE",), width=24))) <= 24


def test_times_as_go_writes_them() -> None:
    read = read_time("2026-11-03T10:00:00.123456789Z")
    assert read is not None and read.isoformat() == "2026-11-03T10:00:00.123456+00:00"
    assert read_time("123") is None


@pytest.mark.parametrize(
    ("flag", "environ", "url", "origin"),
    [
        (None, {}, "http://127.0.0.1:11434", None),
        (None, {"PORTICO_HOST": "", "OLLAMA_HOST": "0.0.0.0"}, "http://127.0.0.1:11434", "OLLAMA_HOST"),
        (None, {"PORTICO_HOST": ":8080", "OLLAMA_HOST": "x"}, "http://127.0.0.1:8080", "PORTICO_HOST"),
        ("https://ai.example.com/api/", {"OLLAMA_HOST": "x"}, "https://ai.example.com:443/api", "--host"),
        ("http://box", {}, "http://box:80", "--host"),
        ("[::1]:99", {}, "http://[::1]:99", "--host"),
    ],
)
def test_where_the_server_is(
    flag: str | None,
    environ: dict[str, str],
    url: str,
    origin: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    address = find(flag, environ | {"HOME": str(tmp_path)})
    assert (address.url, address.origin) == (url, origin)


def test_where_a_server_that_is_started_here_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "portico.toml"
    file.write_text('host = "0.0.0.0"\nport = 8080\napi_keys = ["k"]\n')
    home = {"HOME": str(tmp_path)}
    assert find(None, home) == ("http://127.0.0.1:8080", str(file), "k")
    assert find(None, home | {"PORTICO_API_KEY": "mine"}).key == "mine"
    assert find(None, home | {"PORTICO_PORT": "81"}).url == "http://127.0.0.1:81"
    # The key is for the server of this folder: another one must not get it.
    assert find("http://box:8080", home).key is None
    file.write_text('api_key_file = "gone"\n')
    assert find(None, home) == ("http://127.0.0.1:11434", None, None)


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ({}, "ours"),
        ({"PORTICO_HOST": "https://box.example.com"}, "ours"),
        ({"OLLAMA_HOST": "https://ollama.example.com"}, "theirs"),
        ({"OLLAMA_HOST": "0.0.0.0"}, "ours"),
        ({"OLLAMA_HOST": "localhost:8080"}, "ours"),
    ],
)
def test_a_key_goes_only_to_the_server_of_its_own_variable(
    where: dict[str, str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = {"HOME": str(tmp_path), "PORTICO_API_KEY": "ours", "OLLAMA_API_KEY": "theirs"}
    assert find(None, keys | where).key == key
    assert find("https://box.example.com", keys).key == "ours"
    del keys["PORTICO_API_KEY"]
    assert find("https://box.example.com", keys).key is None
    if "OLLAMA_HOST" in where:
        del keys["OLLAMA_API_KEY"]
        assert find(None, keys | where).key is None


@pytest.mark.parametrize(
    ("host", "near", "here"),
    [
        ("127.0.0.1", True, True),
        ("localhost", True, True),
        ("192.168.1.7", True, False),
        ("gpu-box", True, False),
        ("gpu.local", True, False),
        ("8.8.8.8", False, False),
        ("ai.example.com", False, False),
    ],
)
def test_which_hosts_are_near(host: str, near: bool, here: bool) -> None:
    address = find(host, {})
    assert (address.near, address.here) == (near, here)


def test_a_wrong_address_is_wrong_usage() -> None:
    with pytest.raises(Failure) as caught:
        find(None, {"PORTICO_HOST": "ftp://x"})
    assert caught.value.exit_code == 2
    assert "PORTICO_HOST" in caught.value.message


def test_the_first_of_several_keys_is_sent_and_a_proxy_is_never_asked_for_this_machine(
    tmp_path: Path,
) -> None:
    with serving(Ollama()) as ollama:
        env = environment(tmp_path, PORTICO_HOST=ollama.url, PORTICO_API_KEY="one, two")
        done = run("ls", env=env | {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"})
    assert done.returncode == 0, done.stderr
    assert set(ollama.keys) == {"Bearer one"}


def test_why_an_engine_did_not_start_is_a_line_of_its_own() -> None:
    told = EngineStartFailed(
        model="m:8b", reason="memory is short. Try less.", exit_code=1, log_tail="first | last of it"
    )
    first, *rest = as_lines(explained(told))
    assert first.endswith(" m:8b did not start (exit code 1): memory is short. Try less.")
    assert rest == ["  said     last of it", "  try      portico logs m:8b"]
    (only,) = as_lines(explained(EngineStartFailed(model="m", reason="vLLM is not installed.")))
    assert only.endswith(" m did not start: vLLM is not installed.")
