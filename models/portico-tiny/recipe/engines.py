"""The engines that the comparison asks beside Portico's own: vLLM's server, and transformers in this process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from recipe.sample import Message, Sample
from recipe.serving import ServerFailed, last_lines

START_SECONDS = 600.0


@contextmanager
def vllm(folder: Path, python: str) -> Iterator[str]:
    """The address of vLLM's own server, started as the docs tell for this model. Raises ServerFailed."""
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
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *_arguments(folder), "--port", str(port)]
    with tempfile.TemporaryDirectory(prefix="portico-tiny-") as home:
        log = Path(home) / "vllm.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log)
            yield url
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, which it may leave behind
            process.wait()


def _arguments(folder: Path) -> list[str]:
    return [
        *("--model", str(folder), "--served-model-name", folder.name),
        *("--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager", "--max-num-seqs", "8"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--reasoning-parser", "deepseek_v3"),  # like the template it thinks only when enable_thinking is on
    ]


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < START_SECONDS:
        if process.poll() is not None:
            raise ServerFailed(f"vLLM ended with exit code {process.returncode}:\n{last_lines(log, 40)}")
        with suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise ServerFailed(f"vLLM was not ready in {START_SECONDS:.0f} s:\n{last_lines(log, 40)}")


def transformers(folder: Path, samples: Sequence[Sample], dtype: str) -> Iterator[tuple[Message, str]]:
    """(the answer, why it ended) to each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from recipe import render

    torch.set_num_threads(1)  # so small a model is slower on two cores: they wait for each other
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    ends = model.generation_config.eos_token_id
    for sample in samples:
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
        yield message, ("tool_calls" if message.get("tool_calls") else "stop") if over else "length"


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
