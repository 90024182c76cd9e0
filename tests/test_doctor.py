"""`portico doctor` as a whole: its lines, its exit code, its time, its model."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest

from cli_fixtures import Terminal, run
from doctor_fixtures import HANG, Place, doctor, line, refused_port, serving, states, surroundings, vllm
from library_fixtures import Repository, gguf, hub
from live_server import LiveServer
from portico.cli import doctor as command
from portico.cli.checks import Check, examination
from portico.cli.checks.examination import examine
from portico.cli.choices import Choices
from portico.cli.screen import decide

TROUBLE = [
    Check("machine", "python", "ok", "3.12.3"),
    Check("machine", "sandbox", "warn", "none: bubblewrap is not installed", "sudo apt install bubblewrap"),
    Check(
        "server",
        "address",
        "fail",
        "Ollama 0.33.0 at http://127.0.0.1:11434, 12 models, 1 loaded: it has Portico's port (the default)",
        "`portico serve --port 11435`, or stop it: `systemctl stop ollama`",
    ),
    Check("server", "port 8000", "skip", "nothing listens there"),
]


def drawn(checks: list[Check], **environ: str) -> list[str]:
    screen = decide(Choices(environ=environ))
    return command.lines(checks, screen)


def test_off_a_terminal_a_line_is_a_line() -> None:
    lines = drawn(TROUBLE, NO_COLOR="1")
    assert len(lines) == 6
    assert "warn sandbox    none: bubblewrap is not installed" in lines[2]
    assert lines[2].endswith("sudo apt install bubblewrap") and "FAIL address" in lines[4]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_screen_nothing_is_wider_than_it_but_what_must_be_copied(width: int) -> None:
    lines = [re.sub(r"\x1b\[\d+m", "", each) for each in drawn(TROUBLE, COLUMNS=str(width))]
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "`portico serve --port 11435`," in text and "`systemctl stop ollama`" in text
    assert all("`" not in each or each.count("`") % 2 == 0 for each in lines), "a command is broken"


def test_the_summary_counts() -> None:
    assert command._summary(TROUBLE).startswith("1 problem, 1 warning.")
    assert command._summary(TROUBLE[:1]).startswith("no problem.")


# ---- the program


def test_a_machine_where_nothing_runs(tmp_path: Path) -> None:
    port = refused_port()
    checks, code, _ = doctor(home=tmp_path, PORTICO_HOST=f"127.0.0.1:{port}")
    assert code == 0 and not [one for one in checks if one["state"] == "fail"]
    assert {one["group"] for one in checks} == {"settings", "machine", "engines", "hub", "server", "clients"}
    address = line(checks, "address")
    assert (address["state"], address["do"]) == ("skip", "portico serve")
    assert address["found"].startswith(f"nothing listens at http://127.0.0.1:{port} (connection refused)")
    assert line(checks, "llamacpp")["state"] == "ok" and line(checks, "python")["state"] == "ok"
    assert line(checks, "config")["do"] is None


def test_a_failure_is_exit_code_1_and_a_warning_is_not(tmp_path: Path) -> None:
    here = f"127.0.0.1:{refused_port()}"
    done = run("doctor", env=surroundings(tmp_path, PORTICO_HOST=here))
    assert done.returncode == 0
    done = run("doctor", env=surroundings(tmp_path, PORTICO_HOST=here, OPENAI_BASE_URL=f"http://{here}/v1"))
    assert done.returncode == 1
    assert re.search(r"^FAIL OPENAI_BASE_URL .*connection refused", done.stdout, re.MULTILINE)
    assert re.search(r"^1 problem[,.]", done.stderr, re.MULTILINE)


def test_settings_that_cannot_be_read_are_a_line(tmp_path: Path) -> None:
    (folder := tmp_path / ".config" / "portico").mkdir(parents=True)
    (folder / "config.toml").write_text("contxt = 5\n")
    checks, code, _ = doctor(home=tmp_path)
    found = line(checks, "config")
    assert code == 1 and found["state"] == "fail"
    assert "config.toml: unknown key 'contxt'. Nearest: context" in found["found"]
    assert line(checks, "python")["state"] == "ok"
    (folder / "config.toml").unlink()
    checks, code, _ = doctor(home=tmp_path, PORTICO_HOST="http://x:y")
    assert code == 1 and "PORTICO_HOST" in line(checks, "config")["found"]


def test_when_everything_hangs_it_takes_a_few_seconds(tmp_path: Path) -> None:
    """The servers, the hub, and the model that is asked about: each is waited for, all at the same time."""
    with serving(Place({})) as hanging, serving(Place({})) as hub_:
        for place in (hanging, hub_):
            place.routes = _Hanging()  # type: ignore[assignment]
        began = time.monotonic()
        checks, code, _ = doctor(
            "org/model",
            home=tmp_path,
            PORTICO_HOST=hanging.url,
            OLLAMA_HOST=hanging.url,
            VLLM_BASE_URL=hanging.url,
            VLLM_ENDPOINT=f"{hanging.url}/v1",
            OPENAI_BASE_URL=f"{hanging.url}/v1",
            HF_ENDPOINT=hub_.url,
            HF_HUB_OFFLINE="0",
        )
        took = time.monotonic() - began
    assert took < 10 and code == 1
    late = f"no answer from {hanging.url} within 2 s"
    assert late in line(checks, "address")["found"] and late in line(checks, "VLLM_BASE_URL")["found"]
    assert line(checks, "hub")["state"] == "warn"
    assert "no answer within" in line(checks, "org/model")["found"]


class _Hanging(dict[str, object]):
    def get(self, path: str, default: object = None) -> object:
        return lambda body: HANG


def test_a_machine_whose_driver_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(examination.machine, "look_at_gpus", never.wait)
    monkeypatch.setattr(examination.machine, "look_at_memory", lambda: 1 // 0)
    monkeypatch.setattr(examination, "SECONDS", 0.5)
    environ = surroundings(tmp_path, PORTICO_HOST=f"127.0.0.1:{refused_port()}")
    checks = examine(None, environ, ask=True, within=1.0)
    never.set()
    found = {check.name: check for check in checks}
    assert found["GPU"] == Check("machine", "GPU", "warn", "no answer within 0.5 s")
    assert "ZeroDivisionError" in found["memory"].found and found["python"].state == "ok"


def test_a_model_that_is_here(tmp_path: Path) -> None:
    checks, code, _ = doctor("PORTICO-tiny", home=tmp_path)
    model = [one for one in checks if one["group"] == "model"]
    assert states(model) == dict.fromkeys(("PORTICO-tiny", "engine", "takes", "fits"), "ok") and code == 0
    assert "runs it" in line(model, "engine")["found"]
    assert line(model, "takes")["found"].startswith(
        "weights 9.8 MiB, KV cache 15 MiB for its context of 5,120"
    )


def test_a_model_of_the_hub(tmp_path: Path) -> None:
    heads = {"llama.attention.head_count": 8, "llama.block_count": 1}
    with hub() as fake:
        fake.repositories["org/toy-GGUF"] = Repository({"toy-Q4_K_M.gguf": gguf(heads)})
        environ = {"HF_ENDPOINT": fake.url, "HF_HUB_OFFLINE": "0"}
        checks, code, _ = doctor("org/toy-GGUF", home=tmp_path, **environ)
        gone, failed, _ = doctor("org/none", home=tmp_path, **environ)
    model = line(checks, "org/toy-GGUF")
    assert model["state"] == "skip" and model["do"] == "portico pull org/toy-GGUF" and code == 0
    assert model["found"].startswith("not here; on the hub org/toy-GGUF (gguf, apache-2.0), ")
    assert line(checks, "fits")["state"] == "ok"
    assert failed == 1 and "no repository org/none" in line(gone, "org/none")["found"]


def test_a_model_that_needs_an_engine_that_is_not_here(tmp_path: Path) -> None:
    config = {"model_type": "qwen3", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"\0" * 9000}
    with hub() as fake:
        fake.repositories["org/toy"] = Repository(files)
        checks, code, _ = doctor("org/toy", home=tmp_path, HF_ENDPOINT=fake.url, HF_HUB_OFFLINE="0")
    engine = line(checks, "engine")
    assert code == 1 and engine["state"] == "fail"
    assert "portico engines" in engine["do"]


def test_a_model_nobody_knows_and_a_hub_that_may_not_be_asked(tmp_path: Path) -> None:
    checks, code, _ = doctor("portico-tyni", home=tmp_path)
    found = line(checks, "portico-tyni")
    assert code == 1 and "nearest: portico-tiny" in found["found"]
    assert found["do"] == "portico doctor portico-tiny:latest"
    checks, code, _ = doctor("org/toy", home=tmp_path)
    found = line(checks, "org/toy")
    assert (code, found["state"]) == (0, "warn") and "HF_HUB_OFFLINE is set" in found["found"]


def test_a_terminal(tmp_path: Path, server: LiveServer) -> None:
    env = surroundings(tmp_path, PORTICO_HOST=server.url, COLUMNS="80")
    with Terminal("doctor", "--no-ask", env=env) as terminal:
        assert terminal.end() == 0
    assert "\x1b[32m✓\x1b[0m python" in terminal.seen
    assert "For a bug report, without secrets: portico doctor --json" in terminal.seen
    with Terminal("doctor", "--no-ask", "--color", "never", env=env | {"PORTICO_ASCII": "1"}) as terminal:
        assert terminal.end() == 0
    assert "+ python" in terminal.seen and "✓" not in terminal.seen


def test_an_answer_of_a_server_cannot_draw_on_the_screen(tmp_path: Path) -> None:
    with serving(vllm("\x1b]0;pwned\x07qwen")) as place:
        env = surroundings(tmp_path, PORTICO_HOST=place.url, VLLM_BASE_URL=place.url, VLLM_MODEL="x")
        with Terminal("doctor", "--no-ask", env=env) as terminal:
            terminal.end()
    assert "\x1b]0;" not in terminal.seen and "\x07" not in terminal.seen
