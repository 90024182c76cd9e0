"""docs/troubleshooting.md: every message that it promises is really said, by doctor or by an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import msgspec
import pytest

from cli_fixtures import run
from doctor_fixtures import (
    CHAT,
    HANG,
    Place,
    doctor,
    listed,
    refused_port,
    serving,
    surroundings,
    vllm,
    vllms_chat,
)
from live_server import LiveServer
from portico.cli.checks import clients, machine, ports
from portico.cli.checks.abilities import abilities
from portico.cli.checks.asking import Answer, Silence
from portico.cli.checks.fit import Room, on_llamacpp, on_vllm, verdict
from portico.cli.checks.keys import Key
from portico.cli.checks.who import VLLM, Model, Seen
from portico.engines import Facts, ModelSpec
from portico.engines.gpus import Driver, Gpu
from portico.engines.llamacpp import plan_slots
from portico.engines.vllm.why import why
from portico.errors import EngineStartFailed, TemplateMissing, UpstreamTimeout
from test_doctor_fit import GIB, HEADS

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
ROWS = [
    tuple(cell.strip() for cell in row.strip("| ").split(" | "))
    for row in PAGE.read_text(encoding="utf-8").splitlines()
    if row.startswith("| ") and not row.startswith("| symptom")
]
MESSAGES = sorted({message for _, says, _ in ROWS for message in re.findall(r"`([^`]+)`", says)})
PLACEHOLDER = re.compile(r"\b(?:NAME|URL|N)\b")


def pattern(message: str) -> re.Pattern[str]:
    """The message with anything in place of what stands in capitals."""
    pieces = PLACEHOLDER.split(message.removeprefix("-> "))
    return re.compile(r".+?".join(map(re.escape, pieces)))


# ---- what is said: doctor's lines


def of_the_program(folder: Path, *arguments: str, **variables: str) -> str:
    checks, _, _ = doctor(*arguments, home=folder, **variables)
    return "\n".join(f"{check['name']} {check['found']}\n{check['do']}" for check in checks)


def refused(folder: Path) -> str:
    return of_the_program(folder, VLLM_ENDPOINT=f"http://127.0.0.1:{refused_port()}/v1")


def a_vllm(folder: Path) -> str:
    """Without a tool parser; its model is not the one that is wanted."""
    with serving(vllm("qwen")) as place:
        environ = {"VLLM_MODEL_NAME": "default", "VLLM_DEBUG": "1"}
        return of_the_program(folder, "--within", "20", VLLM_ENDPOINT=place.url, **environ)


def a_vllm_that_talks(folder: Path) -> str:
    def answer(body: dict[str, object]) -> object:
        return vllms_chat({"logprobs": body.get("logprobs")})

    with serving(vllm(**{CHAT: answer})) as place:
        return of_the_program(folder, "--within", "20", PORTICO_HOST=place.url)


def a_vllm_that_hangs_at_chats(folder: Path) -> str:
    with serving(vllm(**{CHAT: lambda body: HANG})) as place:
        return of_the_program(folder, "--within", "0.3", PORTICO_HOST=place.url)


def a_vllm_that_wants_a_key(folder: Path) -> str:
    place = vllm()
    place.key = "the-right-key"
    with serving(place):
        return of_the_program(folder, VLLM_BASE_URL=place.url) + of_the_program(
            folder, VLLM_BASE_URL=place.url, VLLM_API_KEY="the-wrong-key"
        )


def a_server_of_another_kind(folder: Path) -> str:
    with serving(Place({})) as place:
        return of_the_program(folder, OPENAI_BASE_URL=f"{place.url}/v1", PORTICO_HOST=place.url)


def an_ollama_with_nothing_loaded(folder: Path) -> str:
    routes = {
        "/v1/models": listed("toy", owned_by="library"),
        "/api/version": {"version": "0.33.0"},
        "/api/ps": {"models": []},
    }
    with serving(Place(routes)) as place:
        return of_the_program(folder, OLLAMA_HOST=place.url)


def what_hangs(folder: Path) -> str:
    with serving(Place({"/v1/models": lambda body: HANG})) as place:
        return of_the_program(folder, PORTICO_HOST=place.url)


def nothing_set(folder: Path) -> str:
    return of_the_program(folder, PORTICO_HOST=f"127.0.0.1:{refused_port()}")


def concluded(folder: Path) -> str:
    """What depends on a machine: cards, far servers, a free port 8000. Conclusions with plain values."""
    card = {"index": 0, "name": "RTX 4090", "total": 24 * GIB, "free": 22 * GIB}
    driver = Driver(version="560.35", cuda="12.6")
    far = Seen("http://gpu:8000", silence=Silence("refused"))
    (asked,) = clients.clients({"VLLM_BASE_URL": "http://gpu:8000"}, server=None)
    checks = [
        *machine.gpus([Gpu(**card, busy=0.97)], driver, device=True),
        *machine.gpus([Gpu(**card | {"free": GIB}, used_by={812: 20 * GIB})], driver, device=True),
        *machine.gpus([], None, device=False),
        *machine.gpus([], None, device=True),
        *clients.client(asked, far, server=far),
        *clients.client(asked, far._replace(silence=Silence("unreachable", 2.0)), server=far),
        ports.vllms_port(far),
        ports.address(far, origin="PORTICO_HOST", here=False, key=Key("PORTICO_API_KEY")),
    ]
    return "\n".join(f"{check.found}\n{check.do}" for check in checks)


def fits(folder: Path) -> str:
    facts = Facts(architecture="qwen3", format="gguf", size=4 * GIB, context=32768, metadata=HEADS)
    spec = ModelSpec(name="toy", engine="vllm", source="x", facts=facts)
    card = Gpu(index=0, name="RTX 4090", total=24 * GIB, free=24 * GIB)
    used = msgspec.structs.replace(card, free=15 * GIB)
    small = msgspec.structs.replace(card, total=4 * GIB, free=4 * GIB)
    found = [
        on_llamacpp(spec, Room(host=32 * GIB)),
        on_llamacpp(spec, Room(host=8 * GIB)),
        on_llamacpp(spec, Room(host=2 * GIB)),
        on_vllm(spec, Room(host=GIB, gpus=(used,)), "gpu"),
        on_vllm(spec, Room(host=GIB, gpus=(small,)), "gpu"),
    ]
    lines = [
        check for fit in found for check in verdict("toy", fit, Room(host=GIB), set_context="{}", smaller="")
    ]
    return "\n".join(check.found for check in lines)


def without_a_template(folder: Path) -> str:
    (chat, *_) = abilities(Seen("u", VLLM), Model("m"))
    said = b'{"error": {"message": "default chat template is no longer allowed"}}'
    return chat.conclude((Answer(400, said),)).found


# ---- what is said: errors


def errors(folder: Path) -> str:
    facts = Facts(architecture="qwen3", format="gguf", size=4 * GIB, context=32768, metadata=HEADS)
    spec = ModelSpec(name="toy", engine="llamacpp", source="x", facts=facts)
    with pytest.raises(EngineStartFailed) as out_of_memory:
        plan_slots(spec, 2 * GIB)
    logs = [
        "torch.OutOfMemoryError: CUDA out of memory.",
        "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (16)",
        "World size (4) is larger than the number of available GPUs (1)",
        "RuntimeError: Failed to infer device type",
    ]
    said = [why([f"ERROR 11-26 03:00:00 [core.py:1] {text}"], 1).reason for text in logs]
    return "\n".join(
        [
            str(out_of_memory.value),
            *said,
            str(TemplateMissing(model="m")),
            str(UpstreamTimeout(url="u", seconds=3)),
        ]
    )


def of_logs(folder: Path) -> str:
    return run("logs", "toy", env=surroundings(folder)).stderr


def of_a_taken_port(folder: Path) -> str:
    with serving(Place({})) as place:
        return run("serve", "--port", str(place.port), env=surroundings(folder)).stderr


WAYS: tuple[Callable[[Path], str], ...] = (
    *(refused, a_vllm, a_vllm_that_talks, a_vllm_that_hangs_at_chats, a_vllm_that_wants_a_key),
    *(a_server_of_another_kind, an_ollama_with_nothing_loaded, what_hangs, nothing_set, concluded, fits),
    *(without_a_template, errors, of_logs, of_a_taken_port),
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, server: LiveServer) -> str:
    """Everything that is said in worlds where one thing is wrong."""
    folder = tmp_path_factory.mktemp("home")
    texts = [way(folder) for way in WAYS]
    server.ask("POST", "/api/generate", {"model": server.model, "prompt": ""})
    environ = {"PORTICO_HOST": server.url, "VLLM_BASE_URL": server.url, "VLLM_MODEL": "default"}
    texts.append(of_the_program(folder, "--within", "20", **environ))
    for body in ({"model": server.model, "messages": "text"}, {"model": "portico-tyni", "messages": []}):
        with pytest.raises(HTTPError) as caught:
            server.ask("POST", CHAT, body)
        texts.append(msgspec.json.decode(caught.value.read())["error"]["message"])
        caught.value.close()
    return "\n".join(texts)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_really_said(message: str, said: str) -> None:
    assert pattern(message).search(said), message


def test_the_page_is_whole() -> None:
    assert len(ROWS) >= 34 and all(len(row) == 3 and all(row) for row in ROWS)
    assert all(re.search(r"`[^`]+`", says) for _, says, _ in ROWS), "a symptom without a message"
    titles = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == ["marktoflow", "agent-sdk-go", "ChatDev", "Amplifier", "And what they do not list"]


def test_a_message_that_nobody_says_is_noticed(said: str) -> None:
    assert not pattern("everything at URL is well").search(said)
