"""`portico show`: what is known about one model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from portico.cli import options, units
from portico.cli.listing import read_time
from portico.cli.models_at import opened
from portico.cli.replies import Shown
from portico.cli.screen import Screen, bold, printable

if TYPE_CHECKING:
    from portico.cli.address import Address

ABILITIES = {
    "completion": "chat",
    "tools": "tools",
    "thinking": "think",
    "vision": "images",
    "embedding": "embeddings",
    "insert": "insert",
}
TEXTS = ("template", "system", "parameters", "license", "modelfile")


@click.command()
@options.model
@click.option("--only", type=click.Choice(TEXTS), help="Print that text of the model and nothing else.")
@options.as_json
@options.address
@options.screen
@options.environ
def show(
    model: str, only: str | None, as_json: bool, address: Address, screen: Screen, environ: options.Environ
) -> None:
    """Show what is known about a model: size, context, what it can do.

    \b
    portico show qwen3:4b
    portico show qwen3:4b --only template
    """
    with opened(address, environ) as shelf:
        shown = shelf.show(model)
    if only is not None:
        screen.answer(screen.shown(str(getattr(shown, only))))
    elif as_json:
        screen.answer(json.dumps(_json(model, shown)))
    else:
        for line in lines(model, shown):
            screen.answer(line)


def lines(model: str, shown: Shown) -> list[str]:
    details, changed = shown.details, read_time(shown.modified_at)
    kind = " ".join(
        word for word in (details.family, details.parameter_size, details.quantization_level) if word
    )
    license_name = next(iter(shown.license.strip().splitlines()), "")
    first = [kind, units.shortened(license_name, 40), f"changed {changed:%Y-%m-%d}" if changed else ""]
    rows = [("", ", ".join(text for text in first if text))]
    can = [ABILITIES.get(word, word) for word in shown.capabilities or ()]
    cannot = [word for word in ABILITIES.values() if word not in can]
    if shown.capabilities is not None:
        rows += [("can", ", ".join(can)), ("cannot", ", ".join(cannot))]
    if shown.trained_context:
        rows.append(("context", f"{shown.trained_context:,} tokens trained"))
    if shown.weights:
        rows.append(("weights", f"{shown.weights:,}"))
    rows += [("template", _first_line(shown.template)), ("system", _first_line(shown.system))]
    rows += [("parameter", " ".join(line.split())) for line in shown.parameters.splitlines() if line.strip()]
    label_width = max(len(model), 9)
    head, *rest = [(label, printable(text)) for label, text in rows if text or not label]
    return [f"{bold(model.ljust(label_width))}  {head[1]}".rstrip()] + [
        f"{label.ljust(label_width)}  {text}" for label, text in rest
    ]


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    if not lines:
        return ""
    return (
        lines[0]
        if len(lines) == 1 and len(lines[0]) <= 80
        else f"{lines[0][:60]}... ({len(text):,} characters)"
    )


def _json(model: str, shown: Shown) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": model,
        "format": shown.details.format or None,
        "family": shown.details.family or None,
        "weights": shown.weights,
        "quantization": shown.details.quantization_level or None,
        "context_tokens": shown.trained_context,
        "capabilities": list(shown.capabilities) if shown.capabilities is not None else None,
        "license": shown.license or None,
        "template": shown.template or None,
        "system": shown.system or None,
        "parameters": shown.parameters or None,
        "modified_at": shown.modified_at or None,
        "metadata": shown.model_info or {},
    }
