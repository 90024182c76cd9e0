"""A stand-in for vLLM: a real process tree that takes vLLM's arguments, writes its log and speaks its HTTP.

    python -m fake_vllm --model M --served-model-name M --uds PATH [what is to go wrong]

As vLLM it is two processes: this one answers HTTP, and a core below it makes the tokens. So a core that is stopped
leaves /health at 200, and one that is killed takes the server along. It answers with the words of the last user
message, over and over, one token each. tests/test_vllm_real.py compares its answers with vLLM's own, field by field.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

CONTEXT = 4096
ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
Json = dict[str, Any]


def arguments(argv: list[str]) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="fake_vllm", allow_abbrev=False)
    p.add_argument("--model", required=True)
    p.add_argument("--served-model-name", nargs="+")
    p.add_argument("--uds")
    p.add_argument("--host")
    p.add_argument("--port", type=int)
    p.add_argument("--max-model-len", default="auto")
    p.add_argument("--lora-modules", nargs="+", default=[])
    for flag in ("enable-prefix-caching", "enable-prompt-tokens-details", "disable-uvicorn-access-log"):
        p.add_argument(f"--{flag}", action="store_true")
    for flag in ("enforce-eager", "enable-auto-tool-choice", "enable-sleep-mode", "enable-lora"):
        p.add_argument(f"--{flag}", action="store_true")
    for option in ("tool-call-parser", "reasoning-parser", "chat-template", "dtype", "quantization"):
        p.add_argument(f"--{option}")
    for option in (
        "gpu-memory-utilization",
        "kv-cache-memory-bytes",
        "max-num-seqs",
        "max-num-batched-tokens",
    ):
        p.add_argument(f"--{option}")
    for option in ("tensor-parallel-size", "pipeline-parallel-size"):
        p.add_argument(f"--{option}")
    # What is to go wrong.
    p.add_argument("--slow-start", type=float, default=0.0, help="seconds until it is ready")
    p.add_argument("--token-seconds", type=float, default=0.002)
    p.add_argument("--crash-after", type=int, default=0, help="tokens after which the core kills itself")
    p.add_argument("--hang", type=int, default=0, help="tokens after which the core makes no more")
    p.add_argument("--spin", action="store_true", help="... and uses the CPU meanwhile")
    p.add_argument("--ignore-sigterm", action="store_true")
    p.add_argument("--busy", type=int, default=0, help="requests that are refused with vLLM's 503 first")
    p.add_argument("--oom", action="store_true", help="does not start: the memory is too small")
    p.add_argument("--oom-while", metavar="FILE", help="the same while this file is there")
    p.add_argument(
        "--fatal", metavar="FILE", help="its core fails for good at a request while this file is there"
    )
    p.add_argument("--sleepable", action="store_true")
    p.add_argument(
        "--stay-after-core", action="store_true", help="the server outlives its core, and is of no use"
    )
    return p.parse_args(argv)


def say(text: str, who: str = "APIServer") -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    print(f"({who} pid={os.getpid()}) INFO {stamp} [fake.py:1] {text}", file=sys.stderr, flush=True)


# ---- the core: makes tokens --------------------------------------------------------------------


def core(options: argparse.Namespace) -> None:
    """Reads `make ID COUNT` and `drop ID`, writes `token ID` and `end ID`."""
    os.set_blocking(0, False)
    left: dict[str, int] = {}
    pending, made = b"", 0
    while True:
        with suppress(BlockingIOError):
            piece = os.read(0, 65536)
            if not piece:
                return
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                verb, name, *count = line.decode().split()
                if verb == "make":
                    left[name] = int(count[0])
                else:
                    left.pop(name, None)
        for name in list(left):
            if options.crash_after and made >= options.crash_after:
                os.kill(os.getpid(), signal.SIGKILL)
            while options.hang and made >= options.hang:
                if not options.spin:
                    time.sleep(0.05)
            made += 1
            left[name] -= 1
            out = f"token {name}\n"
            if not left[name]:
                del left[name]
                out += f"end {name}\n"
            os.write(1, out.encode())
        time.sleep(options.token_seconds if left else 0.002)


# ---- the server: answers HTTP ------------------------------------------------------------------


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.adapters = [name.partition("=")[0] for name in options.lora_modules]
        self.names = [*(options.served_model_name or [options.model]), *self.adapters]
        self.context = CONTEXT if options.max_model_len == "auto" else int(options.max_model_len)
        self.queues: dict[str, asyncio.Queue[bool]] = {}
        self.numbers = 0
        self.running = 0
        self.tokens = self.steps = self.prompt_tokens = 0
        self.refusals = options.busy
        self.asleep = self.failed = False
        self.key = os.environ.get("VLLM_API_KEY")
        self.core: asyncio.subprocess.Process | None = None
        self.down = asyncio.Event()

    async def start_core(self) -> None:
        self.core = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            *sys.argv[1:],
            "--as-core",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        asyncio.get_running_loop().create_task(self._follow_core())

    async def _follow_core(self) -> None:
        assert self.core is not None and self.core.stdout is not None
        async for line in self.core.stdout:
            verb, name = line.decode().split()
            queue = self.queues.get(name)
            if verb == "token":
                self.tokens += 1
                self.steps += 1
            if queue is not None:
                queue.put_nowait(verb == "token")
        if not self.options.stay_after_core:
            say("EngineCore died unexpectedly.")
            self.down.set()

    def tell_core(self, line: str) -> None:
        assert self.core is not None and self.core.stdin is not None
        self.core.stdin.write(line.encode() + b"\n")

    async def made(self, count: int) -> Any:
        """A tick for each token of a generation; leaving it aborts that."""
        self.numbers += 1
        name = str(self.numbers)
        queue = self.queues[name] = asyncio.Queue()
        self.tell_core(f"make {name} {count}")
        self.running += 1
        try:
            while await queue.get():
                yield
        finally:
            self.running -= 1
            del self.queues[name]
            self.tell_core(f"drop {name}")

    # ---- routes

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, out: Out) -> None:
        path, _, query = path.partition("?")
        if path.startswith("/v1") and self.key and headers.get("authorization") != f"Bearer {self.key}":
            return out.whole(401, {"error": "Unauthorized"})
        given: Json = json.loads(body) if body else {}
        routes: dict[str, Callable[[Json, Out], Awaitable[None]]] = {
            "POST /v1/chat/completions": self.chat,
            "POST /v1/completions": self.completions,
            "POST /tokenize": self.tokenize,
            "POST /detokenize": self.detokenize,
        }
        if handle := routes.get(f"{method} {path}"):
            if self.asleep:
                await asyncio.Event().wait()
            if path.startswith("/v1") and self.refusals:
                self.refusals -= 1
                return out.error(
                    503, "The engine is currently busy. Try on a different instance.", "ServiceUnavailable"
                )
            if self.fails_now():  # its processes live on for a while
                if not given.get("stream"):
                    return out.error(500, ENGINE_DEAD, "InternalServerError")
                out.begin()  # vLLM sends the head before it asks its core
                await out.event(
                    {"error": {"message": ENGINE_DEAD, "type": "InternalServerError", "code": 500}}
                )
                await out.event("[DONE]")
                return out.end()
            return await handle(given, out)
        if path in ("/health", "/ping"):
            return out.whole(200, None)
        if path == "/v1/models":
            return out.whole(200, {"object": "list", "data": [self._card(name) for name in self.names]})
        if path == "/metrics":
            return out.text(self._metrics())
        if path == "/version":
            return out.whole(200, {"version": "0.32.0"})
        if self.options.sleepable and os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
            if path == "/sleep":
                self.asleep = True
                say(f"asleep {query}")
                return out.whole(
                    200, {"status": "sleeping", "level": int(parse_qs(query).get("level", ["1"])[0])}
                )
            if path == "/wake_up":
                self.asleep = query == "tags=weights"
                say(f"awake {query}")
                return out.whole(200, {"status": "sleeping" if self.asleep else "awake", "tags": None})
            if path == "/is_sleeping":
                return out.whole(200, {"is_sleeping": self.asleep})
            if path in ("/collective_rpc", "/reset_prefix_cache"):
                say(f"did {path}")
                return out.whole(200, {})
        out.whole(404, {"detail": "Not Found"})

    def fails_now(self) -> bool:
        if self.options.fatal and os.path.exists(self.options.fatal):
            os.unlink(self.options.fatal)
            self.failed = True
        return self.failed

    def _card(self, name: str) -> Json:
        return {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": self.options.model,
            "parent": None,
            "max_model_len": self.context,
            "permission": [],
        }

    def _metrics(self) -> bytes:
        labels = f'{{engine="0",model_name="{self.names[0]}"}}'
        rows = {
            "num_requests_running": self.running,
            "num_requests_waiting": 0,
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.tokens,
            "iteration_tokens_total_count": self.steps,
            "kv_cache_usage_perc": 0.0,
        }
        return "".join(f"vllm:{name}{labels} {float(value)}\n" for name, value in rows.items()).encode()

    async def chat(self, given: Json, out: Out) -> None:
        words = str(given["messages"][-1]["content"]).split() or ["..."]
        prompt = sum(len(str(message.get("content")).split()) + 4 for message in given["messages"])
        await self._generate(given, out, words, prompt, "chatcmpl")

    async def completions(self, given: Json, out: Out) -> None:
        prompt = given["prompt"]
        words = prompt.split() or ["..."] if isinstance(prompt, str) else [str(token) for token in prompt]
        await self._generate(given, out, words, len(words), "cmpl")

    async def _generate(self, given: Json, out: Out, words: list[str], prompt: int, kind: str) -> None:
        if given.get("model") not in self.names:
            return out.error(404, f"The model `{given.get('model')}` does not exist.", "NotFoundError")
        if given["model"] in self.adapters:
            words = [given["model"], *words]  # what it learned is to say who it is
        limit = given.get("max_completion_tokens") or given.get("max_tokens")
        if prompt + (limit or 1) > self.context:
            message = (
                f"This model's maximum context length is {self.context} tokens. However, you requested "
                f"{limit or 0} output tokens and your prompt contains {prompt} input tokens, for a total of "
                f"{prompt + (limit or 0)} tokens. Please reduce the length of the input prompt or the number "
                "of requested output tokens."
            )
            return out.error(400, message, "BadRequestError")
        self.prompt_tokens += prompt
        count = limit or len(words)
        finish = "length" if (limit and limit < len(words)) or given.get("ignore_eos") else "stop"
        count = count if given.get("ignore_eos") else min(count, len(words))
        head = {"id": f"{kind}-{self.numbers + 1:x}", "created": int(time.time()), "model": given["model"]}
        usage = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + count,
            "completion_tokens": count,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_tokens_details": {"cached_tokens": 0, "created_cache_tokens": 0},
        }
        pieces = [words[at % len(words)] + (" " if at + 1 < count else "") for at in range(count)]
        shapes = _Chat(head) if kind == "chatcmpl" else _Text(head)
        if not given.get("stream"):
            async for _ in self.made(count):
                pass
            return out.whole(200, shapes.whole("".join(pieces), finish, usage))
        wants = (given.get("stream_options") or {}).get("include_usage")
        out.begin()
        for first in shapes.first():
            await out.event(first)
        at = 0
        async for _ in self.made(count):
            at += 1
            await out.event(shapes.piece(pieces[at - 1], finish if at == count else None))
        if wants:
            await out.event(shapes.usage(usage))
        await out.event("[DONE]")
        out.end()

    async def tokenize(self, given: Json, out: Out) -> None:
        text = given.get("prompt")
        if text is None:
            text = " ".join(str(message.get("content")) for message in given["messages"])
        tokens = list(range(len(text.split())))
        out.whole(
            200, {"count": len(tokens), "max_model_len": self.context, "tokens": tokens, "token_strs": None}
        )

    async def detokenize(self, given: Json, out: Out) -> None:
        out.whole(200, {"prompt": " ".join(map(str, given["tokens"]))})


class _Chat:
    def __init__(self, head: Json) -> None:
        self._head = head

    def first(self) -> list[Json]:
        return [{**self._chunk({"role": "assistant", "content": ""}, None), "prompt_text": None}]

    def piece(self, text: str, finish: str | None) -> Json:
        return self._chunk({"content": text}, finish)

    def usage(self, usage: Json) -> Json:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def whole(self, text: str, finish: str, usage: Json) -> Json:
        message = {"role": "assistant", "content": text, "reasoning": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish,
            "stop_reason": None,
        }
        usage["prompt_tokens_details"]["multimodal_tokens"] = None
        told = {"ec_transfer_params": None, "metrics": None, "prompt_text": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage, **told}

    def _chunk(self, delta: Json, finish: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if finish is not None:
            choice["stop_reason"] = None
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


class _Text:
    """Completions, whose usage has fewer details."""

    def __init__(self, head: Json) -> None:
        self._head = {**head, "object": "text_completion"}

    def first(self) -> list[Json]:
        return []

    def piece(self, text: str, finish: str | None) -> Json:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        return {**self._head, "choices": [choice]}

    def usage(self, usage: Json) -> Json:
        del usage["completion_tokens_details"]
        usage["prompt_tokens_details"] = {"cached_tokens": 0}
        return {**self._head, "choices": [], "usage": usage}

    def whole(self, text: str, finish: str, usage: Json) -> Json:
        details = {"cached_tokens": 0, "created_cache_tokens": None, "multimodal_tokens": None}
        usage |= {"completion_tokens_details": None, "prompt_tokens_details": details}
        return {**self.piece(text, finish), "usage": usage, "ec_transfer_params": None, "metrics": None}


class Out:
    """One reply."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def whole(self, status: int, body: Json | None) -> None:
        self._send(status, json.dumps(body).encode() if body is not None else b"", "application/json")

    def error(self, status: int, message: str, kind: str) -> None:
        self.whole(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})

    def text(self, body: bytes) -> None:
        self._send(200, body, "text/plain; version=0.0.4")

    def begin(self) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        self._writer.write(head.encode())

    async def event(self, content: Json | str) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        data = f"data: {text}\n\n".encode()
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)


async def connection(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    early = b""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while head := early + await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode().split("\r\n")
            method, path, _ = first.split()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            answering = asyncio.ensure_future(server.answer(method, path, headers, body, Out(writer)))
            gone = asyncio.ensure_future(reader.read(1))
            await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():  # the caller has left
                answering.cancel()
                with suppress(asyncio.CancelledError):
                    await answering
                break
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            early = gone.result() if gone.done() and not gone.cancelled() else b""
            answering.result()
            await writer.drain()
    writer.close()


async def serve(options: argparse.Namespace) -> int:
    say(f"non-default args: {{'model': '{options.model}'}}")
    if options.oom:
        text = "Available KV cache memory: -1.00 GiB"
        say(text, "EngineCore")
        print(
            f"(EngineCore pid={os.getpid()}) ValueError: No available memory for the cache blocks. Try increasing "
            "`gpu_memory_utilization` when initializing the engine.",
            file=sys.stderr,
            flush=True,
        )
        return 1
    server = Server(options)
    await server.start_core()
    say(f"Starting to load model {options.model}...", "EngineCore")
    await asyncio.sleep(options.slow_start)
    say("Model loading took 0.01 GiB memory and 0.1 seconds", "EngineCore")
    say("init engine (profile, create kv cache, warmup model) took 0.10 s", "EngineCore")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await connection(server, reader, writer)

    if options.uds:
        listening = await asyncio.start_unix_server(connected, options.uds)
    else:
        listening = await asyncio.start_server(connected, options.host, options.port)
    print("INFO:     Application startup complete.", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGTERM, server.down.set)
    await server.down.wait()
    listening.close()
    if server.core is not None and server.core.returncode is None:
        server.core.kill()
    return 0


if __name__ == "__main__":
    if sys.argv[-1] == "--as-core":
        core(arguments(sys.argv[1:-1]))
    else:
        options = arguments(sys.argv[1:])
        options.oom = options.oom or bool(options.oom_while and os.path.exists(options.oom_while))
        os._exit(asyncio.run(serve(options)))
