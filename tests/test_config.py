"""Settings: which place wins, what a wrong one says, and that the example file shows them all."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from portico.config import Config, ModelEntry
from portico.config_file import callers_keys, data_home, load, places, sources
from portico.errors import ConfigError
from portico.ollama_env import read_address

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "portico.example.toml"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: nothing there, and no repository around it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def env(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), **variables}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ---- which place wins


def test_each_place_is_stronger_than_the_next(tmp_path: Path, empty_folder: Path) -> None:
    write(
        tmp_path / "home/.config/portico/config.toml", "max_queue = 1\nport = 1\nparallel = 1\ncontext = 1\n"
    )
    write(empty_folder / "portico.toml", "max_queue = 2\nport = 2\nparallel = 2\n")
    environ = env(tmp_path, OLLAMA_MAX_QUEUE="3", OLLAMA_HOST=":3", PORTICO_MAX_QUEUE="4")

    config = load(None, environ, {"max_queue": 5, "port": None})

    assert (config.max_queue, config.port, config.parallel, config.context) == (5, 3, 2, 1)
    assert load(None, environ, {}).max_queue == 4
    del environ["PORTICO_MAX_QUEUE"]
    assert load(None, environ, {}).max_queue == 3


def test_the_nearest_file_is_looked_for_up_to_the_repositorys_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "portico.toml", "port = 1")  # outside the repository
    write(tmp_path / "repo/portico.toml", "port = 2")
    (tmp_path / "repo/.git").mkdir()
    (tmp_path / "repo/a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo/a/b")
    assert load(None, env(tmp_path), {}).port == 2
    write(tmp_path / "repo/a/portico.toml", "max_queue = 3")
    assert load(None, env(tmp_path), {}) == Config(max_queue=3)  # the nearest one, not both
    (tmp_path / "repo/a/portico.toml").unlink()
    (tmp_path / "repo/portico.toml").unlink()
    assert load(None, env(tmp_path), {}) == Config()


def test_outside_a_repository_only_the_working_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "portico.toml", "port = 1")
    monkeypatch.chdir(tmp_path / "here")
    assert load(None, env(tmp_path), {}) == Config()


def test_a_named_file_stands_alone(tmp_path: Path, empty_folder: Path) -> None:
    write(empty_folder / "portico.toml", "max_queue = 2")
    named = write(tmp_path / "other.toml", "port = 9")
    assert load(named, env(tmp_path), {}) == Config(port=9)
    assert sources(named, env(tmp_path)) == (named,)
    with pytest.raises(ConfigError, match=r"missing\.toml: there is no such file"):
        load(tmp_path / "missing.toml", env(tmp_path), {})


def test_an_empty_variable_is_an_unset_one(tmp_path: Path) -> None:
    environ = env(tmp_path, PORTICO_PORT="", OLLAMA_HOST=" ", OLLAMA_KEEP_ALIVE='""', PORTICO_API_KEY="")
    assert load(None, environ, {}) == Config()


# ---- what the variables mean


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("0.0.0.0", "0.0.0.0", 11434),
        ("0.0.0.0:8080", "0.0.0.0", 8080),
        (":8080", "0.0.0.0", 8080),
        ("example.org", "example.org", 11434),
        ("http://example.org", "example.org", 80),
        ("https://example.org", "example.org", 443),
        ("https://example.org:1234/path", "example.org", 1234),
        ("::1", "::1", 11434),
        ("[::1]:99", "::1", 99),
        ("' 127.0.0.1:5 '", "127.0.0.1", 5),
        ("127.0.0.1:0", "127.0.0.1", 0),
    ],
)
@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "PORTICO_HOST"])
def test_a_host_is_read_as_ollama_reads_it(
    tmp_path: Path, variable: str, value: str, host: str, port: int
) -> None:
    config = load(None, env(tmp_path, **{variable: value}), {})
    assert (config.host, config.port) == (host, port)


def test_an_address_gives_the_url_a_client_uses() -> None:
    assert read_address("0.0.0.0:8080").url == "http://127.0.0.1:8080"
    assert read_address("[::]:8080").url == "http://[::1]:8080"
    assert read_address("https://example.org/prefix/").url == "https://example.org:443/prefix"
    with pytest.raises(ValueError, match="port"):
        read_address("localhost:99999")
    with pytest.raises(ValueError, match="http URL"):
        read_address("ftp://localhost")


def test_portico_host_leaves_the_port_to_others(tmp_path: Path) -> None:
    environ = env(tmp_path, PORTICO_HOST="0.0.0.0", PORTICO_PORT="7", OLLAMA_HOST="1.2.3.4:8")
    config = load(None, environ, {})
    assert (config.host, config.port) == ("0.0.0.0", 7)
    assert load(None, environ | {"PORTICO_HOST": "h:9"}, {}).port == 7  # the more exact variable wins


def test_ollamas_variables(tmp_path: Path) -> None:
    config = load(
        None,
        env(
            tmp_path,
            OLLAMA_ORIGINS="https://a.example, https://*.b.example",
            OLLAMA_KEEP_ALIVE="'24h'",
            OLLAMA_CONTEXT_LENGTH="4096",
            OLLAMA_MAX_LOADED_MODELS="2",
            OLLAMA_MAX_QUEUE="7",
            OLLAMA_NUM_PARALLEL="3",
            OLLAMA_LOAD_TIMEOUT="1m30s",
            OLLAMA_MODELS="/models",
            OLLAMA_NOPRUNE="1",
            OLLAMA_DEBUG="1",
            OLLAMA_DEBUG_LOG_REQUESTS="true",
            OLLAMA_FLASH_ATTENTION="1",  # known to Ollama, without effect here
        ),
        {},
    )
    assert config == Config(
        origins=("https://a.example", "https://*.b.example"),
        keep_alive="24h",
        context=4096,
        max_loaded_models=2,
        max_queue=7,
        parallel=3,
        load_timeout=90.0,
        ollama_models=Path("/models"),
        prune=False,
        log_level="debug",
        log_prompts=True,
    )


def test_what_means_automatic_in_ollama_sets_nothing(tmp_path: Path) -> None:
    zeros = env(tmp_path, OLLAMA_CONTEXT_LENGTH="0", OLLAMA_NUM_PARALLEL="0", OLLAMA_DEBUG="false")
    assert load(None, zeros, {}) == Config()
    assert load(None, env(tmp_path, OLLAMA_LOAD_TIMEOUT="-1s"), {}).load_timeout == float("inf")
    assert load(None, env(tmp_path, OLLAMA_KEEP_ALIVE="-1"), {}).keep_alive == -1.0


def test_porticos_variables(tmp_path: Path) -> None:
    config = load(
        None,
        env(
            tmp_path,
            PORTICO_API_KEY="one, two",
            PORTICO_ALIASES="gpt-4o-mini=portico-tiny, a=b:c",
            PORTICO_LOG_PROMPTS="true",
            PORTICO_SHUTDOWN_TIMEOUT="2.5",
            PORTICO_CONTEXT="512",
            PORTICO_KEEP_ALIVE="30",
            PORTICO_CHAT_FALLBACK="prompt",
            PORTICO_HOME="~/portico-home",
        ),
        {},
    )
    assert config == Config(
        api_keys=("one", "two"),
        aliases={"gpt-4o-mini": "portico-tiny", "a": "b:c"},
        log_prompts=True,
        shutdown_timeout=2.5,
        context=512,
        keep_alive=30.0,
        chat_fallback="prompt",
        home=Path("~/portico-home").expanduser(),
    )


def test_models_and_paths_of_a_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "conf/p.toml",
        'api_key_file = "keys"\n[[model]]\nname = "a"\nchat_template = "t.jinja"\nkeep_alive = 5\n'
        '[[model]]\nname = "b"\nserved_names = ["x", "y"]\n',
    )
    config = load(file, env(tmp_path), {})
    assert config.api_key_file == tmp_path / "conf/keys"  # beside the file that names it
    assert config.models == (
        ModelEntry(name="a", chat_template=tmp_path / "conf/t.jinja", keep_alive=5),
        ModelEntry(name="b", served_names=("x", "y")),
    )


# ---- what a wrong one says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("contxt = 1", r"p\.toml: unknown key 'contxt'\. Nearest: context"),
        ("models = []", r"unknown key 'models'\. Nearest: model"),
        ('port = "many"', r"p\.toml:port: expected int, got str"),
        ("api_keys = [1]", r"p\.toml:api_keys: expected str, got int"),
        ('log_format = "xml"', r"p\.toml:log_format: Invalid enum value 'xml'"),
        ('[[model]]\nname = "a"\ncontxt = 1', r"p\.toml:model\[0\]: unknown key 'contxt'\. Nearest: context"),
        ('[[model]]\nname = "a"\ncontext = "x"', r"p\.toml:model\[0\]\.context: expected int, got str"),
        ("[[model]]\ncontext = 1", r"p\.toml:model\[0\]: `name` is missing"),
        ("model = 3", r"p\.toml:model: expected \[\[model\]\] tables"),
        ("home = 3", r"p\.toml:home: expected"),
        ("keep_alive = true", r"p\.toml:keep_alive: expected .*got bool"),
        ('keep_alive = "5 minutes"', r"p\.toml:keep_alive: expected seconds or a duration such as 5m"),
        ('[[model]]\nname = "a"\nkeep_alive = "x"', r"model\[0\]\.keep_alive: expected seconds or a"),
        ("port = 1\nport = 2\n", r"p\.toml: is not TOML: .*line 2"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(write(tmp_path / "p.toml", text), env(tmp_path), {})
    assert caught.value.code == "config"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORTICO_PORT", "many"),
        ("PORTICO_HOST", "h:many"),
        ("PORTICO_LOG_PROMPTS", "perhaps"),
        ("PORTICO_ALIASES", "gpt-4o"),
        ("PORTICO_SHUTDOWN_TIMEOUT", "nan"),
        ("OLLAMA_HOST", "ftp://h"),
        ("OLLAMA_MAX_QUEUE", "-1"),
        ("OLLAMA_LOAD_TIMEOUT", "5 minutes"),
        ("OLLAMA_KEEP_ALIVE", "soon"),
        ("PORTICO_KEEP_ALIVE", "soon"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        load(None, env(tmp_path, **{variable: value}), {})


def test_a_wrong_flag_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--max-queue: expected int, got str"):
        load(None, env(tmp_path), {"max_queue": "x"})


# ---- keys


def test_keys_are_never_printed() -> None:
    entry = ModelEntry(name="far", api_key="sesame-1", proxy="http://me:sesame-4@h:1")
    proxy = "http://me:sesame-5@h:1"
    config = Config(
        api_keys=("sesame-2",), engine_api_key="sesame-3", engine_proxy=proxy, models=(entry,), port=5
    )
    assert "sesame" not in repr(config) + str(config) + f"{config}" + repr(entry)
    assert "port=5" in repr(config) and "api_keys=***" in repr(config)


def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path / "p.toml", 'api_keys = "sesame"'), env(tmp_path), {})
    assert "sesame" not in str(caught.value)


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "keys", "# ours\none\n\n  two  \none\n")
    assert callers_keys(Config(api_keys=("zero", "two"), api_key_file=file)) == ("zero", "two", "one")
    assert callers_keys(Config()) == ()


@pytest.mark.parametrize("text", [None, "# nothing but this\n"])
def test_a_key_file_without_keys_lets_nobody_in(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "keys" if text is None else write(tmp_path / "keys", text)
    with pytest.raises(ConfigError, match="keys: "):
        callers_keys(Config(api_key_file=file))


# ---- the data folder


def test_the_data_folder(tmp_path: Path) -> None:
    assert data_home(Config(), {"HOME": "/h"}) == Path("/h/.local/share/portico")
    assert data_home(Config(), {"HOME": "/h", "XDG_DATA_HOME": "/x"}) == Path("/x/portico")
    assert data_home(Config(), {"HOME": "/h", "XDG_DATA_HOME": "/x", "PORTICO_HOME": "/p"}) == Path("/p")
    assert data_home(Config(home=Path("/c")), {"PORTICO_HOME": "/p"}) == Path("/c")


def test_places_are_those_of_the_server(tmp_path: Path, empty_folder: Path) -> None:
    variables = env(tmp_path)
    assert places(variables) == Config()
    write(tmp_path / "home/.config/portico/config.toml", 'home = "far"\nollama_models = "theirs"\n')
    write(empty_folder / "portico.toml", 'home = "near"\nmax_queue = 3\n')
    for more in (
        {},
        {"PORTICO_HOME": "/v"},
        {"OLLAMA_MODELS": "/o"},
        {"OLLAMA_MODELS": "/o", "PORTICO_OLLAMA_MODELS": "'/p'"},
        {"PORTICO_HOME": "  "},
    ):
        there, here = load(None, variables | more, {}), places(variables | more)
        assert here == Config(home=there.home, ollama_models=there.ollama_models)
    assert places(variables).home == empty_folder / "near"


def test_a_setting_of_a_server_that_is_wrong_does_not_matter_to_a_client(
    tmp_path: Path, empty_folder: Path
) -> None:
    write(empty_folder / "portico.toml", 'home = "kept"\nport = "x"\n')
    wrong = env(tmp_path, PORTICO_MAX_QUEUE="x", OLLAMA_KEEP_ALIVE="x")
    assert places(wrong).home == empty_folder / "kept"
    with pytest.raises(ConfigError):
        load(None, wrong, {})


# ---- the example file


def uncommented() -> str:
    """The example with its settings that have no default switched on."""
    return re.sub(r"^# (?=\w[\w-]* = |\[\[)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_example_holds_the_defaults(tmp_path: Path) -> None:
    assert load(EXAMPLE, env(tmp_path), {}) == Config()


def test_the_example_shows_every_setting(tmp_path: Path) -> None:
    table = tomllib.loads(uncommented())
    names = {field.name for field in msgspec.structs.fields(Config)}
    assert {"models" if key == "model" else key for key in table} == names
    assert set(table["model"][0]) == {field.name for field in msgspec.structs.fields(ModelEntry)}
    everything = write(tmp_path / "all.toml", uncommented())
    assert load(everything, env(tmp_path), {}) != Config()  # and every example value is a good one


def test_the_example_says_what_the_code_says() -> None:
    """A setting's meaning stands beside its field; where the example says it too, it says the same."""
    said = re.findall(r"^    (\w+): .*?  # (.+)$", (ROOT / "src/portico/config.py").read_text(), re.MULTILINE)
    shown = EXAMPLE.read_text(encoding="utf-8")
    named_elsewhere = {"name", "models", "log_format", "log_level"}
    missing = [meaning for name, meaning in said if name not in named_elsewhere and meaning not in shown]
    assert not missing
    assert len(said) > 40
