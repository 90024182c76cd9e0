"""Asks different engines the same questions and counts where their answers are the same.

    python -m recipe.compare run --engine llamacpp          in Portico's environment
    python -m recipe.compare run --engine transformers      where torch and transformers are
    python -m recipe.compare run --engine transformers --dtype bfloat16
    python -m recipe.compare run --engine vllm --python /path/to/vllm/bin/python
    python -m recipe.compare report                         the pairs and every difference, as Markdown

Each run leaves its answers in a folder (--answers), so that the engines need not be there at once. All of them
answer the same 100 questions greedily: llama.cpp reads the GGUF file, the others the safetensors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from recipe import requests
from recipe.questions import Asked, fixed
from recipe.sample import Message, called, right
from recipe.serving import FOLDER, MODEL, last_lines, parallel, serve

QUESTIONS, PURPOSE = 100, "comparison"
ANSWERS = FOLDER / "comparison"
START_SECONDS, ANSWER_SECONDS = 600.0, 300.0
AT_ONCE = 4
Told = dict[str, Any]


def told(message: Message, reason: str) -> Told:
    """What is compared of an answer. Ids of calls are random."""
    return {
        "content": (message.get("content") or "").strip(),
        "reasoning": (message.get("reasoning_content") or "").strip(),
        "calls": [[name, arguments] for name, arguments in called(message)],
        "finish_reason": reason,
    }


# ---- engines that are asked by HTTP


def ask_server(url: str, asked: Sequence[Asked], model: str) -> dict[str, Told]:
    import httpx2

    async def one(client: httpx2.AsyncClient, each: Asked, gate: asyncio.Semaphore) -> tuple[str, Told]:
        path, body = requests.request(each.sample, model=model)
        async with gate:
            reply = await client.post(path, json=body)
        if reply.status_code != 200:
            return each.name, {"error": f"{reply.status_code} {reply.text[:300]}"}
        return each.name, told(*requests.answer(path, reply.json()))

    async def everything() -> dict[str, Told]:
        gate = asyncio.Semaphore(AT_ONCE)
        async with httpx2.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, trust_env=False) as client:
            return dict(await asyncio.gather(*(one(client, each, gate) for each in asked)))

    return asyncio.run(everything())


def run_llamacpp(folder: Path, asked: Sequence[Asked], options: argparse.Namespace) -> dict[str, Told]:
    with serve(folder / MODEL.name, *parallel(AT_ONCE)) as server:
        return ask_server(server.url, asked, "default")


def run_vllm(folder: Path, asked: Sequence[Asked], options: argparse.Namespace) -> dict[str, Told]:
    if options.url:
        return ask_server(options.url, asked, folder.name)
    with vllm(folder, options.python) as url:
        return ask_server(url, asked, folder.name)


@contextmanager
def vllm(folder: Path, python: str) -> Iterator[str]:
    """vLLM's own server, as docs tell to start it for this model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *vllm_arguments(folder),
        "--port",
        str(port),
    ]
    with tempfile.TemporaryDirectory(prefix="portico-tiny-") as home:
        log = Path(home) / "vllm.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url, process, log)
            yield url
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, which it may leave behind
            process.wait()


def vllm_arguments(folder: Path) -> list[str]:
    return [
        *("--model", str(folder), "--served-model-name", folder.name),
        *("--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager", "--max-num-seqs", "8"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--reasoning-parser", "deepseek_v3"),  # like the template it thinks only when enable_thinking is on
    ]


def wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import httpx2

    started = time.monotonic()
    while time.monotonic() - started < START_SECONDS:
        if process.poll() is not None:
            raise SystemExit(f"vLLM ended with exit code {process.returncode}:\n{last_lines(log, 40)}")
        try:
            if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.5)
    raise SystemExit(f"vLLM was not ready in {START_SECONDS:.0f} s:\n{last_lines(log, 40)}")


# ---- transformers


def run_transformers(folder: Path, asked: Sequence[Asked], options: argparse.Namespace) -> dict[str, Told]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from recipe import render

    torch.set_num_threads(1)  # so small a model is slower on two cores: they wait for each other
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.dtype))
    ends = model.generation_config.eos_token_id
    found = {}
    for each in asked:
        sample = each.sample
        ids = tokenizer(render.prompt(sample), return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            made = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=sample.max_tokens
            )
        answer = made[0, ids.shape[1] :].tolist()
        over = bool(answer) and answer[-1] in ends
        text = tokenizer.decode(answer[:-1] if over else answer)
        raw = sample.completion is not None
        message = {"content": text} if raw else parsed(text, thinking=sample.thinking)
        reason = ("tool_calls" if message.get("tool_calls") else "stop") if over else "length"
        found[each.name] = told(message, reason)
    return found


def parsed(text: str, *, thinking: bool) -> Message:
    """The text of an answer as a message: reasoning up to </think>, and calls as Hermes writes them."""
    reasoning = ""
    if thinking:
        reasoning, closed, after = text.partition("</think>")
        text = after if closed else ""
    calls = []
    content, *blocks = text.split("<tool_call>")
    for block in blocks:
        try:
            call = json.loads(block.partition("</tool_call>")[0])
            calls.append({"function": {"name": call["name"], "arguments": call["arguments"]}})
        except (ValueError, KeyError, TypeError):
            return {"content": text, "reasoning_content": reasoning}
    return {"content": content, "reasoning_content": reasoning, "tool_calls": calls}


ENGINES: dict[str, Callable[[Path, Sequence[Asked], argparse.Namespace], dict[str, Told]]] = {
    "llamacpp": run_llamacpp,
    "vllm": run_vllm,
    "transformers": run_transformers,
}


# ---- what is told


def report(runs: dict[str, dict[str, Told]], asked: Sequence[Asked]) -> str:
    samples = {each.name: each.sample for each in asked}
    lines = [f"{len(samples)} questions, answered greedily.", ""]
    lines += ["| engines | the same answer | |", "|---|--:|---|"]
    differing: dict[str, None] = {}
    for one, other in combinations(runs, 2):
        shared = [name for name in samples if name in runs[one] and name in runs[other]]
        odd = [name for name in shared if runs[one][name] != runs[other][name]]
        differing |= dict.fromkeys(odd)
        lines.append(
            f"| {one}, {other} | {len(shared) - len(odd)} of {len(shared)} | {', '.join(odd) or ''} |"
        )
    lines += ["", "| engine | exactly right |", "|---|--:|"]
    for engine, answers in runs.items():
        hits = sum(
            right(samples[name], as_message(told)) for name, told in answers.items() if name in samples
        )
        lines.append(f"| {engine} | {hits} of {len(answers)} |")
    for name in differing:
        sample = samples[name]
        before = sample.completion if sample.completion is not None else sample.prompt[-1].get("content", "")
        lines += ["", f"**{name}**: `{shown(before[-200:])}`; wanted `{shown(wanted(sample.answer))}`", ""]
        lines += [f"- {engine}: `{shown(short(answers.get(name)))}`" for engine, answers in runs.items()]
    return "\n".join(lines)


def as_message(answer: Told) -> Message:
    calls = [{"function": {"name": name, "arguments": said}} for name, said in answer.get("calls", [])]
    return {
        "content": answer.get("content", ""),
        "reasoning_content": answer.get("reasoning", ""),
        "tool_calls": calls,
    }


def wanted(message: Message) -> str:
    return short(told(message, "tool_calls" if message.get("tool_calls") else "stop"))


def short(answer: Told | None) -> str:
    if answer is None:
        return "not asked"
    kept = {name: value for name, value in answer.items() if value and value not in ("stop", "tool_calls")}
    return json.dumps(kept, ensure_ascii=False)


def shown(text: str) -> str:
    return text.replace("\n", "\\n").replace("`", "'")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--engine", choices=list(ENGINES))
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of transformers")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that vLLM is installed for")
    parser.add_argument("--url", help="a vLLM that runs already and serves the folder under its own name")
    parser.add_argument("--model", type=Path, default=FOLDER, help="the folder with all files of the model")
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="folder of the answers")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    options = parser.parse_args(arguments)
    # A polite end must reach the `finally` that ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = list(fixed(options.questions, PURPOSE))
    if options.what == "report":
        runs = {file.stem: json.loads(file.read_text()) for file in sorted(options.answers.glob("*.json"))}
        if len(runs) < 2:
            print(f"{options.answers} has answers of {len(runs)} engines; two are compared.", file=sys.stderr)
            return 1
        print(report(runs, asked))
        return 0
    if options.engine is None:
        parser.error("run needs --engine")
    started = time.monotonic()
    answers = ENGINES[options.engine](options.model.resolve(), asked, options)
    name = f"transformers-{options.dtype}" if options.engine == "transformers" else options.engine
    options.answers.mkdir(parents=True, exist_ok=True)
    path = options.answers / f"{name}.json"
    path.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    refused = sum("error" in answer for answer in answers.values())
    print(f"{len(answers)} answers in {time.monotonic() - started:.0f} s, {refused} refused: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
