"""The engines' own series in our /metrics: those of every vLLM that runs, with the replica they are of. And the GPUs'."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from portico.engines import Replica
from portico.engines.gpus import Gpu
from portico.errors import EngineError

PREFIX = b"vllm:"
_ANSWER_SECONDS = 2.0
"""A busy engine may be slow; what it does not tell in time is missing this once."""


async def collected(replicas: Sequence[Replica]) -> bytes:
    """The series of all these, asked at once."""
    texts = await asyncio.gather(*map(_asked, replicas))
    return merged({one.spec.name: text for one, text in zip(replicas, texts, strict=True) if text})


async def _asked(replica: Replica) -> bytes:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer = await replica.upstream.fetch("GET", "/metrics")
    except (EngineError, TimeoutError):
        return b""
    return answer.body if answer.status == 200 else b""


def merged(texts: dict[str, bytes]) -> bytes:
    """Prometheus' texts, by replica, as one: each family described once, each series with its replica's label.
    Only what begins with `vllm:`; the rest of their processes would be taken for ours."""
    heads: dict[bytes, list[bytes]] = {}
    series: dict[bytes, list[bytes]] = {}
    for replica, text in texts.items():
        label = b'replica="%b"' % replica.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        family, first = b"", True
        for line in text.splitlines():
            if line.startswith((b"# HELP ", b"# TYPE ")):
                name = line.split(b" ", 3)[2]
                first = first if name == family else name not in heads
                family = name
                if first and name.startswith(PREFIX):
                    heads.setdefault(name, []).append(line)
            elif line.startswith(PREFIX):
                known = family if line.startswith(family) and family else line.partition(b"{")[0].split()[0]
                series.setdefault(known, []).append(_labelled(line, label))
    return b"".join(
        b"\n".join([*heads.get(name, []), *lines]) + b"\n" for name, lines in sorted(series.items())
    )


def _labelled(line: bytes, label: bytes) -> bytes:
    name, brace, rest = line.partition(b"{")
    if brace:
        return b"%b{%b%b%b" % (name, label, b"" if rest.startswith(b"}") else b",", rest)
    name, _, value = line.partition(b" ")
    return b"%b{%b} %b" % (name, label, value)


def of_gpus(present: Sequence[Gpu]) -> bytes:
    """Memory and load of the GPUs of this machine, as gauges."""
    if not present:
        return b""
    lines = []
    for name, text, values in (
        ("portico_gpu_memory_bytes", "Memory of a GPU", [(gpu, gpu.total) for gpu in present]),
        (
            "portico_gpu_memory_free_bytes",
            "Memory of a GPU that is free",
            [(gpu, gpu.free) for gpu in present],
        ),
        ("portico_gpu_busy", "Share of the time in which it computed", [(gpu, gpu.busy) for gpu in present]),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [
            f'{name}{{gpu="{gpu.index}",name="{gpu.name}"}} {float(value)}'
            for gpu, value in values
            if value is not None
        ]
    return "\n".join([*lines, ""]).encode()
