"""Who listens at an address: real servers, and things that are none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from cli_fixtures import Ollama
from cli_fixtures import serving as serving_ollama
from doctor_fixtures import HANG, Place, listed, ollama, refused_port, serving, vllm
from live_server import LiveServer
from portico.cli.checks import ports
from portico.cli.checks.asked import Asked, Broken, Late
from portico.cli.checks.asking import LARGEST, Answer, Asker, Silence, shown
from portico.cli.checks.keys import NONE, Key
from portico.cli.checks.who import LLAMACPP, OLLAMA, OPENAI, PORTICO, VLLM, Seen, look
from scripted_upstream import CLOSE, RESET, ScriptedUpstream


@contextmanager
def saying(content: bytes) -> Iterator[int]:
    """A port whose holder says these bytes to whoever connects, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(content)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def why(url: str, *, seconds: float = 2.0, key: str | None = None) -> Silence:
    seen = look(url, key, seconds=seconds)
    assert seen.silence is not None and not seen.kind and seen.names is None
    return seen.silence


# ---- silence, and why


def test_refused() -> None:
    url = f"http://127.0.0.1:{refused_port()}"
    assert why(url).why == "refused"
    assert why(url).found(url) == f"nothing listens at {url} (connection refused)"
    assert why(f"http://localhost:{refused_port()}").why == "refused"  # ::1 and 127.0.0.1, both


def test_a_server_that_hangs() -> None:
    with serving(Place({"/v1/models": lambda body: HANG})) as place:
        began = time.monotonic()
        silence = why(place.url, seconds=0.3)
        assert time.monotonic() - began < 1.5
    assert silence.found("URL") == "no answer from URL within 0.3 s, though something listens there"


def test_a_server_that_sends_a_byte_now_and_then() -> None:
    """Each of them comes in time; all of them together do not."""
    drops = [0.05 if place % 2 else b" " for place in range(400)]
    with ScriptedUpstream() as upstream:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
        upstream.script("/v1/models", (head, *drops))
        began = time.monotonic()
        assert why(upstream.url, seconds=0.4).why == "slow"
        assert time.monotonic() - began < 1.5


def test_a_machine_that_takes_no_connection() -> None:
    """As behind a firewall that drops: the queue of a listener that accepts nobody is full."""
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            queued = waiting.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        silence = why(url, seconds=0.3)
    assert silence.found(url) == f"no connection to {url} within 0.3 s: a firewall, or the machine is off"


def test_a_name_nobody_knows() -> None:
    assert why("http://no-such-machine.invalid:8000").why == "unknown"


def test_no_http_and_no_answer() -> None:
    with saying(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        assert why(f"http://127.0.0.1:{port}").why in ("no_http", "closed")
        assert why(f"https://127.0.0.1:{port}").why == "tls"
    with saying(b"") as port:
        assert why(f"http://127.0.0.1:{port}").why == "closed"


@pytest.mark.parametrize("step", [RESET, CLOSE])
def test_a_connection_that_breaks(step: str) -> None:
    with ScriptedUpstream() as upstream:
        upstream.script("/v1/models", (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{", step))  # type: ignore[arg-type]
        assert why(upstream.url).why in ("closed", "no_http")


@pytest.mark.parametrize("url", ["sk-1234567890", "http://", "http://[::1", "ftp://x", "http://a b/", ""])
def test_what_is_no_url(url: str) -> None:
    assert why(url).why in ("no_url", "unknown", "unreachable", "refused")


def test_a_key_that_no_header_can_carry() -> None:
    with serving(vllm()) as place:
        assert why(place.url, key="ключ").why == "no_key"
        assert why(place.url, key="a\nb: c").why == "no_key"
        assert place.asked == []


def test_an_endless_answer_is_cut() -> None:
    with (
        serving(Place({"/v1/models": b"x" * (LARGEST * 3)})) as place,
        Asker(place.url, None, seconds=5) as asker,
    ):
        answer = asker.get("/v1/models")
        assert isinstance(answer, Answer) and len(answer.body) < LARGEST * 2


# ---- who it is


def test_a_portico(server: LiveServer) -> None:
    seen = look(server.openai_url, None, names=("default", "PORTICO-tiny:latest", "nothing"))
    assert (seen.kind, seen.names, seen.url) == (PORTICO, ("portico-tiny",), server.url)
    assert seen.has == {"default", "PORTICO-tiny:latest"} and not seen.locked and seen.version
    (model,) = seen.models
    assert (model.name, model.state) == ("portico-tiny:latest", "ready") and model.context


def test_a_vllm() -> None:
    with serving(vllm("org/qwen")) as place:
        seen = look(place.url + "/v1/", None, names=("org/qwen", "default"))
    assert (seen.called, seen.names, seen.has) == ("vLLM 0.32.0", ("org/qwen",), {"org/qwen"})
    assert [(model.name, model.context) for model in seen.models] == [("org/qwen", 4096)]


def test_an_adapter_of_a_vllm_is_listed_and_not_asked() -> None:
    models = listed("base", max_model_len=4096)
    models["data"] += listed("adapter", parent="base")["data"]
    with serving(vllm(**{"/v1/models": models})) as place:
        seen = look(place.url, None)
    assert seen.names == ("base", "adapter") and [model.name for model in seen.models] == ["base"]


def test_a_vllm_that_wants_a_key() -> None:
    place = vllm()
    place.key = "secret-key-1"
    with serving(place):
        assert look(place.url, None).locked and look(place.url, None).called == "vLLM 0.32.0"
        assert look(place.url, "wrong").locked
        assert look(place.url, "secret-key-1").names == ("qwen",)


def test_an_ollama() -> None:
    with serving_ollama(Ollama()) as there:
        seen = look(there.url, None, names=("TOY", "other", "default"))
    assert (seen.called, seen.has) == ("Ollama 0.33.0", {"TOY"})
    assert [(model.name, model.context) for model in seen.models] == [("toy:latest", 8192)]


def test_a_llamacpp_that_has_not_loaded_everything() -> None:
    models = listed("here", owned_by="llamacpp", status={"value": "loaded"})
    models["data"] += listed("asleep", owned_by="llamacpp", status={"value": "unloaded"})["data"]
    with serving(Place({"/v1/models": models}, server="llama.cpp")) as place:
        seen = look(place.url, None)
    assert seen.kind == LLAMACPP and [model.name for model in seen.models] == ["here"]


def test_a_server_that_does_not_tell_what_is_loaded() -> None:
    with serving(Place({"/v1/models": listed("a", "b", owned_by="organization")})) as place:
        seen = look(place.url, None)
    assert (seen.kind, seen.names, seen.models) == (OPENAI, ("a", "b"), ())


@pytest.mark.parametrize("said", [b"<html>hello</html>", {"data": 1}, [], (404, {}), (500, b"oops")])
def test_something_else(said: object) -> None:
    with serving(Place({"/v1/models": said})) as place:
        seen = look(place.url, None)
    assert (seen.kind, seen.names, seen.silence) == ("", None, None)


def test_a_key_does_not_follow_a_redirect() -> None:
    with serving(Place({})) as other, serving(Place({})) as place:
        place.routes["/v1/models"] = 307, {"to": f"{other.url}/v1/models"}
        seen = look(place.url, "secret-key-1")
        assert seen.names is None and seen.status == 307
        assert other.asked == []


def test_looking_loads_nothing() -> None:
    with serving(ollama()) as place:
        look(place.url, None, names=("toy",))
        assert {method for method, _, _ in place.asked} == {"GET"}


# ---- what is concluded of an address


def at(kind: str, **more: object) -> Seen:
    return Seen("http://127.0.0.1:11434", kind, "1.0", names=("a", "b"), **more)  # type: ignore[arg-type]


def said(
    seen: Seen, *, origin: str | None = None, here: bool = True, key: Key = NONE, **more: object
) -> tuple[str, ...]:
    check = ports.address(seen, origin=origin, here=here, key=key, **more)  # type: ignore[arg-type]
    return check.state, check.found, check.do


def test_the_address_of_the_commands() -> None:
    nobody = Seen("http://127.0.0.1:11434", silence=Silence("refused"))
    assert said(nobody) == (
        "skip",
        "nothing listens at http://127.0.0.1:11434 (connection refused); the port is free (the default)",
        "portico serve",
    )
    state, found, do = said(nobody, closed="Address already in use")
    assert (
        state == "fail"
        and "is not free: Address already in use" in found
        and do == "portico serve --port 11435"
    )
    assert said(at(PORTICO))[0] == "ok"
    assert said(at(PORTICO))[1].startswith("Portico 1.0 at http://127.0.0.1:11434, 2 models, 0 loaded")


def test_an_address_that_a_variable_names() -> None:
    gone = Seen("http://gpu:11434", silence=Silence("refused"))
    state, found, do = said(gone, origin="PORTICO_HOST", here=False)
    assert state == "fail" and "from PORTICO_HOST" in found
    assert "portico serve --host 0.0.0.0" in do and "unset PORTICO_HOST" in do
    slow = Seen("http://gpu:11434", silence=Silence("slow", 2.0))
    assert said(slow, origin="PORTICO_HOST", here=False)[2] == "unset PORTICO_HOST"


def test_an_ollama_has_the_port() -> None:
    state, found, do = said(at(OLLAMA))
    assert state == "warn" and "it has Portico's port" in found and "systemctl stop ollama" in do
    assert said(at(OLLAMA), origin="OLLAMA_HOST")[0] == "ok"


def test_a_vllm_at_the_address() -> None:
    state, found, do = said(at(VLLM))
    assert state == "warn" and "has no Ollama API" in found
    assert do == "portico serve --engine http://127.0.0.1:11434/v1 --port 11435"


def test_a_stranger_has_the_port() -> None:
    stranger = Seen("http://127.0.0.1:11434", status=404)
    state, found, do = said(stranger, who=ports.Holder(812, "nginx"))
    assert state == "fail" and "another program (nginx, pid 812) listens at" in found
    assert do == "portico serve --port 11435"


def test_a_key_is_named_and_not_shown() -> None:
    locked = Seen("http://127.0.0.1:11434", PORTICO, locked=True, status=401)
    state, found, do = said(locked, key=Key("PORTICO_API_KEY"))
    assert state == "fail" and "wants a key, and PORTICO_API_KEY is not set" in found
    assert do == "export PORTICO_API_KEY=KEY"
    assert (
        "does not know the key in PORTICO_API_KEY"
        in said(locked, key=Key("PORTICO_API_KEY", "hunter2hunter2"))[1]
    )
    assert "hunter2" not in repr(Key("PORTICO_API_KEY", "hunter2hunter2"))


def test_who_holds_a_port() -> None:
    import os

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = ports.holder(port)
        assert found is not None and found.pid == os.getpid()
        assert "in use" in ports.bindable("127.0.0.1", port)
    assert ports.bindable("127.0.0.1", refused_port()) == ""


def test_ports_that_are_looked_at_besides() -> None:
    nobody, vllms = (
        Seen("u", silence=Silence("refused")),
        Seen("u", VLLM, "0.32.0", names=("a", "b", "c", "d")),
    )
    assert ports.vllms_port(nobody).do == "portico serve --port 8000"
    assert ports.vllms_port(vllms).found == "vLLM 0.32.0 with a, b, c and 1 more"
    assert ports.vllms_port(Seen("u", status=404)).state == "skip"
    assert ports.own_port(nobody).state == "skip" and ports.own_port(at(OLLAMA)).state == "warn"


# ---- asking at once


def test_a_question_that_hangs_is_left_alone() -> None:
    never = threading.Event()
    began = time.monotonic()
    asked = [Asked(never.wait, within=0.2) for _ in range(20)]
    assert {question.answer() for question in asked} == {Late(0.2)}
    assert time.monotonic() - began < 1.0
    never.set()


def test_a_question_that_fails_is_an_answer() -> None:
    def broken() -> int:
        return 1 // 0

    answer = Asked(broken, within=5).answer()
    assert isinstance(answer, Broken) and isinstance(answer.error, ZeroDivisionError)
    assert Asked(lambda: 5, within=5).answer() == 5


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://user:pass@host:8000/v1/", "http://host:8000/v1"),
        ("https://host/v1?api-key=secret#x", "https://host/v1"),
        ("http://[::1", ""),
    ],
)
def test_what_is_shown_of_a_url(url: str, seen: str) -> None:
    assert shown(url) == seen
