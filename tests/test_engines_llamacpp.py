"""The embedded engine for real, with the bundled model."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from portico.engines import Facts, ModelSpec, llamacpp, sockets
from portico.engines.llamacpp import (
    LlamaCpp,
    LlamaReplica,
    Slots,
    Start,
    cell_bytes,
    complaints,
    describe,
    plan_slots,
)
from portico.engines.supervisor import Supervisor
from portico.errors import EngineStartFailed, UpstreamClosed, UpstreamUnreachable
from portico.library import facts as read_facts
from portico.messages import ChatRequest, Message, Text, Tool
from portico.process import Log, launch
from portico.web import Upstream
from test_process import alive, gone_within

TINY = Path(__file__).parents[1] / "models" / "portico-tiny" / "portico-tiny.gguf"
FACTS = read_facts.read(TINY)
HELLO = ChatRequest(model="tiny", messages=(Message(role="user", parts=(Text(text="Hello!"),)),))


def tiny(**more: Any) -> ModelSpec:
    return ModelSpec(**{"name": "tiny", "engine": "llamacpp", "source": str(TINY), "facts": FACTS, **more})


@asynccontextmanager
async def running(spec: ModelSpec) -> AsyncIterator[LlamaReplica]:
    engine = LlamaCpp()
    replica = await engine.start(spec)
    try:
        yield replica
    finally:
        await engine.stop(replica)


async def post(upstream: Upstream, path: str, **body: Any) -> Any:
    answer = await upstream.fetch("POST", path, json.dumps(body).encode())
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


# ---- what a replica does


async def test_it_chats_counts_and_renders() -> None:
    async with running(tiny(served_name="inner")) as replica:
        assert replica.context == FACTS.context and replica.died() is None
        body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 10, "temperature": 0}
        answer = await post(replica.upstream, "/v1/chat/completions", **body)
        assert answer["model"] == "inner" and answer["choices"][0]["message"]["content"]
        prompt = await replica.render(HELLO)
        assert "Hello!" in prompt and prompt.endswith("assistant\n")
        assert await replica.count(HELLO) == answer["usage"]["prompt_tokens"]
        with_tool = Tool(name="look_up", parameters={"type": "object", "properties": {}})
        assert "look_up" in await replica.render(
            ChatRequest(model="", messages=HELLO.messages, tools=(with_tool,))
        )


async def test_it_tokenizes_there_and_back() -> None:
    async with running(tiny()) as replica:
        text = "héllo <|im_start|> wörld"
        ids = await replica.tokenize(text)
        assert await replica.detokenize(ids) == text
        pieces = await replica.pieces(text)
        assert len(pieces) == len(ids) and "<|im_start|>" in pieces
        assert await replica.tokenize("") == ()


async def test_every_slot_has_the_whole_context() -> None:
    """Four prompts that nearly fill it, all at once: none is refused and none is cut."""
    async with running(tiny(context=512, parallel=4)) as replica:
        assert replica.context == 512

        async def complete(start: int) -> dict[str, int]:
            prompt = [(start + 37 * place) % 900 + 20 for place in range(500)]
            answer = await post(
                replica.upstream, "/v1/completions", prompt=prompt, max_tokens=8, ignore_eos=True
            )
            usage: dict[str, int] = answer["usage"]
            return usage

        used = await asyncio.gather(*(complete(start) for start in range(4)))
        assert [(one["prompt_tokens"], one["completion_tokens"]) for one in used] == [(500, 8)] * 4


async def test_many_connections_do_not_block_each_other() -> None:
    """llama.cpp gives a thread to each connection; with its default of ten, the eleventh waits."""
    async with running(tiny()) as replica:
        body = json.dumps({"prompt": "a", "max_tokens": 100_000, "ignore_eos": True, "stream": True}).encode()
        replies = [await replica.upstream.request("POST", "/v1/completions", body) for _ in range(4)]
        waiting = [
            asyncio.ensure_future(replica.upstream.request("POST", "/v1/completions", body))
            for _ in range(40)
        ]
        async with asyncio.timeout(5):
            assert (await replica.upstream.fetch("GET", "/health")).status == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for reply in replies:
            reply.close()


async def test_embeddings_of_a_model_made_for_them() -> None:
    facts = Facts(context=1024, architecture="qwen3", capabilities=("embedding",))
    async with running(tiny(facts=facts)) as replica:
        answer = await post(replica.upstream, "/v1/embeddings", input=["hello", "hello " * 400])
        assert [len(one["embedding"]) for one in answer["data"]] == [256, 256]


async def test_another_chat_template() -> None:
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}>>"
    async with running(tiny(chat_template=template)) as replica:
        assert (await replica.render(HELLO)).strip() == "[user] Hello! >>"


async def test_a_broken_chat_template_is_an_error_with_its_reason() -> None:
    with pytest.raises(EngineStartFailed) as caught:
        async with running(tiny(chat_template="{% for m in messages %}{{ m.content }}")):
            pass
    assert "template" in str(caught.value).lower()


# ---- who can reach it


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets for this there")
async def test_only_we_can_reach_it() -> None:
    async with running(tiny()) as replica:
        assert replica.upstream.url.startswith("unix:///") and replica.socket is not None
        folder = Path(replica.socket).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        stranger = Upstream(replica.upstream.url)
        asked = {path: (await stranger.fetch("GET", path)).status for path in ("/", "/slots", "/metrics")}
        assert asked == {"/": 404, "/slots": 401, "/metrics": 401}  # 404: no UI
        assert (await stranger.fetch("POST", "/v1/completions", b"{}")).status == 401
        stranger.close()
        if sys.platform == "linux":  # everybody on the machine may read a command line
            with open(f"/proc/{replica.pid}/cmdline", "rb") as line:  # noqa: ASYNC230
                assert replica.key.encode() not in line.read()
    assert not os.path.exists(replica.socket)  # noqa: ASYNC240


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of a name short enough for a socket, wherever the tests' own folders are."""
    with tempfile.TemporaryDirectory(prefix="p-") as name:
        yield Path(name)


def bound(path: Path) -> socket.socket:
    """An engine that starts: vLLM's socket has its name long before anybody listens."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.utime(path, (time.time() - 3600,) * 2)
    return listener


def of_another(path: str, pid: int) -> Path:
    """The same name as if the server with that number had made it."""
    place, _, rest = Path(path).name.split("-", 2)
    return Path(path).with_name(f"{place}-{pid}-{rest}")


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets for this there")
def test_the_socket_of_an_engine_that_is_still_starting_is_left_alone(folder: Path) -> None:
    path = sockets.new(folder)
    assert path is not None
    with bound(Path(path)):
        other = sockets.new(folder)
        assert other != path and Path(path).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets for this there")
def test_the_sockets_of_servers_that_are_gone_are_swept(folder: Path) -> None:
    """By their number and when they began: the number alone may be another process's by now."""
    made = sockets.new(folder)
    assert made is not None
    left = [of_another(made, 2**22 + 1), of_another(made, 1)]
    for path in left:
        bound(path).close()
    sockets.new(folder)
    assert not any(path.exists() for path in left)


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets for this there")
def test_the_sockets_of_servers_that_cannot_be_seen_from_here(folder: Path) -> None:
    """Of another container, or of a time before the machine's start: kept for a day, and while somebody listens."""
    paths = [folder / f"elsewhere-{name}-0.sock" for name in ("starting", "dead", "alive")]
    listeners = [bound(path) for path in paths]
    listeners[2].listen()
    for path in paths[1:]:
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    sockets.new(folder)
    assert [path.exists() for path in paths] == [True, False, True]
    for listener in listeners:
        listener.close()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    assert sockets.new(folder) is None


# ---- crashes


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
async def test_a_crash_ends_requests_at_once_and_the_next_is_served(number: int) -> None:
    supervisor = Supervisor({"llamacpp": LlamaCpp()})
    lease = await supervisor.ensure_ready(spec := tiny())
    replica = lease.replica
    assert replica.pid is not None
    body = json.dumps({"prompt": "a", "max_tokens": 100_000, "ignore_eos": True, "stream": True}).encode()
    reply = await replica.upstream.request("POST", "/v1/completions", body)
    await reply.chunk()
    began = time.monotonic()
    os.kill(replica.pid, number)
    with pytest.raises(UpstreamClosed):
        while await reply.chunk():
            pass
    while replica.died() is None and time.monotonic() - began < 5:  # noqa: ASYNC110 - a replica sends no event
        await asyncio.sleep(0.001)
    seen = time.monotonic() - began
    assert seen < 0.5  # 25 ms on an idle machine
    assert signal.Signals(number).name in (replica.died() or "")
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in (replica.died() or "")
    status = supervisor.states()[0]
    assert status.state in ("failed", "starting") and status.error == replica.died()
    again = await supervisor.ensure_ready(spec)
    assert again.replica.pid != replica.pid
    assert (await again.replica.upstream.fetch("GET", "/health")).status == 200
    lease.release()
    await supervisor.stop()
    assert not alive(again.replica.pid or 0)


async def test_a_cancelled_start_leaves_no_process() -> None:
    engine, before = LlamaCpp(), children()
    starting = asyncio.ensure_future(engine.start(tiny()))
    while children() == before:  # noqa: ASYNC110 - the kernel sends no event
        await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    for pid in children() - before:
        await asyncio.to_thread(gone_within, pid, 2.0)


async def test_a_load_goes_on_as_long_as_its_process_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    monkeypatch.setattr(llamacpp, "LOOK_SECONDS", 0.02)
    loading = "import time\nheld = []\nwhile len(held) < 500: held.append(b'x' * 99999); time.sleep(0.005)"
    child = launch([sys.executable, "-c", loading], log=Log())
    seen, often = 0, asyncio.Event()

    def progressed() -> None:
        nonlocal seen
        seen += 1
        if seen > 5:
            often.set()

    waiting = asyncio.ensure_future(llamacpp.announcement(child, progressed))
    await asyncio.wait_for(often.wait(), 20)
    child.signal(signal.SIGSTOP)  # as a read from a disk that hangs
    await asyncio.sleep(0.2)
    before = seen
    await asyncio.sleep(0.2)
    assert seen == before and not waiting.done()
    await child.kill()
    assert await waiting is None


def children() -> set[int]:
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in found.split()}


SERVER = """
import asyncio, sys
from pathlib import Path
from portico.engines import Facts, ModelSpec
from portico.engines.llamacpp import LlamaCpp

async def main():
    spec = ModelSpec(name="tiny", engine="llamacpp", source=sys.argv[1], facts=Facts(context=4096))
    replica = await LlamaCpp().start(spec)
    body = b'{"prompt": "a", "max_tokens": 100000, "ignore_eos": true, "stream": true}'
    reply = await replica.upstream.request("POST", "/v1/completions", body)
    print(replica.pid, flush=True)
    while await reply.chunk():
        pass

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_a_killed_server_leaves_no_engine() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(TINY)], stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
        server.wait()
    gone_within(pid, 1.0)


# ---- files that are no model


def whole() -> bytes:
    return TINY.read_bytes()


def patched(key: str, number: int) -> bytes:
    """The model with another value for an unsigned 32 bit key."""
    named = struct.pack("<Q", len(key)) + key.encode()
    at = whole().index(named) + len(named) + 4
    return whole()[:at] + struct.pack("<I", number) + whole()[at + 4 :]


BEYOND = ("tensor '", "exceeds maximum")
"""What is said of a table of tensors that goes on into the weights hangs on their bytes."""
DAMAGED: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "wrong magic": (lambda: b"GGML" + whole()[4:], ("invalid magic characters: 'GGML'",)),
    "a web page": (lambda: b"<html>404</html>", ("invalid magic characters: '<htm'",)),
    "empty": (lambda: b"", ("failed to read magic",)),
    "only a header": (lambda: whole()[:10], ("failed to read header",)),
    "half the metadata": (lambda: whole()[:3000], ("failed to read key-value pairs",)),
    "half the weights": (lambda: whole()[: len(whole()) // 2], ("corrupted or incomplete",)),
    "10^15 keys": (lambda: whole()[:16] + struct.pack("<Q", 10**15) + whole()[24:], ("exceeds maximum",)),
    "10^15 tensors": (lambda: whole()[:8] + struct.pack("<Q", 10**15) + whole()[16:], BEYOND),
    "from the future": (lambda: whole()[:4] + struct.pack("<I", 99) + whole()[8:], ("version 99",)),
    "10^9 blocks": (lambda: patched("qwen3.block_count", 10**9), ("GGML_ASSERT(",)),
    "10^9 wide": (lambda: patched("qwen3.embedding_length", 10**9), ("wrong shape",)),
}


@pytest.mark.parametrize("damage", DAMAGED)
async def test_a_damaged_file_is_refused_with_the_reason(damage: str, tmp_path: Path) -> None:
    make, reasons = DAMAGED[damage]
    path = tmp_path / "model.gguf"
    path.write_bytes(make())
    began = time.monotonic()
    with pytest.raises(EngineStartFailed) as caught:
        await LlamaCpp().start(tiny(source=str(path)))
    assert any(reason in caught.value.reason for reason in reasons)
    assert caught.value.exit_code not in (0, None)
    assert time.monotonic() - began < 2


async def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EngineStartFailed, match="No such file or directory"):
        await LlamaCpp().start(tiny(source=str(tmp_path / "none.gguf")))


async def test_its_file_is_kept_while_it_runs(tmp_path: Path) -> None:
    held: list[str] = []

    def hold(path: str) -> Callable[[], None]:
        held.append(path)
        return held.clear

    engine = LlamaCpp(hold=hold)
    replica = await engine.start(tiny())
    assert held == [str(TINY)]
    await engine.stop(replica)
    assert not held
    (tmp_path / "model.gguf").write_bytes(b"GGML")
    with pytest.raises(EngineStartFailed):
        await engine.start(tiny(source=str(tmp_path / "model.gguf")))
    assert not held


async def test_the_log_is_kept(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGML")
    with pytest.raises(EngineStartFailed):
        await LlamaCpp(logs=tmp_path / "logs").start(
            tiny(name="Org/Model:8b", source=str(tmp_path / "model.gguf"))
        )
    assert "invalid magic" in (tmp_path / "logs" / "Org_Model_8b.log").read_text()


async def test_a_stopped_replica_refuses_requests() -> None:
    async with running(tiny()) as replica:
        pass
    with pytest.raises(UpstreamUnreachable):
        await replica.upstream.fetch("GET", "/health")


# ---- decisions, as values

SHAPE = {
    "llama.block_count": 16,
    "llama.embedding_length": 2048,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}
LLAMA_1B = Facts(architecture="llama", context=131_072, size=1 << 30, metadata=SHAPE)
GB = 1 << 30


def test_a_token_of_context_takes_what_llamacpp_says() -> None:
    assert cell_bytes(LLAMA_1B) == 16 * 8 * (64 + 64) * 2 == 32 * 1024
    assert cell_bytes(FACTS) == 6 * 2 * (64 + 64) * 2  # 48 MB for 16,384 cells, as its log says
    assert cell_bytes(Facts()) == 0


@pytest.mark.parametrize(
    ("free", "context", "slots"),
    [
        (64 * GB, None, Slots(context=131_072, parallel=4)),
        (None, None, Slots(context=131_072, parallel=4)),
        (20 * GB, None, Slots(context=131_072, parallel=2)),  # 4 GB a slot, half of 19 for them
        (3 * GB, None, Slots(context=32_768, parallel=1)),
        (3 * GB, 8192, Slots(context=8192, parallel=4)),
        (3 * GB, 20_000, Slots(context=20_000, parallel=1)),
        (64 * GB, 1_000_000, Slots(context=131_072, parallel=4)),  # it was not trained for more
    ],
)
def test_slots_by_memory(free: int | None, context: int | None, slots: Slots) -> None:
    spec = ModelSpec(name="m", engine="llamacpp", source="", facts=LLAMA_1B, context=context)
    assert plan_slots(spec, free) == slots


@pytest.mark.parametrize(
    ("facts", "context", "free", "reason"),
    [
        (LLAMA_1B, None, GB, "1.0 GB for its weights"),
        (LLAMA_1B, 60_000, 3 * GB, "a context of 60000 tokens"),
        (Facts(context=2**31), None, None, "a context of 2147483648 tokens is not possible"),
    ],
)
def test_too_large_for_this_machine(facts: Facts, context: int | None, free: int | None, reason: str) -> None:
    spec = ModelSpec(name="m", engine="llamacpp", source="", facts=facts, context=context)
    with pytest.raises(EngineStartFailed, match=reason):
        plan_slots(spec, free)


def test_what_the_child_is_told() -> None:
    def told(spec: ModelSpec, slots: Slots = Slots(context=4096, parallel=4)) -> Any:  # noqa: B008
        return describe(spec, slots, cores=8, socket="/s", key="k")

    few, many = told(tiny()), told(tiny(facts=LLAMA_1B))
    assert (few.threads, few.batch_threads, many.threads, many.batch_threads) == (1, 8, 8, 8)
    assert told(tiny(threads=3)).threads == 3
    assert (few.cells, few.parallel, few.unified) == (16_384, 4, False)
    nothing_known = told(tiny(), Slots(context=0, parallel=4))
    assert (nothing_known.cells, nothing_known.unified) == (0, True)
    bert = Facts(architecture="bert", capabilities=("embedding",), metadata={"bert.pooling_type": 2})
    assert (told(tiny(facts=bert)).batch, told(tiny(facts=bert)).pooling) == (4096, None)
    last = Facts(architecture="qwen3", capabilities=("embedding",), metadata={"qwen3.pooling_type": 3})
    assert told(tiny(facts=last)).batch == 0
    assert not few.embedding and few.pooling is None


def test_the_benchmark_tells_the_child_the_same() -> None:
    """It starts the child itself, beside Portico."""
    source = (Path(__file__).parents[1] / "benchmarks" / "engine_bench.py").read_text()
    (told,) = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "start"
    ]
    assert set(ast.literal_eval(ast.unparse(ast.List(told.keys)))) == set(Start.__struct_fields__)  # type: ignore[attr-defined]


def test_complaints() -> None:
    log = [
        "0.00.003.056 W srv          init: a warning",
        "0.00.005.691 E llama_model_load: error loading model: unknown model architecture: 'x'",
        "0.00.006.766 E llama_model_load: error loading model: unknown model architecture: 'x'",
        "0.00.006.768 E cmn  common_init_: failed to load model 'm'",
        "/src/llama-model.cpp:1356: GGML_ASSERT(n > 0) failed",
    ]
    said = ["unknown model architecture: 'x'", "failed to load model 'm'", "GGML_ASSERT(n > 0) failed"]
    assert complaints(log) == said
