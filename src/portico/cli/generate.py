"""`portico generate`: continue a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portico.cli import options
from portico.cli.answer import stream
from portico.cli.failure import usage
from portico.cli.screen import Screen, dim
from portico.cli.server import Server
from portico.cli.slash import read_image
from portico.cli.talk import Talk

if TYPE_CHECKING:
    from portico.cli.address import Address


@click.command()
@options.model
@click.argument("prompt", required=False)
@click.option("-s", "--system", help="What the model is told before the prompt.")
@click.option("--raw", is_flag=True, help="Give the prompt to the model as it is, without its chat template.")
@click.option("--suffix", help="What comes after the text to be written; for models that can insert.")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=Path), help="A picture.")
@options.sampling
@options.as_json
@options.address
@options.screen
def generate(
    model: str,
    prompt: str | None,
    system: str | None,
    raw: bool,
    suffix: str | None,
    images: tuple[Path, ...],
    sampling: options.Sampling,
    as_json: bool,
    address: Address,
    screen: Screen,
) -> int:
    """Continue PROMPT with MODEL. `-`, or no prompt, reads it from stdin.

    \b
    portico generate qwen3:4b "Once upon a time" -o num_predict=50
    portico generate qwen3:4b --raw < story.txt
    """
    text = sys.stdin.read() if prompt in (None, "-") and not sys.stdin.isatty() else prompt
    if not text or text == "-":
        raise usage("there is no prompt", attempt=f'portico generate {model} "Once upon a time"')
    settings = Talk(model=model)
    sampling.apply(settings)
    body: dict[str, Any] = settings.request() | {"prompt": text}
    del body["messages"]
    extra = {"system": system, "raw": raw or None, "suffix": suffix}
    body |= {name: value for name, value in extra.items() if value is not None}
    if images:
        body["images"] = [read_image(path) for path in images]
    with Server(address) as server:
        answer = stream(server.generate(body), screen, show=not as_json)
    if as_json:
        screen.answer(json.dumps(answer.as_json(model), ensure_ascii=False))
    elif screen.err_is_terminal and answer.statistics():
        screen.say(dim(f"    {answer.statistics()}"))
    return 130 if answer.stopped else 0
