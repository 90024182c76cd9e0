"""What clients are told by their variables: conclusions with plain values, and keys over real sockets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from doctor_fixtures import Place, doctor, line, ollama, refused_port, serving, vllm
from portico.cli.checks import Check, clients
from portico.cli.checks.asking import Silence
from portico.cli.checks.keys import Key, key_of, without_secrets
from portico.cli.checks.who import PORTICO, VLLM, Seen

NOBODY = Seen("http://127.0.0.1:11434", silence=Silence("refused"))
URL = "http://127.0.0.1:8000"


def concluded(environ: Mapping[str, str], seen: Seen, server: Seen = NOBODY) -> dict[str, Check]:
    (asked,) = clients.clients(environ, server=None)
    return {check.name: check for check in clients.client(asked, seen, server=server)}


def there(*names: str, kind: str = VLLM, has: tuple[str, ...] = (), **more: object) -> Seen:
    return Seen(URL, kind, "1.0", names=names, has=frozenset(has), **more)  # type: ignore[arg-type]


def test_refused_says_what_to_start_or_where_to_point() -> None:
    gone = Seen(URL, silence=Silence("refused"))
    found = concluded({"VLLM_ENDPOINT": f"{URL}/v1"}, gone)["VLLM_ENDPOINT"]
    assert (found.state, found.do) == ("fail", "portico serve --port 8000")
    assert found.found == "nothing listens at http://127.0.0.1:8000/v1 (connection refused)"
    own = Seen("http://127.0.0.1:11434", PORTICO, "1.0", names=("a",))
    assert concluded({"VLLM_ENDPOINT": f"{URL}/v1"}, gone, own)["VLLM_ENDPOINT"].do == (
        "export VLLM_ENDPOINT=http://127.0.0.1:11434/v1"
    )
    far = concluded({"VLLM_BASE_URL": "http://gpu:8000"}, Seen("http://gpu:8000", silence=Silence("refused")))
    assert "--host 0.0.0.0" in far["VLLM_BASE_URL"].do


@pytest.mark.parametrize(
    ("why", "do"),
    [
        ("slow", "longer timeout"),
        ("unreachable", "sudo ufw allow 8000/tcp"),
        ("tls", "export VLLM_BASE_URL=http:"),
    ],
)
def test_other_silences(why: str, do: str) -> None:
    seen = Seen(URL, silence=Silence(why, 2.0))  # type: ignore[arg-type]
    assert do in concluded({"VLLM_BASE_URL": URL}, seen)["VLLM_BASE_URL"].do


@pytest.mark.parametrize(
    ("variable", "value", "state", "do"),
    [
        ("VLLM_BASE_URL", URL, "ok", ""),
        ("VLLM_BASE_URL", f"{URL}/v1", "warn", f"export VLLM_BASE_URL={URL}"),
        ("VLLM_ENDPOINT", f"{URL}/v1/", "ok", ""),
        ("VLLM_ENDPOINT", URL, "warn", f"export VLLM_ENDPOINT={URL}/v1"),
        ("OPENAI_BASE_URL", f"{URL}/v1", "ok", ""),
        ("OPENAI_BASE_URL", f"{URL}/", "warn", f"export OPENAI_BASE_URL={URL}/v1"),
    ],
)
def test_with_or_without_v1(variable: str, value: str, state: str, do: str) -> None:
    found = concluded({variable: value}, there("a"))[variable]
    assert (found.state, found.do) == (state, do)


def test_a_server_of_another_kind() -> None:
    found = concluded({"OPENAI_BASE_URL": f"{URL}/v1"}, Seen(URL, status=404))["OPENAI_BASE_URL"]
    assert found.state == "fail"
    assert "not as OpenAI's API does: its /v1/models is no list of models (status 404)" in found.found


def test_a_model_that_is_there_and_one_that_is_not() -> None:
    environ = {"VLLM_ENDPOINT": f"{URL}/v1", "VLLM_MODEL_NAME": "glm-4.7-flsh"}
    gone = concluded(environ, there("qwen", "glm-4.7-flash"))["VLLM_MODEL_NAME"]
    assert gone.state == "fail" and gone.do == "export VLLM_MODEL_NAME=glm-4.7-flash"
    assert gone.found == f"model 'glm-4.7-flsh' not found at {URL}: it has qwen, glm-4.7-flash"
    default = concluded(environ | {"VLLM_MODEL_NAME": "default"}, there("qwen"))["VLLM_MODEL_NAME"]
    assert default.do == "export VLLM_MODEL_NAME=qwen"
    assert concluded(environ, there("qwen", has=("glm-4.7-flsh",)))["VLLM_MODEL_NAME"].state == "ok"
    silent = Seen(URL, silence=Silence("refused"))
    assert concluded(environ, silent)["VLLM_MODEL_NAME"].state == "skip"


def test_which_model_belongs_where() -> None:
    both = {
        "VLLM_BASE_URL": "http://a",
        "VLLM_ENDPOINT": "http://b/v1",
        "VLLM_MODEL": "m",
        "VLLM_MODEL_NAME": "n",
    }
    found = {each.variable: each.models for each in clients.clients(both, server=None)}
    assert found == {"VLLM_BASE_URL": {"VLLM_MODEL": "m"}, "VLLM_ENDPOINT": {"VLLM_MODEL_NAME": "n"}}
    one = {"VLLM_BASE_URL": "http://a", "VLLM_MODEL_NAME": "n"}
    assert clients.clients(one, server=None)[0].models == {"VLLM_MODEL_NAME": "n"}
    assert clients.clients({"OLLAMA_HOST": "http://a"}, server="OLLAMA_HOST") == []
    assert clients.clients({"OLLAMA_HOST": "  ", "OPENAI_BASE_URL": '""'}, server=None) == []


def test_nothing_is_set() -> None:
    (found,) = clients.unset({}, NOBODY)
    assert (found.name, found.state, found.do) == (
        "base URL", "skip", "export OPENAI_BASE_URL=http://127.0.0.1:11434/v1",
    )  # fmt: skip
    model = clients.unset({"VLLM_MODEL": "m"}, NOBODY)[1]
    assert model.state == "warn" and "its clients ask http://localhost:8000" in model.found
    (debug,) = clients.unset({"OPENAI_BASE_URL": "x", "VLLM_DEBUG": "1"}, NOBODY)
    assert debug.found == "is set: vLLM has no such variable" and "VLLM_LOGGING_LEVEL=DEBUG" in debug.do


def test_the_addresses_of_ollama_are_ollamas() -> None:
    asked = clients.Client("OLLAMA_HOST", "0.0.0.0", Key("OLLAMA_API_KEY"), {})
    assert asked.url == "http://127.0.0.1:11434"
    assert not asked._replace(value="http://x:no").well_formed
    assert not clients.Client("OPENAI_BASE_URL", "127.0.0.1:8000/v1", Key(""), {}).well_formed


# ---- keys


def test_a_key_is_that_of_its_address() -> None:
    environ = {"PORTICO_API_KEY": " first , second", "VLLM_API_KEY": '"quoted"', "OPENAI_API_KEY": ""}
    assert key_of("PORTICO_HOST", environ).value == "first"
    assert key_of("VLLM_ENDPOINT", environ).value == key_of("VLLM_BASE_URL", environ).value == "quoted"
    assert key_of("OPENAI_BASE_URL", environ) == Key("OPENAI_API_KEY", None)


def test_no_line_holds_a_key() -> None:
    environ = {"OPENAI_API_KEY": "sk-1234567890", "PORTICO_API_KEY": "aaaaaaaa,bbbbbbbb", "HF_TOKEN": "none"}
    said = Check("g", "n", "warn", "Incorrect key sk-1234567890 of none, bbbbbbbb", "export X=aaaaaaaa")
    (clean,) = without_secrets([said], environ)
    assert clean == Check("g", "n", "warn", "Incorrect key *** of none, ***", "export X=***")


def test_every_server_gets_its_own_key_and_no_other(tmp_path: Path) -> None:
    keys = {
        "PORTICO_API_KEY": "key-of-portico",
        "OLLAMA_API_KEY": "key-of-ollama",
        "VLLM_API_KEY": "key-of-vllm",
        "OPENAI_API_KEY": "key-of-openai",
        "HF_TOKEN": "key-of-the-hub",
    }
    with ExitStack() as running:
        places = [Place({}), ollama(), vllm(), vllm(), vllm(), Place({})]
        own, ollamas, a, b, c, hub = (running.enter_context(serving(place)) for place in places)
        _, _, written = doctor(
            home=tmp_path,
            PORTICO_HOST=own.url,
            OLLAMA_HOST=ollamas.url,
            VLLM_BASE_URL=a.url,
            VLLM_ENDPOINT=f"{b.url}/v1",
            OPENAI_BASE_URL=f"{c.url}/v1",
            HF_ENDPOINT=hub.url,
            HF_HUB_OFFLINE="",
            **keys,
        )
    assert own.keys() == {"Bearer key-of-portico"}
    assert ollamas.keys() == {"Bearer key-of-ollama"}
    assert a.keys() == b.keys() == {"Bearer key-of-vllm"}
    assert c.keys() == {"Bearer key-of-openai"}
    assert hub.keys() == {"Bearer key-of-the-hub"}
    assert not [key for key in keys.values() if key in written]


def test_a_key_that_a_server_repeats_is_not_repeated(tmp_path: Path) -> None:
    place = vllm()
    place.key = "the-right-key"
    with serving(place):
        checks, code, written = doctor(
            home=tmp_path, OPENAI_BASE_URL=f"{place.url}/v1", OPENAI_API_KEY="the-wrong-key"
        )
    found = line(checks, "OPENAI_BASE_URL")
    assert code == 1 and found["state"] == "fail"
    assert found["found"].endswith("does not know the key in OPENAI_API_KEY")
    assert "the-wrong-key" not in written and place.keys() == {"Bearer the-wrong-key"}


def test_a_key_in_the_wrong_variable_is_not_shown(tmp_path: Path) -> None:
    checks, code, written = doctor(home=tmp_path, OPENAI_BASE_URL="sk-proj-1234567890")
    found = line(checks, "OPENAI_BASE_URL")
    assert (found["state"], found["found"]) == ("fail", "is set, and not to the URL of a server")
    assert code == 1 and "sk-proj" not in written
    url = f"http://me:geheim-geheim@127.0.0.1:{refused_port()}/v1?token=abcdefgh"
    assert "geheim" not in (said := doctor(home=tmp_path, OPENAI_BASE_URL=url)[2]) and "abcdefgh" not in said
