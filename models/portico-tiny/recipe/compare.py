"""Asks different engines the same questions and counts where their answers are the same.

    python -m recipe.compare run --engine llamacpp          in Portico's environment
    python -m recipe.compare run --engine transformers      where torch and transformers are
    python -m recipe.compare run --engine transformers --dtype bfloat16
    python -m recipe.compare run --engine vllm --python /path/to/vllm/bin/python
    python -m recipe.compare report                         the pairs and every difference, as Markdown
    python -m recipe.compare report --update README.md      ... and in the model card

Each run leaves its answers in a folder (--answers), so that the engines need not be there at once. All of them
answer the same 100 questions greedily: llama.cpp reads the GGUF file, the others the safetensors.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2

from recipe import asking, card, engines
from recipe.agreement import NotComparable, Run, Told, report, told
from recipe.questions import Asked, digest, fixed
from recipe.serving import FOLDER, MODEL, ServerFailed, parallel, serve

QUESTIONS, PURPOSE = 100, "comparison"
ANSWERS = FOLDER / "comparison"
ANSWER_SECONDS, AT_ONCE = 300.0, 4
ENGINES = ("llamacpp", "vllm", "transformers")


def answers(folder: Path, asked: Sequence[Asked], options: argparse.Namespace) -> dict[str, Told]:
    """What the engine says to each. Raises ServerFailed."""
    if options.engine == "transformers":
        made = engines.transformers(folder, [each.sample for each in asked], options.dtype)
        return {each.name: told(*said) for each, said in zip(asked, made, strict=True)}
    if options.engine == "llamacpp":
        with serve(folder / MODEL.name, *parallel(AT_ONCE)) as server:
            return ask(server.url, asked, "default")
    if options.url:
        return ask(options.url, asked, folder.name)
    with engines.vllm(folder, options.python) as url:
        return ask(url, asked, folder.name)


def ask(url: str, asked: Sequence[Asked], model: str) -> dict[str, Told]:
    """The answers of a server."""

    async def one(client: httpx2.AsyncClient, each: Asked, gate: asyncio.Semaphore) -> tuple[str, Told]:
        path, body = asking.request(each.sample, model=model)
        async with gate:
            reply = await client.post(path, json=body)
        if reply.status_code != 200:
            return each.name, {"error": f"{reply.status_code} {reply.text[:300]}"}
        return each.name, told(*asking.answer(path, reply.json()))

    async def everything() -> dict[str, Told]:
        gate = asyncio.Semaphore(AT_ONCE)
        async with httpx2.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, trust_env=False) as client:
            return dict(await asyncio.gather(*(one(client, each, gate) for each in asked)))

    return asyncio.run(everything())


def weights(folder: Path) -> dict[str, str]:
    """The digests of both files, whichever of them an engine reads."""
    return {name: card.sha256(folder / name) for name in ("model.safetensors", MODEL.name)}


def run(options: argparse.Namespace) -> None:
    asked = list(fixed(options.questions, PURPOSE))
    folder = options.model.resolve()
    started = time.monotonic()
    made = Run(weights(folder), digest(asked), answers(folder, asked, options))
    name = f"transformers-{options.dtype}" if options.engine == "transformers" else options.engine
    options.answers.mkdir(parents=True, exist_ok=True)
    path = options.answers / f"{name}.json"
    made.write(path)
    refused = sum("error" in answer for answer in made.answers.values())
    print(f"{len(asked)} answers in {time.monotonic() - started:.0f} s, {refused} refused: {path}")


def tell(options: argparse.Namespace) -> None:
    if options.update:
        card.check(options.update)
    asked = list(fixed(options.questions, PURPOSE))
    runs = {file.stem: Run.read(file) for file in sorted(options.answers.glob("*.json"))}
    made = report(runs, asked, weights(options.model))
    print(made)
    if options.update:
        text = options.update.read_text(encoding="utf-8")
        options.update.write_text(card.updated(text, card.COMPARISON, made), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of transformers")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that vLLM is installed for")
    parser.add_argument("--url", help="a vLLM that runs already and serves the folder under its own name")
    parser.add_argument("--model", type=Path, default=FOLDER, help="the folder with all files of the model")
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="folder of the answers")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--update", type=Path, metavar="README.md", help="put the report into this file")
    options = parser.parse_args(arguments)
    if options.what == "run" and options.engine is None:
        parser.error("run needs --engine")
    # A polite end must reach the `finally` that ends the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(options) if options.what == "run" else tell(options)
    except (ServerFailed, NotComparable, card.NoPlace) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
