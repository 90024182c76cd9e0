"""Samples as text: exactly what the chat template renders, and which of its tokens are answers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from recipe.sample import Sample

TEMPLATE = Path(__file__).parents[1] / "chat_template.jinja"
END = "<|im_end|>"


@cache
def _template() -> Any:
    from jinja2 import Environment

    # As transformers sets it up: without trim_blocks and lstrip_blocks the template renders other text there.
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE.read_text())


def rendered(messages: list[Any], tools: list[Any] | None, thinking: bool, generation: bool) -> str:
    return str(
        _template().render(
            messages=messages, tools=tools, enable_thinking=thinking, add_generation_prompt=generation
        )
    )


def prompt(sample: Sample) -> str:
    """The text that the engine sees before the last answer."""
    if sample.completion is not None:
        return sample.completion
    tools = list(sample.tools) if sample.tools else None
    return rendered(sample.prompt, tools, sample.thinking, True)


def pieces(sample: Sample) -> list[tuple[str, bool]]:
    """The whole conversation as (text, is it an answer): the answers are what a model has to write, the
    closing <|im_end|> included. With thinking on only the last answer counts, since the template drops the
    reasoning of those before it. A message marked `untrained` (one with a fault in it) never does."""
    if sample.completion is not None:
        return [(sample.completion, False), (sample.answer["content"] + END, True)]
    messages, tools = list(sample.messages), list(sample.tools) if sample.tools else None
    whole = rendered(messages, tools, sample.thinking, False)
    found: list[tuple[str, bool]] = []
    at = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("untrained"):
            continue
        if sample.thinking and index < len(messages) - 1:
            continue
        before = rendered(messages[:index], tools, sample.thinking, True)
        if not whole.startswith(before):
            raise ValueError(
                f"the template does not render message {index} as a continuation:\n{whole}\n--\n{before}"
            )
        end = whole.index(END, len(before)) + len(END)
        begun = len(before) + (len(sample.opening) if index == len(messages) - 1 else 0)
        found += [(whole[at:begun], False), (whole[begun:end], True)]
        at = end
    if whole[at:].strip():
        raise ValueError(f"text after the last answer: {whole[at:]!r}")
    return found


def text(sample: Sample) -> str:
    return "".join(piece for piece, _ in pieces(sample))
