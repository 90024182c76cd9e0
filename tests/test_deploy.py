"""The files of deploy/ as they are shipped: nginx and haproxy before two real servers; what systemd and Docker are told.

What proxies do is seen at both ends: at an engine that keeps the time (the scripted upstream, a second model of both
servers), and at a caller's bare connection. Speeds are not asserted; what must not happen would never happen.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import click
import httpx2
import psutil
import pytest
import yaml

from asking import HELLO, PATHS, Dialect
from deploy_fixtures import (
    DEPLOY,
    WAIT_SECONDS,
    Caller,
    Proxy,
    calling,
    filled,
    free_port,
    in_flight,
    needed,
    proxy_before,
    wait_until_idle,
)
from live_server import LiveServer, plain_environment, serve, wait_until
from portico.cli import main
from portico.cli.engines import NAMES
from portico.config import Config
from portico.engines.vllm.engine import END_SECONDS
from portico.gateway.listen.listener import LAST_WORDS
from scripted_answers import CHAT, chat_stream, reply
from scripted_upstream import HOLD, Answer, ScriptedUpstream

ROOT = DEPLOY.parent
PROXIES = ("nginx", "haproxy")
each_dialect = pytest.mark.parametrize("dialect", ["openai", "ollama"])
STREAM = chat_stream("one", "two", "three", "four")
FIRST_HALF, SECOND_HALF = STREAM[:4], STREAM[4:]  # the first ends with "two"


@dataclass(frozen=True)
class Pair:
    """Two servers, each with the bundled model and with `mock-model`, which the scripted upstream answers."""

    upstream: ScriptedUpstream
    config: Path
    servers: tuple[LiveServer, LiveServer]

    def third(self, folder: Path, *arguments: str) -> AbstractContextManager[LiveServer]:
        """One more such server, to be stopped or killed."""
        return serve(folder, "--config", str(self.config), *arguments)


@pytest.fixture(scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    config = folder / "portico.toml"
    with ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream())
        config.write_text(
            f'[[model]]\nname = "portico-tiny"\n\n[[model]]\nname = "mock-model"\nengine = "{upstream.url}"\n'
        )
        one, two = (
            stack.enter_context(serve(folder / name, "--config", str(config))) for name in ("one", "two")
        )
        yield Pair(upstream, config, (one, two))


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    _pair.upstream.reset()
    return _pair


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, _pair: Pair) -> Iterator[Proxy]:
    with proxy_before(request.param, [server.port for server in _pair.servers]) as running:
        yield running


def chat(model: str = "mock-model", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, "stream": stream, **fields}


# ---- TLS, and what goes through


def test_tls_and_both_apis(proxy: Proxy) -> None:
    with proxy.client("127.0.1.1") as client:
        said = client.post("/v1/chat/completions", json=chat("default", stream=False))
        assert said.status_code == 200 and said.json()["choices"][0]["message"]["content"]
        said = client.post("/api/chat", json=chat("default", stream=False))
        assert said.status_code == 200 and said.json()["message"]["content"]
        assert client.get("/api/version").json()["version"]
        assert client.get("/health", headers={"accept": "text/plain"}).text == "OK"


def test_whoever_does_not_know_the_certificate_is_not_connected(proxy: Proxy) -> None:
    with (
        httpx2.Client(base_url=proxy.url, verify=ssl.create_default_context(), trust_env=False) as client,
        pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.get("/api/version")


@each_dialect
def test_the_bundled_model_streams(proxy: Proxy, pair: Pair, dialect: Dialect) -> None:
    with calling(proxy, PATHS[dialect], chat("portico-tiny")) as caller:
        whole = caller.rest()
    last = b"data: [DONE]" if dialect == "openai" else b'"done":true'
    assert last in whole.replace(b'"done": true', b'"done":true') and whole.endswith(b"\r\n0\r\n\r\n")


@each_dialect
def test_a_stream_arrives_piece_by_piece(proxy: Proxy, pair: Pair, dialect: Dialect) -> None:
    """The second half does not exist before the first has been received."""
    pair.upstream.script(CHAT, (*FIRST_HALF, HOLD, *SECOND_HALF))
    with calling(proxy, PATHS[dialect], chat()) as caller:
        caller.receive(b"two")
        assert b"three" not in caller.got
        pair.upstream.release()
        assert b"four" in caller.rest()
        assert caller.got.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("name", PROXIES)
def test_what_servers_are_sent(name: str, tmp_path: Path) -> None:
    """A request's id and its trace go through, an id is made where there is none that may be one, and the
    connection is kept."""
    traced = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with ScriptedUpstream() as upstream, proxy_before(name, [upstream.port, free_port()]) as proxy:
        for headers in ({}, {"x-request-id": "mine:1"}, {"x-request-id": 'no "id"'}):
            with proxy.client() as client:
                said = client.post(CHAT, json=chat(stream=False), headers={**traced, **headers})
            assert said.status_code == 200
        none, own, wrong = (request.headers for request in upstream.requests(CHAT))
        log = proxy.log()
    assert re.fullmatch(r"[0-9a-f-]{32,36}", none["x-request-id"])
    assert own["x-request-id"] == "mine:1" and "mine:1" in log
    assert re.fullmatch(r"[0-9a-f-]{32,36}", wrong["x-request-id"]) and wrong["x-request-id"] in log
    for headers in (none, own, wrong):
        assert headers["traceparent"] == traced["traceparent"]
        assert headers["host"] == "localhost"
        assert headers.get("connection", "keep-alive") != "close"


def test_the_id_of_a_request_comes_back(proxy: Proxy) -> None:
    with proxy.client("127.0.1.2") as client:
        said = client.get("/api/version", headers={"x-request-id": "mine:2"})
    assert said.headers["x-request-id"] == "mine:2"
    assert "mine:2" in proxy.log()


# ---- callers who leave


@each_dialect
@pytest.mark.parametrize("when", ["before the first byte", "within"])
def test_a_caller_who_leaves_stops_the_engine(proxy: Proxy, pair: Pair, dialect: Dialect, when: str) -> None:
    """The engine is silent just then: nothing that is written tells anybody that nobody listens."""
    pair.upstream.script(CHAT, (HOLD,) if when == "before the first byte" else (*FIRST_HALF, HOLD))
    with calling(proxy, PATHS[dialect], chat()) as caller:
        pair.upstream.wait_for_request(CHAT)
        if when == "within":
            caller.receive(b"two")
        assert not pair.upstream.hangups
        caller.leave()
        pair.upstream.wait_for_hangup()
    wait_until_idle(*pair.servers)


def test_a_caller_who_leaves_stops_the_bundled_model(proxy: Proxy, pair: Pair) -> None:
    def left() -> float:
        return sum(server.metric("portico_callers_left_total") for server in pair.servers)

    before = left()
    with calling(proxy, CHAT, chat("portico-tiny", max_tokens=4000, ignore_eos=True)) as caller:
        caller.receive(b"data:")
    wait_until(lambda: left() == before + 1, seconds=WAIT_SECONDS, what="a caller who left")
    wait_until_idle(*pair.servers)


# ---- limits


def _flood(proxy: Proxy, path: str, address: str) -> bytes:
    """Asks without waiting for answers until one is 429; its head and body."""
    got = b""
    with proxy.connect(address) as sock:
        sock.settimeout(WAIT_SECONDS)
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode() * 400)
        while b" 429 " not in got or not got.partition(b" 429 ")[2].partition(b"\r\n\r\n")[2].count(b"}"):
            piece = sock.recv(65536)
            assert piece, got[-2000:]
            got += piece
    return got.partition(b" 429 ")[2]


@each_dialect
def test_too_many_requests_from_one_address(proxy: Proxy, dialect: Dialect) -> None:
    path, address = ("/v1/models", "127.0.2.1") if dialect == "openai" else ("/api/version", "127.0.2.2")
    head, _, body = _flood(proxy, path, address).partition(b"\r\n\r\n")
    assert re.search(rb"(?i)^retry-after: \d+", head, re.MULTILINE)
    assert re.search(rb"(?i)^x-request-id: \S+", head, re.MULTILINE)
    assert re.search(rb"(?i)^content-type: application/json", head, re.MULTILINE)
    error = json.JSONDecoder().raw_decode(body.decode(errors="replace"))[0]["error"]
    assert (error["message"] if dialect == "openai" else error).startswith("Too many requests")
    with proxy.client("127.0.2.3") as other:
        assert other.get(path).status_code == 200


def test_too_many_at_once_from_one_address(proxy: Proxy, pair: Pair) -> None:
    """64 run. The next is 429 for as long as they do, and is taken when one has ended."""
    pair.upstream.script(CHAT, *[(*FIRST_HALF, HOLD)] * 80)

    def begun(stack: ExitStack) -> Any:
        caller = stack.enter_context(calling(proxy, CHAT, chat(), address="127.0.2.4"))
        while b"two" not in caller.got and b" 429 " not in caller.got:
            caller.got += caller.socket.recv(65536)
        return caller if b"two" in caller.got else None

    with ExitStack() as stack:
        running: list[Any] = []
        until = time.monotonic() + WAIT_SECONDS
        while len(running) < 64:
            assert time.monotonic() < until, f"only {len(running)} run"
            if caller := begun(stack):
                running.append(caller)
            else:
                time.sleep(0.1)  # they came faster than they may
        time.sleep(0.3)  # nobody is too fast now
        assert begun(stack) is None
        running[0].leave()
        wait_until(lambda: begun(stack), seconds=WAIT_SECONDS, what="room for one more")
    wait_until_idle(*pair.servers)


@each_dialect
def test_a_body_that_is_too_large(proxy: Proxy, dialect: Dialect) -> None:
    with proxy.connect("127.0.1.3") as sock:
        length = Config().max_body_bytes + 1
        sock.sendall(
            f"POST {PATHS[dialect]} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()
        )
        got = b""
        while b"}" not in got.partition(b"\r\n\r\n")[2]:
            piece = sock.recv(65536)
            assert piece, got
            got += piece
    assert got.startswith(b"HTTP/1.1 413 ")
    error = json.JSONDecoder().raw_decode(got.partition(b"\r\n\r\n")[2].decode())[0]["error"]
    assert "128 MB" in (error["message"] if dialect == "openai" else error)


def test_a_large_body_goes_through(proxy: Proxy) -> None:
    """More than proxies take unasked (nginx: 1 MB) and more than is held in memory."""
    body = {"model": "nobody", "messages": [{"role": "user", "content": "x" * (3 << 20)}]}
    with proxy.client("127.0.1.4") as client:
        said = client.post(CHAT, json=body)
    assert said.status_code == 404 and said.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", PROXIES)
def test_the_limits_of_bodies_are_the_servers(name: str) -> None:
    (file,) = DEPLOY.glob(f"{name}.*")
    assert str(Config().max_body_bytes) in file.read_text(encoding="utf-8")


def test_models_are_not_managed_through_the_proxy(proxy: Proxy) -> None:
    with proxy.client("127.0.1.5") as client:
        for path in (
            "/api/pull",
            "/api/create",
            "/api/copy",
            "/api/blobs/sha256:00",
            "/api/push",
            "/%61pi/pull",
        ):
            assert client.post(path, json={"model": "portico-tiny"}).status_code == 403, path
        assert client.request("DELETE", "/api/delete", json={"model": "portico-tiny"}).status_code == 403
        assert client.get("/metrics").status_code == 404


# ---- servers that go


class Load:
    """Callers, each with an address and a kept connection of its own, who ask one thing after the other."""

    def __init__(self, proxy: Proxy, callers: int = 4) -> None:
        self._proxy, self._stop = proxy, threading.Event()
        self.outcomes: list[str] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(f"127.0.3.{number + 1}",)) for number in range(callers)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str) -> None:
        with self._proxy.client(address) as client:
            while not self._stop.wait(0.06):
                try:
                    said = client.post(CHAT, json=chat("portico-tiny", stream=False, max_tokens=2))
                    self.outcomes.append("fine" if said.status_code == 200 else said.text)
                except httpx2.TransportError as error:
                    self.outcomes.append(repr(error))

    def more(self, count: int) -> None:
        wanted = len(self.outcomes) + count
        wait_until(lambda: len(self.outcomes) >= wanted, seconds=3 * WAIT_SECONDS, what=f"{count} answers")


@contextmanager
def _on(server: LiveServer, proxy: Proxy, pair: Pair, answer: Answer) -> Iterator[Caller]:
    """A caller whose request runs on `server`, where the upstream gives it `answer`; those that the proxy has sent to
    the other server meanwhile run there."""
    before = in_flight(server)
    with ExitStack() as stack:
        for attempt in range(1, 5):
            pair.upstream.script(CHAT, answer)
            caller = stack.enter_context(calling(proxy, CHAT, chat(), address=f"127.0.1.{100 + attempt}"))
            pair.upstream.wait_for_request(CHAT, attempt)
            if in_flight(server) > before:
                yield caller
                return
        raise AssertionError("the proxy does not ask the server that has least to do")


@pytest.mark.parametrize("name", PROXIES)
def test_a_server_that_is_stopped_is_not_noticed(name: str, pair: Pair, tmp_path: Path) -> None:
    """SIGTERM under load: what runs finishes there, everything else is answered by the other."""
    with (
        pair.third(tmp_path) as victim,
        proxy_before(name, [pair.servers[0].port, victim.port]) as proxy,
        _on(victim, proxy, pair, (*FIRST_HALF, HOLD, *SECOND_HALF)) as caller,
        Load(proxy) as load,
    ):
        caller.receive(b"two")
        load.more(10)
        victim.process.send_signal(signal.SIGTERM)
        load.more(20)
        assert victim.process.poll() is None, "it waits for what runs"
        pair.upstream.release()
        assert b"four" in caller.rest() and caller.got.endswith(b"\r\n0\r\n\r\n")
        assert victim.process.wait(WAIT_SECONDS) == 0
        load.more(20)
    assert set(load.outcomes) == {"fine"}


@pytest.mark.parametrize("name", PROXIES)
def test_a_server_that_is_killed(name: str, pair: Pair, tmp_path: Path) -> None:
    """SIGKILL: an answer that has not begun comes from the other, one that has is broken off, so that it cannot be
    taken for a whole one. Whoever comes later notices nothing."""
    with pair.third(tmp_path) as victim, proxy_before(name, [pair.servers[0].port, victim.port]) as proxy:
        with _on(victim, proxy, pair, (*FIRST_HALF, HOLD)) as begun:
            begun.receive(b"two")
            pair.upstream.reset()
            with _on(victim, proxy, pair, (HOLD,)) as waiting:
                pair.upstream.script(CHAT, STREAM)
                victim.process.kill()
                victim.process.wait()
                assert b"four" in waiting.rest() and waiting.got.endswith(b"\r\n0\r\n\r\n")
            assert not begun.rest().endswith(b"\r\n0\r\n\r\n")
        with Load(proxy) as load:
            load.more(30)
    assert set(load.outcomes) == {"fine"}


FULL = reply(503, {"error": {"message": "full"}})


@pytest.mark.parametrize("name", PROXIES)
def test_what_one_server_has_no_room_for_goes_to_the_other(name: str) -> None:
    with (
        ScriptedUpstream() as full,
        ScriptedUpstream() as free,
        proxy_before(name, [full.port, free.port]) as proxy,
    ):
        full.script(CHAT, *[FULL] * 20)
        with proxy.client() as client:
            said = [client.post(CHAT, json=chat(stream=False)).status_code for _ in range(8)]
        assert said == [200] * 8
        assert full.requests(CHAT), "it was not asked, so this test has seen nothing"


@pytest.mark.parametrize("name", PROXIES)
def test_a_full_server_is_not_a_dead_one(name: str) -> None:
    """Both say 503 for a while: callers get it, and as soon as there is room, answers."""
    with (
        ScriptedUpstream() as one,
        ScriptedUpstream() as two,
        proxy_before(name, [one.port, two.port]) as proxy,
        proxy.client() as client,
    ):
        for upstream in (one, two):
            upstream.script(CHAT, *[FULL] * 40)
        assert [client.post(CHAT, json=chat(stream=False)).status_code for _ in range(6)] == [503] * 6
        assert one.requests(CHAT) and two.requests(CHAT)
        for upstream in (one, two):
            upstream.reset()
        assert [client.post(CHAT, json=chat(stream=False)).status_code for _ in range(6)] == [200] * 6


def test_haproxy_takes_a_dead_server_out_and_in_again(pair: Pair, tmp_path: Path) -> None:
    def state(server: str) -> str:
        rows = [line.split(",") for line in proxy.runtime("show stat").splitlines()]
        (row,) = [row for row in rows if row[:2] == ["portico", server]]
        return row[rows[0].index("status")]

    with ExitStack() as stack:
        victim = stack.enter_context(pair.third(tmp_path / "first"))
        proxy = stack.enter_context(proxy_before("haproxy", [pair.servers[0].port, victim.port]))
        wait_until(lambda: state("two") == "UP", seconds=WAIT_SECONDS, what="two is UP")
        victim.process.kill()
        wait_until(lambda: state("two") == "DOWN", seconds=WAIT_SECONDS, what="two is DOWN")
        assert state("one") == "UP"
        stack.enter_context(pair.third(tmp_path / "again", "--port", str(victim.port)))
        wait_until(lambda: state("two") == "UP", seconds=WAIT_SECONDS, what="two is UP again")


def _reload_without(server: LiveServer, proxy: Proxy) -> None:
    """What docs/deploy.md says: `down` in nginx's file, then a reload."""
    file = proxy.folder / "nginx.conf"
    lines = [f"server 127.0.0.1:{server.port} max_fails={fails}" for fails in (0, 1)]
    text = filled(file.read_text(encoding="utf-8"), {line: f"{line} down" for line in lines})
    file.write_text(text, encoding="utf-8")
    master = psutil.Process(proxy.process.pid)
    old = master.children()
    proxy.process.send_signal(signal.SIGHUP)

    def doing(worker: psutil.Process) -> str:
        """nginx's processes say it in place of their command line."""
        try:
            return " ".join(worker.cmdline())
        except psutil.Error:
            return ""  # it has ended

    def changed() -> bool:
        new = [worker for worker in master.children() if worker not in old]
        return any(map(doing, new)) and all(
            "shutting down" in (doing(worker) or "shutting down") for worker in old
        )

    wait_until(changed, seconds=WAIT_SECONDS, what="workers that have read the new file")


@pytest.mark.parametrize("name", PROXIES)
def test_a_server_is_drained_at_the_proxy(name: str, pair: Pair) -> None:
    """What runs goes on there; nothing new comes."""
    one, two = pair.servers

    def asked(server: LiveServer) -> float:
        return server.metric("portico_input_tokens_total")

    for server in pair.servers:  # from then on there is a count
        server.ask("POST", CHAT, chat("portico-tiny", stream=False))
    with (
        proxy_before(name, [one.port, two.port]) as proxy,
        _on(two, proxy, pair, (*FIRST_HALF, HOLD, *SECOND_HALF)) as caller,
    ):
        caller.receive(b"two")
        if name == "haproxy":
            assert proxy.runtime("set server portico/two state drain").strip() == ""
        else:
            _reload_without(two, proxy)
        before = [asked(server) for server in pair.servers]
        with proxy.client("127.0.1.6") as client:
            for _ in range(6):
                assert client.post(CHAT, json=chat("portico-tiny", stream=False)).status_code == 200
        assert asked(two) == before[1] and asked(one) > before[0]
        pair.upstream.release()
        assert b"four" in caller.rest() and caller.got.endswith(b"\r\n0\r\n\r\n")
    wait_until_idle(*pair.servers)


# ---- the page


def _blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _with_prefix(name: str) -> str:
    """The shipped file with the page's lines for a path prefix, where the page says they belong."""
    (file,) = DEPLOY.glob(f"{name}.*")
    (block,) = _blocks(name)
    place = "        location / {\n" if name == "nginx" else "    # The client's own id"
    return filled(file.read_text(encoding="utf-8"), {place: block + place})


@pytest.mark.parametrize("name", PROXIES)
def test_behind_a_path_prefix(name: str, pair: Pair, tmp_path: Path) -> None:
    text = _with_prefix(name)
    with proxy_before(name, [server.port for server in pair.servers], text=text) as proxy:
        with proxy.client("127.0.1.7") as client:
            assert client.get("/ai/v1/models").json()["data"][0]["id"] == "portico-tiny"
            assert client.get("/v1/models").status_code == 200
            assert client.post("/ai/api/pull", json={}).status_code == 403
            assert client.get("/ai/metrics").status_code == 404
        with calling(proxy, "/ai/api/chat", chat("portico-tiny")) as caller:
            assert caller.rest().endswith(b"\r\n0\r\n\r\n")
        environ = plain_environment(
            tmp_path, PORTICO_HOST=f"{proxy.url}/ai", SSL_CERT_FILE=str(proxy.folder / "fullchain.pem")
        )
        command = [sys.executable, "-m", "portico", "chat", "-p", "Hello!"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tmp_path, env=environ)
    assert said.returncode == 0 and said.stdout.strip(), said.stderr


@pytest.mark.parametrize("name", PROXIES)
def test_each_setting_of_a_proxy_is_explained(name: str) -> None:
    """By its name, in the table of docs/deploy.md."""
    (file,) = DEPLOY.glob(f"{name}.*")
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    words = {line.split()[0].rstrip(";") for line in lines if line and line[0].isalpha()}
    words |= {" ".join(line.split()[:2]) for line in lines if line.startswith(("timeout ", "option "))}
    known = {*PLAIN, "timeout", "option"}
    assert {word for word in words - known if not re.search(rf"`[^`\n]*\b{re.escape(word)}\b", page)} == set()


PLAIN = {
    "user",
    "group",
    "pid",
    "events",
    "http",
    "server",
    "location",
    "global",
    "defaults",
    "frontend",
    "backend",
}
PLAIN |= {
    "upstream",
    "listen",
    "bind",
    "mode",
    "log",
    "acl",
    "default_backend",
    "default_type",
    "return",
    "default",
}
PLAIN |= {"map", "error_log", "worker_processes", "proxy_pass", "add_header"}
"""What needs no explanation, or has it beside it in the file."""


# ---- systemd


def _unit() -> dict[str, list[str]]:
    """The directives of the unit; a name may stand there several times."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "portico.service").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def _one(name: str) -> str:
    (value,) = _unit()[name]
    return value


def test_systemd_finds_nothing_to_say(tmp_path: Path) -> None:
    (analyze,) = needed("systemd-analyze")
    text = (DEPLOY / "portico.service").read_text(encoding="utf-8")
    file = tmp_path / "portico.service"
    file.write_text(
        filled(text, {"ExecStart=/opt/portico/bin/portico ": f"ExecStart={sys.executable} -m portico "})
    )
    done = subprocess.run([analyze, "verify", str(file)], capture_output=True, text=True, timeout=50)
    # It also loads units of this machine that ours needs: what it says of them is not our matter.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "portico" in line]
    assert ours == [] and done.returncode == 0
    file.write_text(file.read_text().replace("KillMode=", "KilMode="))
    done = subprocess.run([analyze, "verify", str(file)], capture_output=True, text=True, timeout=50)
    assert "Unknown key" in done.stderr, "it would have seen a mistake"


def test_the_unit_starts_a_server(served: list[Config], tmp_path: Path) -> None:
    program, *arguments = shlex.split(_one("ExecStart"))
    assert Path(program).name == "portico"
    config = tmp_path / "portico.toml"
    shutil.copy(ROOT / "portico.example.toml", config)
    assert arguments.count("/etc/portico/portico.toml") == 1
    assert main([str(config) if each == "/etc/portico/portico.toml" else each for each in arguments]) == 0
    assert served[0].log_format == "json" and served[0].host == "127.0.0.1"


def test_the_unit_gives_requests_and_engines_their_time() -> None:
    assert float(_one("TimeoutStopSec")) > Config().shutdown_timeout + LAST_WORDS + 2 * END_SECONDS
    assert (
        _one("KillMode") == "mixed"
    )  # control-group: the engines would end with the signal, and their requests
    assert _one("KillSignal") == "SIGTERM" and _one("Restart") == "on-failure"


def test_the_unit_leaves_engines_what_they_need() -> None:
    unit = _unit()
    assert _one("Delegate") == "yes" and _one("OOMPolicy") == "continue" and _one("PrivateTmp") == "yes"
    families = set(_one("RestrictAddressFamilies").split())
    assert families >= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}  # the last: which addresses there are
    breaks = {"PrivateDevices", "DeviceAllow", "DevicePolicy", "ProtectClock", "MemoryDenyWriteExecute"}
    breaks |= {"ProtectControlGroups", "ProcSubset", "PrivateNetwork", "PrivateUsers", "LimitMEMLOCK"}
    assert breaks & set(unit) == set()
    assert _one("User") not in ("root", "0") and _one("NoNewPrivileges") == "yes"
    assert int(_one("LimitNOFILE")) >= 2 * Config().max_connections + 256  # what the server would raise it to
    environment = dict(pair.split("=") for pair in _one("Environment").split())
    assert environment["PORTICO_HOME"] == environment["HOME"] == f"/var/lib/{_one('StateDirectory')}"


def test_a_wrong_config_is_not_tried_again(tmp_path: Path) -> None:
    config = tmp_path / "portico.toml"
    config.write_text("prot = 11434\n")
    command = [sys.executable, "-m", "portico", "serve", "--config", str(config)]
    done = subprocess.run(
        command, capture_output=True, timeout=50, env=plain_environment(tmp_path), cwd=tmp_path
    )
    assert done.returncode == int(_one("RestartPreventExitStatus"))


# ---- Docker


def _instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, as (NAME, the rest on one line)."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = [line.strip().partition(" ") for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def _last(name: str) -> str:
    return [rest for each, rest in _instructions() if each == name][-1]


def _environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(_last("ENV")))


def test_the_dockerfile_is_one() -> None:
    known = {
        "ARG",
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    names = [name for name, _ in _instructions()]
    assert set(names) == known and names[:2] == ["ARG", "FROM"]
    assert names.index("USER") < names.index("ENTRYPOINT") and _last("USER") not in ("root", "0")
    assert json.loads(_last("ENTRYPOINT")) == [
        "portico",
        "serve",
    ]  # a list: no shell between a signal and the server
    assert _last("VOLUME") == _environment()["PORTICO_HOME"]
    assert _environment()["PORTICO_HOST"].endswith(f":{_last('EXPOSE')}")
    assert isinstance(NAMES, click.Choice) and "vllm-cpu" in NAMES.choices


def test_what_the_dockerfile_copies_is_enough_for_a_wheel(tmp_path: Path) -> None:
    copied = [
        rest.split() for name, rest in _instructions() if name == "COPY" and not rest.startswith("--from")
    ]
    assert {each for *sources, _ in copied for each in sources} <= _not_ignored()
    context, out = tmp_path / "src", tmp_path / "wheel"
    for *sources, _ in copied:
        for source in sources:
            target = context / source
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, target)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(context)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("portico-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "portico/models/portico-tiny/portico-tiny.gguf" in archive.namelist()


def _not_ignored() -> set[str]:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    return {line[1:] for line in lines if line.startswith("!")}


def test_a_container_without_keys_does_not_start(tmp_path: Path) -> None:
    environ = plain_environment(tmp_path, **_environment() | {"PORTICO_HOME": str(tmp_path / "home")})
    assert not Path(environ["PORTICO_API_KEY_FILE"]).exists()
    command = [sys.executable, "-m", *json.loads(_last("ENTRYPOINT"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environ, cwd=tmp_path)
    assert done.returncode == 2
    assert environ["PORTICO_API_KEY_FILE"] in done.stderr


def test_a_container_with_keys_asks_for_them_and_is_found_healthy(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# of the first team\nsesame\n")
    own = {
        "PORTICO_API_KEY_FILE": str(keys),
        "PORTICO_HOME": str(tmp_path / "home"),
        "PORTICO_HOST": "127.0.0.1",
    }
    with serve(tmp_path / "server", environ=_environment() | own, key="sesame") as server:
        with pytest.raises(HTTPError) as caught:
            server.ask("GET", "/v1/models", headers={"Authorization": "Bearer guessed"})
        assert caught.value.code == 401
        caught.value.close()
        check = _last("HEALTHCHECK").partition("CMD ")[2].replace(":11434/", f":{server.port}/")
        program, *arguments = json.loads(check)
        assert program == "python"
        command = [sys.executable, *arguments]
        assert subprocess.run(command, timeout=50).returncode == 0
        server.stop()
        assert subprocess.run(command, timeout=50, stderr=subprocess.DEVNULL).returncode == 1


def test_compose_fits_the_other_files() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    proxies = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    servers = set(re.findall(r"server (portico-\d):11434 ", proxies))
    assert set(services) == servers | {"nginx"} and len(servers) == 2
    for name in servers:
        service = services[name]
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert service["stop_grace_period"] == f"{_one('TimeoutStopSec')}s"
        (volume,) = service["volumes"]
        assert volume == f"{name}:{_last('VOLUME')}" and name in compose["volumes"]
        (secret,) = service["secrets"]
        assert (
            f"/run/secrets/{secret}" == _environment()["PORTICO_API_KEY_FILE"]
            and secret in compose["secrets"]
        )
    assert services["nginx"]["volumes"][0].startswith("./nginx.conf:")
