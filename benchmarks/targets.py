"""What is measured: how each target is started, and where it then answers.

A target is `direct` (no proxy), `nginx` (the limit), `litellm` (the field) or `portico`. All of them stand before the
same mock upstream and are asked with the same key; Portico and LiteLLM check it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processes import Child, ChildFailed, free_port, processes, tree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build"
LITELLM_VERSION = "1.108.1"
MODEL = "mock-model"

# The one place where Portico's command line is known. {words} are filled in when it starts.
PORTICO_COMMAND = (
    "{python} -m portico serve --config {config} --engine http://127.0.0.1:{upstream}/v1"
    " --host 127.0.0.1 --port {port} --api-key {key} mock-model"
)


class Unavailable(Exception):
    """This target cannot be measured on this machine; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how the benchmark runs."""

    scratch: Path  # for configurations and logs, removed at the end
    proxy_cores: frozenset[int]
    load_cores: frozenset[int]
    home: Path  # environments that outlive a run
    portico_command: str = PORTICO_COMMAND
    portico_python: str = sys.executable
    key: str = field(default_factory=lambda: "sk-" + secrets.token_hex(32))

    @property
    def cores(self) -> frozenset[int]:
        return self.proxy_cores | self.load_cores

    def folder(self, name: str) -> Path:
        path = self.scratch / name
        path.mkdir(exist_ok=True)
        path.chmod(0o755)  # nginx's worker is another user when its master is root
        return path


@dataclass(frozen=True, kw_only=True)
class Running:
    """A started target."""

    port: int
    pid: int | None  # the process that was started, whose family's CPU time counts; None for `direct`
    server: int | None  # the process that serves, whose memory counts: for nginx its worker
    mock: Mock


class Mock:
    """The mock upstream's process and its settings."""

    def __init__(self, child: Child) -> None:
        line = child.line().split()
        if len(line) != 2:
            raise ChildFailed(f"the mock upstream did not start: {child.last_words()}")
        self.port = int(line[1])

    def set(self, *, chunks: int, pace_ms: float) -> None:
        self._ask(f"/mock?chunks={chunks}&pace_ms={pace_ms}")

    def streams_open(self) -> int:
        return self._ask("/mock")["streams_open"]

    def _ask(self, path: str) -> dict[str, int]:
        status, body = get(self.port, path)
        if status != 200:
            raise ChildFailed(f"the mock upstream answered {status}")
        return json.loads(body)


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def wait_ready(child: Child, port: int, place: Place, *, seconds: float) -> None:
    """Until the model list answers 200."""
    give_up = time.monotonic() + seconds
    last = "nothing listened"
    while time.monotonic() < give_up:
        if not child.running():
            raise ChildFailed(f"ended before it was ready: {child.last_words()}")
        try:
            status, _ = get(port, "/v1/models", {"Authorization": f"Bearer {place.key}"})
            if status == 200:
                return
            last = f"/v1/models answered {status}"
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        time.sleep(0.1)
    raise ChildFailed(f"not ready after {seconds:.0f} s: {last}")


# ---- The targets


@contextlib.contextmanager
def start(name: str, place: Place) -> Iterator[Running]:
    """The mock and the target before it, both fresh, until the block is left."""
    if not (BUILD / "mock_upstream").exists():
        raise Unavailable("the C programs are not built: run `make -C benchmarks`")
    prepare = TARGETS[name]
    folder = place.folder(name)
    with Child(
        [str(BUILD / "mock_upstream")], cores=place.load_cores, log=folder / "mock.log", capture=True
    ) as mock_child:
        mock = Mock(mock_child)
        if prepare is None:
            yield Running(port=mock.port, pid=None, server=None, mock=mock)
            return
        port = free_port()
        launch = prepare(place, folder, mock.port, port)
        with Child(
            launch.command, cores=place.proxy_cores, log=folder / "target.log", env=launch.env
        ) as child:
            wait_ready(child, port, place, seconds=launch.patience)
            server = tree(child.pid, processes())[1] if launch.by_a_worker else child.pid
            yield Running(port=port, pid=child.pid, server=server, mock=mock)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a target is started."""

    command: list[str]
    env: dict[str, str] = field(default_factory=dict)  # besides the driver's own
    patience: float  # seconds it may take to become ready
    by_a_worker: bool = False  # its first child serves


def nginx(place: Place, folder: Path, upstream: int, port: int) -> Launch:
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not program:
        raise Unavailable("nginx is not installed")
    config = folder / "nginx.conf"
    config.write_text(f"""\
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream mock {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
""")
    command = [program, "-e", "stderr", "-c", str(config), "-p", str(folder), "-g", "daemon off;"]
    return Launch(command=command, patience=10, by_a_worker=True)


def litellm(place: Place, folder: Path, upstream: int, port: int) -> Launch:
    program = place.home / "litellm" / "bin" / "litellm"
    if not program.exists():
        raise Unavailable("LiteLLM is not installed; see install_litellm()")
    config = folder / "litellm.yaml"
    config.write_text(f"""\
model_list:
  - model_name: {MODEL}
    litellm_params:
      model: hosted_vllm/{MODEL}
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
      input_cost_per_token: 0
      output_cost_per_token: 0
""")
    env = {
        "LITELLM_MASTER_KEY": place.key,  # newer versions do not start without one
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches the price list from the internet
        "LITELLM_TELEMETRY": "False",
    }
    command = [program, "--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", 1]
    return Launch(command=[str(part) for part in command], env=env, patience=120)


def portico(place: Place, folder: Path, upstream: int, port: int) -> Launch:
    return portico_launch(place, folder, upstream=upstream, port=port)


def portico_launch(place: Place, folder: Path, **more: object) -> Launch:
    """`place.portico_command` with its {words} filled in."""
    config = folder / "empty.toml"
    config.touch()  # the settings of whoever runs this must not count
    words = {"python": place.portico_python, "config": config, "key": place.key} | more
    source = ROOT / "src"  # this checkout's code, whatever version is installed
    return Launch(
        command=[part.format(**words) for part in place.portico_command.split()],
        env={"PORTICO_HOME": str(folder / "home"), "PYTHONPATH": str(source)},
        patience=60,
    )


TARGETS: dict[str, Callable[[Place, Path, int, int], Launch] | None] = {
    "direct": None,
    "nginx": nginx,
    "litellm": litellm,
    "portico": portico,
}


# ---- Environments and versions


def install_litellm(home: Path) -> str:
    """Make LiteLLM's own environment unless it is there; returns what pip finds wrong with it, usually nothing."""
    folder = home / "litellm"
    python = folder / "bin" / "python"
    if not (folder / "bin" / "litellm").exists():
        wanted = f"litellm[proxy]=={LITELLM_VERSION}"
        print(f"installing {wanted} into {folder} (once, some minutes) ...", file=sys.stderr)
        home.mkdir(parents=True, exist_ok=True)
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", wanted],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=900)
            except subprocess.TimeoutExpired:
                raise Unavailable(f"{wanted} was not installed in 15 minutes") from None
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
                    "no reason given"
                ]
                raise Unavailable(f"{wanted} cannot be installed: {errors[-1]}")
    check = subprocess.run([str(python), "-m", "pip", "check"], capture_output=True, text=True, timeout=120)
    return "" if check.returncode == 0 else "; ".join(check.stdout.splitlines())


def versions(names: list[str], place: Place) -> dict[str, str]:
    commands = {
        "nginx": ["nginx", "-v"],
        "litellm": [
            str(place.home / "litellm" / "bin" / "python"),
            "-c",
            "from importlib.metadata import version; print(version('litellm'))",
        ],
        "portico": [place.portico_python, "-c", "import portico; print(portico.__version__)"],
    }
    found = {"python": sys.version.split()[0]}
    for name in names:
        if command := commands.get(name):
            try:
                env = os.environ | {"PYTHONPATH": str(ROOT / "src")} if name == "portico" else None
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
                found[name] = (
                    (done.stdout or done.stderr).strip().rpartition("/")[2] or "unknown"
                ).splitlines()[-1]
            except OSError:
                found[name] = "unknown"
    return found
