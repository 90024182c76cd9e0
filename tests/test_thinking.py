"""Whether a model thinks when nobody says so: as its own chat template has it, in both dialects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gguf_edit import TINY, edit
from live_server import LiveServer, serve
from portico.engines import Facts, ModelSpec
from portico.engines.thinking import thinks_unasked

SAID = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
WHEN_ASKED = SAID + "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}"
UNLESS_TOLD = (
    SAID + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n</think>{% endif %}"
)
HELLO = [{"role": "user", "content": "Hello"}]
PLAIN = "[user] Hello\n[assistant] "


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        (WHEN_ASKED, False),
        ("{%- if enable_thinking -%}<think>{%- endif -%}", False),
        ("{%- if not enable_thinking -%}<think></think>{%- endif -%}", False),
        ("{{ '<think>' if thinking else '' }}", False),
        ("{%- if enable_thinking is defined and enable_thinking is true -%}<think>{%- endif -%}", False),
        ("{% if not thinking is defined %}{% set thinking = false %}{% endif %}{% if thinking %}x", False),
        ("{% if enable_thinking | default(false) %}<think>{% endif %}", False),
        (UNLESS_TOLD, True),
        ("{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}", True),
        (
            "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
            "{% if enable_thinking %}<think>{% endif %}",
            True,
        ),
        ("{% if enable_thinking | default(true) %}<think>{% endif %}", True),
        ("{% if message.thinking %}{{ message.thinking }}{% endif %}<think>", True),
        ("<think>\n", True),
        (SAID, True),
        # As Nemotron and newer DeepSeek templates set their default
        (
            "{%- set enable_thinking = enable_thinking if enable_thinking is defined else True -%}"
            "{%- if enable_thinking -%}<think>{%- endif -%}",
            True,
        ),
        (
            "{% set thinking = thinking if thinking is defined else false %}{% if thinking %}x{% endif %}",
            False,
        ),
        # As Granite asks for it after other cases
        ("{%- if documents %}a{%- elif thinking %}<think>{%- endif %}", False),
        ("{% if add_generation_prompt and enable_thinking %}<think>{% endif %}", False),
        ("{% if (enable_thinking) %}<think>{% endif %}", False),
        (
            "{% if enable_thinking is defined %}{% if not enable_thinking %}<think></think>{% endif %}{% endif %}",
            True,
        ),
    ],
)
def test_what_a_template_does_unasked(template: str, thinks: bool) -> None:
    spec = ModelSpec(name="m", engine="llamacpp", source="m.gguf", facts=Facts(chat_template=template))
    assert thinks_unasked(spec) is thinks
    given = ModelSpec(name="m", engine="llamacpp", source="m.gguf", chat_template=template)
    assert thinks_unasked(given) is thinks


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A model that thinks when it is asked to, and one that thinks unless it is told not to."""
    folder = tmp_path_factory.mktemp("thinking")
    for name, template in (("asked", WHEN_ASKED), ("told", UNLESS_TOLD)):
        edit(TINY, folder / f"{name}.gguf", texts={"tokenizer.chat_template": template})
    with serve(folder / "server", str(folder / "asked.gguf"), str(folder / "told.gguf")) as running:
        yield running


@pytest.mark.parametrize(
    ("model", "think", "end"),
    [
        ("asked", None, ""),
        ("asked", False, ""),
        ("asked", True, "<think>\n"),
        ("told", None, ""),
        ("told", True, ""),
        ("told", False, "<think>\n</think>"),
    ],
)
def test_a_model_thinks_as_its_template_has_it(
    two: LiveServer, model: str, think: bool | None, end: str
) -> None:
    wanted = two.ask("POST", "/tokenize", {"model": model, "prompt": PLAIN + end})["count"]
    switch: dict[str, Any] = {} if think is None else {"chat_template_kwargs": {"enable_thinking": think}}
    rendering = {"model": model, "messages": HELLO, **switch}
    tokens = two.ask("POST", "/tokenize", rendering)["tokens"]
    assert two.ask("POST", "/detokenize", {"model": model, "tokens": tokens})["prompt"] == PLAIN + end
    said = two.ask("POST", "/v1/chat/completions", {**rendering, "max_tokens": 1})
    assert said["usage"]["prompt_tokens"] == wanted
    options = {"options": {"num_predict": 1}, "stream": False, "think": think}
    told = two.ask("POST", "/api/chat", {"model": model, "messages": HELLO, **options})
    assert told["prompt_eval_count"] == wanted
    generated = two.ask("POST", "/api/generate", {"model": model, "prompt": "Hello", **options})
    assert generated["prompt_eval_count"] == wanted


@pytest.mark.parametrize("think", [None, False], ids=["unasked", "off"])
def test_a_schema_is_no_room_to_think_in(server: LiveServer, think: bool | None) -> None:
    """llama.cpp's grammar lets whoever can think do so before the JSON, whether it was asked to or not."""
    schema = {"enum": ["yes", "no"]}
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    switch: dict[str, Any] = {} if think is None else {"chat_template_kwargs": {"enable_thinking": think}}
    hello = [{"role": "user", "content": "Hello!"}]
    body = {"model": "default", "messages": hello, "temperature": 0, "max_tokens": 60}
    said = server.ask("POST", "/v1/chat/completions", {**body, **switch, "response_format": shape})
    message = said["choices"][0]["message"]
    assert message["content"] in ('"yes"', '"no"') and not message.get("reasoning_content")
    options = {"temperature": 0, "num_predict": 60}
    asked = {"model": "default", "messages": hello, "format": schema, "options": options, "think": think}
    told = server.ask("POST", "/api/chat", {**asked, "stream": False})["message"]
    assert told["content"] in ('"yes"', '"no"') and not told.get("thinking")
