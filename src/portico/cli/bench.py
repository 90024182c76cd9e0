"""`portico bench`: how fast a server answers, one request at a time and many at once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from portico.cli import options
from portico.cli.address import find
from portico.cli.failure import Failure, usage
from portico.cli.screen import Screen, dim, table

if TYPE_CHECKING:
    from portico.cli.address import Address
    from portico.cli.caller import Api, Caller
    from portico.cli.figures import Row
    from portico.cli.load import Ask


@click.command()
@click.argument("url", required=False)
@click.option(
    "-m", "--model", help="Default: the first that the server lists.", shell_complete=options.complete_models
)
@click.option("-c", "--at-once", default="1,5,10,50", show_default=True, help="Requests at once, a row each.")
@click.option(
    "-n", "--requests", default=100, show_default=True, type=click.IntRange(1), help="Requests a row."
)
@click.option(
    "--prompt-tokens", default=128, show_default=True, type=click.IntRange(1), help="About that many."
)
@click.option("--prompt", help="This prompt in every request, instead of words drawn by chance.")
@click.option("--max-tokens", default=64, show_default=True, type=click.IntRange(1), help="Tokens an answer.")
@click.option("--stop-early", is_flag=True, help="Let answers end where the model ends them.")
@click.option("--completions", is_flag=True, help="Use /v1/completions: for a model without a chat template.")
@click.option("--api", type=click.Choice(["openai", "ollama", "auto"]), default="auto", show_default=True)
@click.option("--seed", default=1, show_default=True, help="For the words of the prompts.")
@options.as_json
@options.screen
@options.environ
def bench(
    url: str | None,
    at_once: str,
    requests: int,
    api: str,
    as_json: bool,
    screen: Screen,
    environ: options.Environ,
    **asked: Any,
) -> int:
    """Measure the server at URL: time to first token, time per token, tokens a second.

    Any server that speaks OpenAI's or Ollama's API; without a URL, the one the other commands use.
    PORTICO_API_KEY is sent as the key. A request before each row warms it up and does not count.

    \b
    portico bench
    portico bench http://127.0.0.1:8000/v1 -c 1,8,32 -n 200
    """
    levels = _levels(at_once)
    address = find(url, environ, flag="URL")
    bench = _Bench(address, levels, requests, screen)
    try:
        asyncio.run(bench.run(api, asked))
    except KeyboardInterrupt:
        screen.say(dim("stopped; the rows that were finished:"))
    stopped = len(bench.rows) < len(levels)
    if as_json and bench.rows:
        screen.answer(json.dumps(bench.as_json()))
    elif bench.rows:
        bench.show()
    nothing = any(row.ok == 0 for row in bench.rows)
    return 130 if stopped else 1 if nothing else 0


def _levels(text: str) -> tuple[int, ...]:
    try:
        levels = tuple(int(piece) for piece in text.split(","))
    except ValueError:
        levels = ()
    if not levels or min(levels) < 1:
        raise usage(f"-c takes numbers from 1 up, got {text!r}", attempt="-c 1,5,10,50")
    return levels


class _Bench:
    """One measurement: finds out what is there, runs the rows, keeps what came out."""

    def __init__(self, address: Address, levels: tuple[int, ...], requests: int, screen: Screen) -> None:
        self.address, self.levels, self.requests, self.screen = address, levels, requests, screen
        self.rows: list[Row] = []
        self.ask: Ask | None = None
        self.api: Api = "openai"

    async def run(self, api: str, asked: dict[str, Any]) -> None:
        from portico.cli.caller import Caller, detect
        from portico.cli.server import unreachable
        from portico.errors import UpstreamUnreachable

        try:
            self.api, models = await detect(self.address.url, self.address.key)
        except UpstreamUnreachable as error:
            raise unreachable(self.address) from error
        if api != "auto":
            self.api = api  # type: ignore[assignment]  # click let only the two through
        caller = Caller(self.address.url, self.api, self.address.key)
        try:
            self.ask = await self._warm(caller, models, asked)
            for level in self.levels:
                await self._row(caller, self.ask, level)
        finally:
            caller.close()

    async def _warm(self, caller: Caller, models: tuple[str, ...], asked: dict[str, Any]) -> Ask:
        """Load the model with one request, see what the server accepts, and count how many words make the
        tokens that were asked for."""
        from portico.cli.live import Waiting
        from portico.cli.load import Ask, one

        name = asked["model"] or next(iter(models), None)
        if name is None:
            raise Failure(
                "no_model", f"{self.address.url} lists no model", attempt="portico bench URL -m MODEL"
            )
        ask = Ask(
            model=name,
            max_tokens=asked["max_tokens"],
            complete=asked["completions"],
            full_length=not asked["stop_early"],
            prompt=asked["prompt"],
            words=max(1, asked["prompt_tokens"] // 3),
            seed=asked["seed"],
        )
        with Waiting(self.screen, f"loading {name}"):
            sample = await one(caller, ask, 0)
            if sample.error and ask.full_length:
                ask = ask._replace(full_length=False)  # a hosted server may refuse names it does not know
                sample = await one(caller, ask, 0)
        if sample.error:
            raise Failure("server", f"{name}: {sample.error}")
        if sample.input_tokens:
            return ask._replace(words=max(1, ask.words * asked["prompt_tokens"] // sample.input_tokens))
        return ask

    async def _row(self, caller: Caller, ask: Ask, at_once: int) -> None:
        from portico.cli.figures import Sample, summed
        from portico.cli.live import Line
        from portico.cli.load import level

        requests = max(self.requests, at_once)
        line = Line(self.screen) if self.screen.live else None
        finished = 0

        def show() -> None:
            if line is not None:
                line.show(f"{at_once} at once: {finished} of {requests} requests")

        def done(sample: Sample) -> None:
            nonlocal finished
            finished += 1
            show()

        try:
            show()
            warming = ask._replace(max_tokens=min(4, ask.max_tokens), seed=ask.seed + 1_000_003)
            await level(caller, warming, at_once, at_once, lambda sample: None)
            samples, seconds = await level(caller, ask, at_once, requests, done)
        finally:
            if line is not None:
                line.close()
        self.rows.append(summed(at_once, samples, seconds))
        if self.screen.plain:
            self.screen.say(f"{self.screen.sign('done')} {at_once} at once: {requests} requests")

    # ---- what came out

    def show(self) -> None:
        from portico.cli.figures import TITLES

        self.screen.say(f"{self._what()}, warm")
        for line in table(TITLES, [row.cells() for row in self.rows], right=TITLES):
            self.screen.answer(line)
        for row in self.rows:
            for error, count in row.errors.items():
                self.screen.say(f"{self.screen.sign('failed')} {count} failed at {row.at_once}: {error}")
        if any(row.first.p99 is None for row in self.rows):
            self.screen.say(dim("p99 needs 100 answers: -n 100"))

    def _what(self) -> str:
        assert self.ask is not None
        good = sum(row.ok for row in self.rows) or 1
        tokens_in = round(sum(row.input_tokens for row in self.rows) / good)
        tokens_out = round(sum(row.output_tokens for row in self.rows) / good)
        api = "OpenAI's API" if self.api == "openai" else "Ollama's API"
        requests = f"{self.requests:,} requests a row"
        return f"{self.ask.model} at {self.address.url}, {api}; {tokens_in} in, {tokens_out} out, {requests}"

    def as_json(self) -> dict[str, Any]:
        assert self.ask is not None
        return {
            "schema": 1,
            "url": self.address.url,
            "api": self.api,
            "model": self.ask.model,
            "requests": self.requests,
            "max_tokens": self.ask.max_tokens,
            "full_length": self.ask.full_length,
            "seed": self.ask.seed,
            "rows": [row.as_json() for row in self.rows],
        }
