"""Which parsers, template and reasoning switch of vLLM a model needs: one table, and `family` that reads it.

vLLM guesses none of this. With a wrong tool parser calls arrive as text, with a wrong reasoning parser
answers arrive as reasoning, and one whose tokens the tokenizer lacks ends vLLM at its start. So a model that no
row fits gets nothing. tests/vllm_samples.json has what each family writes, and the tests have vLLM read it.
"""

from __future__ import annotations

import re
from typing import Literal

from portico.messages import Value

Thinking = Literal["none", "off_by_default", "on_by_default", "always"]


class Family(Value, frozen=True, kw_only=True):
    """Models that write calls and reasoning in one way. One architecture serves models with different
    templates, so most rows ask for the name as well."""

    name: str
    architectures: tuple[str, ...]
    model_types: tuple[str, ...]
    names: str
    """Regular expression, found anywhere in the name, in any case."""
    any_name: bool = False
    """A model of these architectures is taken for it whatever its name: they all write so, or its parsers do
    no harm to those that do not. A parser that takes an answer without marks for reasoning does."""
    tool_parser: str | None = None
    """Value of --tool-call-parser, with --enable-auto-tool-choice. None: vLLM refuses requests with tools."""
    streams_calls: bool = True
    """False: its tool parser loses parts of calls, and of text before them, when several tokens come in one
    step. A request with tools is then better not streamed by vLLM."""
    reasoning_parser: str | None = None
    """Value of --reasoning-parser."""
    chat_template: str | None = None
    """Value of --chat-template where the model's own would not do: a name of those in vLLM's wheel."""
    thinking: Thinking = "none"
    switch: str | None = None
    """The key of chat_template_kwargs that takes true or false. It is best always sent: without it template
    and parser each follow a default of their own. `reasoning_effort` is no such key but a field of the request
    itself, with a word for its value; gpt-oss and Mistral know nothing else."""
    lacks_chat_template: bool = False
    """Its files usually have none, and without one vLLM answers no chat. With `chat_template` it continues
    what is said as text."""
    note: str = ""
    """What people should know who run it."""


_START = r"(?:^|/|--)"
"""Where the last part of a hub id begins, also in the hub's cache on disk."""

_LLAMA = ("LlamaForCausalLM", "LLaMAForCausalLM")
_QWEN2 = (
    "Qwen2ForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
)
_QWEN2_TYPES = ("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl")
_QWEN3 = (
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3NextForCausalLM",
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
)
_QWEN3_TYPES = ("qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe")
_QWEN35 = (
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM",
)
_QWEN35_TYPES = ("qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text")
_MISTRAL = (
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Ministral3ForCausalLM",
    "Mistral3ForConditionalGeneration",
    "MistralLarge3ForCausalLM",
    "PixtralForConditionalGeneration",
)
_MISTRAL_TYPES = ("mistral", "mixtral", "ministral3", "mistral3", "mistral_large_3", "pixtral")

_NO_TOOLS_SHOWN = (
    "Its own template shows the model no tools; vLLM's documentation gives it one from its examples, "
    "which are no part of the wheel. Without it the model does not know what it could call."
)
_PLAIN_TEXT = "Not made for chat: what is said to it is continued as text."
_MISTRAL_OWN = (
    "With Mistral's own tokenizer vLLM answers 400 to any chat_template_kwargs, and where that is of version 11 "
    "or newer, vLLM 0.32.0 fails on every chat beside mistral_common 1.13; beside 1.12 it works."
)

FAMILIES = (
    Family(
        name="portico-tiny",
        architectures=("Qwen3ForCausalLM",),
        model_types=("qwen3",),
        names=r"portico-tiny",
        tool_parser="hermes",
        # Not qwen3's: unless told otherwise that one takes everything before </think> for reasoning, and with
        # it a whole answer of a model that thinks only when asked.
        reasoning_parser="deepseek_v3",
        thinking="off_by_default",
        switch="enable_thinking",
    ),
    # ---- Qwen ----------------------------------------------------------------------------------
    Family(
        name="deepseek-r1-distill",
        architectures=("Qwen2ForCausalLM", "Qwen3ForCausalLM", *_LLAMA),
        model_types=("qwen2", "qwen3", "llama"),
        names=r"deepseek-r1-(?:distill|\d{4}-qwen)",
        reasoning_parser="deepseek_r1",
        thinking="always",
        note="It was not trained to call tools.",
    ),
    Family(
        name="qwq",
        architectures=("Qwen2ForCausalLM",),
        model_types=("qwen2",),
        names=r"qwq",
        tool_parser="hermes",
        reasoning_parser="deepseek_r1",
        thinking="always",
    ),
    Family(
        name="qwen2.5",
        architectures=_QWEN2,
        model_types=_QWEN2_TYPES,
        names=r"qwen-?2(?:\.5)?(?![.\d])",
        any_name=True,
        tool_parser="hermes",
    ),
    Family(
        name="qwen3.5-small",
        architectures=_QWEN35,
        model_types=_QWEN35_TYPES,
        names=r"qwen-?3\.5[-:](?:0\.8|2)b",
        tool_parser="qwen3_xml",
        reasoning_parser="deepseek_v3",
        thinking="off_by_default",
        switch="enable_thinking",
    ),
    Family(
        name="qwen3.5",
        architectures=_QWEN35,
        model_types=_QWEN35_TYPES,
        names=r"qwen-?3\.[5-9]",
        tool_parser="qwen3_xml",
        reasoning_parser="qwen3",
        thinking="on_by_default",
        switch="enable_thinking",
    ),
    Family(
        name="qwen3-coder",
        architectures=_QWEN3,
        model_types=_QWEN3_TYPES,
        names=r"qwen-?3-?coder",
        tool_parser="qwen3_xml",
    ),
    Family(
        name="qwen3-thinking",
        architectures=_QWEN3,
        model_types=_QWEN3_TYPES,
        names=r"qwen-?3\b.*thinking",
        tool_parser="hermes",
        reasoning_parser="qwen3",
        thinking="always",
    ),
    Family(
        name="qwen3-instruct",
        architectures=_QWEN3,
        model_types=_QWEN3_TYPES,
        names=r"qwen-?3\b.*instruct",
        tool_parser="hermes",
        note="No reasoning parser: it never thinks, and qwen3's would take its answers for reasoning.",
    ),
    Family(
        name="qwen3",
        architectures=_QWEN3,
        model_types=_QWEN3_TYPES,
        names=r"qwen-?3(?![.\d])",
        tool_parser="hermes",
        reasoning_parser="qwen3",
        thinking="on_by_default",
        switch="enable_thinking",
    ),
    # ---- DeepSeek ------------------------------------------------------------------------------
    Family(
        name="deepseek-v3.2",
        architectures=("DeepseekV32ForCausalLM",),
        model_types=("deepseek_v32",),
        names=r"deepseek-v3\.2",
        any_name=True,
        tool_parser="deepseek_v32",
        reasoning_parser="deepseek_v3",
        thinking="off_by_default",
        switch="thinking",
        note="It has no template: vLLM writes its prompts, V3.2-Exp's too, which was trained on V3.1's.",
    ),
    Family(
        name="deepseek-v3.1",
        architectures=("DeepseekV3ForCausalLM",),
        model_types=("deepseek_v3",),
        names=r"deepseek-v3\.1",
        tool_parser="deepseek_v31",
        streams_calls=False,
        # For a request's reasoning_effort vLLM sets enable_thinking, which its template does not read but
        # this parser does: nothing is thought, and the answer arrives as reasoning.
        reasoning_parser="deepseek_v3",
        thinking="off_by_default",
        switch="thinking",
        note=f"{_NO_TOOLS_SHOWN} It calls tools only while it does not think.",
    ),
    Family(
        name="deepseek-r1",
        architectures=("DeepseekV3ForCausalLM",),
        model_types=("deepseek_v3",),
        names=r"deepseek-r1(?!-distill)",
        tool_parser="deepseek_v3",
        streams_calls=False,
        reasoning_parser="deepseek_r1",
        thinking="always",
        note=f"{_NO_TOOLS_SHOWN} Only R1-0528 was trained to call them.",
    ),
    Family(
        name="deepseek-v3",
        architectures=("DeepseekV3ForCausalLM",),
        model_types=("deepseek_v3",),
        names=r"deepseek-v3(?!\.)",
        tool_parser="deepseek_v3",
        streams_calls=False,
        note=_NO_TOOLS_SHOWN,
    ),
    # ---- Llama, and others of its architecture -------------------------------------------------
    Family(
        name="codellama-instruct",
        architectures=_LLAMA,
        model_types=("llama",),
        names=r"code-?llama.*instruct",
    ),
    Family(
        name="codellama",
        architectures=_LLAMA,
        model_types=("llama",),
        names=r"code-?llama",
        chat_template="template_basic.jinja",
        lacks_chat_template=True,
        note=_PLAIN_TEXT,
    ),
    Family(
        name="vicuna",
        architectures=_LLAMA,
        model_types=("llama",),
        names=rf"{_START}vicuna",
        chat_template="template_basic.jinja",
        lacks_chat_template=True,
        note="It was trained on `USER: ... ASSISTANT:`; without a template that writes so it answers worse.",
    ),
    Family(
        name="llama-2-chat",
        architectures=_LLAMA,
        model_types=("llama",),
        names=rf"{_START}llama-?2(?![.\d]).*chat",
    ),
    Family(
        name="llama-2",
        architectures=_LLAMA,
        model_types=("llama",),
        names=rf"{_START}llama-?2(?:[-:]\d+b(?:-hf)?)?$",
        chat_template="template_basic.jinja",
        lacks_chat_template=True,
        note=_PLAIN_TEXT,
    ),
    Family(
        name="llama-3-base",
        architectures=_LLAMA,
        model_types=("llama",),
        names=rf"{_START}(?:meta-)?llama-3(?:\.[123])?-\d+b$",
        chat_template="template_basic.jinja",
        lacks_chat_template=True,
        note=_PLAIN_TEXT,
    ),
    Family(
        name="llama-3.1",
        architectures=_LLAMA,
        model_types=("llama",),
        names=rf"{_START}(?:meta-)?llama-?3[._][123](?!.*nemotron-(?:nano|super|ultra))",
        tool_parser="llama3_json",
        note=(
            "It calls one tool at a time. Text before a call is lost; streamed, the call arrives as text. "
            "An answer in JSON that has `name` and `parameters` is taken for a call."
        ),
    ),
    Family(
        name="llama-3",
        architectures=_LLAMA,
        model_types=("llama",),
        names=rf"{_START}(?:meta-)?llama-?3(?![._]?\d)",
        note="No tools: not trained for them, and it lacks the token without which llama3_json ends vLLM.",
    ),
    Family(
        name="llama-4",
        architectures=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
        model_types=("llama4", "llama4_text"),
        names=r"llama-?4",
        any_name=True,
        tool_parser="llama4_pythonic",
        note="vLLM's documentation gives it a template from its examples, which are no part of the wheel.",
    ),
    # ---- Mistral -------------------------------------------------------------------------------
    Family(
        name="mistral-hybrid",
        architectures=_MISTRAL,
        model_types=_MISTRAL_TYPES,
        names=r"mistral-(?:small-4|medium-3[.-]5)",
        tool_parser="mistral",
        reasoning_parser="mistral",
        thinking="off_by_default",
        switch="reasoning_effort",
        note=f"It thinks with reasoning_effort `high` and not with `none`. {_MISTRAL_OWN}",
    ),
    Family(
        name="magistral",
        architectures=_MISTRAL,
        model_types=_MISTRAL_TYPES,
        names=r"magistral|ministral-3-.*reasoning",
        tool_parser="mistral",
        reasoning_parser="mistral",
        thinking="always",
        note=f"It thinks because the system prompt beside its weights says so. {_MISTRAL_OWN}",
    ),
    Family(
        name="mistral-old",
        architectures=_MISTRAL,
        model_types=_MISTRAL_TYPES,
        names=r"mistral-7b-instruct-v0\.[12]|mixtral-8x7b-instruct",
        note="No tools: not trained for them, and it lacks the token without which the parser ends vLLM.",
    ),
    Family(
        name="mistral",
        architectures=_MISTRAL,
        model_types=_MISTRAL_TYPES,
        names=(
            r"mistral-7b-instruct-v0\.3|mistral-(?:nemo|small|medium|large)"
            r"|ministral|mixtral-8x22b-instruct|pixtral|codestral|devstral"
        ),
        tool_parser="mistral",
        note=_MISTRAL_OWN,
    ),
    # ---- GLM -----------------------------------------------------------------------------------
    Family(
        name="glm-4",
        architectures=("Glm4ForCausalLM", "GlmForCausalLM", "ChatGLMModel"),
        model_types=("glm4", "glm", "chatglm"),
        names=r"glm-?4-(?:\d+b|plus|air|flash)",
        note="No tools: vLLM has no parser for what it writes; those for GLM-4.5 read another form.",
    ),
    Family(
        name="glm-4.7",
        architectures=("Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM"),
        model_types=("glm4_moe", "glm4_moe_lite"),
        names=r"glm-?4\.7",
        tool_parser="glm47",
        reasoning_parser="glm45",
        thinking="on_by_default",
        switch="enable_thinking",
    ),
    Family(
        name="glm-4.5",
        architectures=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
        model_types=("glm4_moe", "glm4v_moe"),
        names=r"glm-?4\.[56]",
        any_name=True,
        tool_parser="glm45",
        reasoning_parser="glm45",
        thinking="on_by_default",
        switch="enable_thinking",
    ),
    # ---- gpt-oss -------------------------------------------------------------------------------
    Family(
        name="gpt-oss",
        architectures=("GptOssForCausalLM",),
        model_types=("gpt_oss",),
        names=r"gpt-?oss",
        any_name=True,
        tool_parser="openai",
        reasoning_parser="openai_gptoss",
        thinking="always",
        switch="reasoning_effort",
        note="reasoning_effort is low, medium or high: it cannot be told not to think, `none` is refused.",
    ),
    # ---- Gemma ---------------------------------------------------------------------------------
    Family(
        name="functiongemma",
        architectures=("Gemma3ForCausalLM",),
        model_types=("gemma3_text",),
        names=r"functiongemma",
        tool_parser="functiongemma",
        note="vLLM's parser reads only arguments that are text: numbers, booleans and lists are lost.",
    ),
    Family(
        name="gemma-4",
        architectures=(
            "Gemma4ForConditionalGeneration",
            "Gemma4ForCausalLM",
            "Gemma4UnifiedForConditionalGeneration",
        ),
        model_types=("gemma4", "gemma4_text", "gemma4_unified"),
        names=r"gemma-?4",
        any_name=True,
        tool_parser="gemma4",
        reasoning_parser="gemma4",
        thinking="off_by_default",
        switch="enable_thinking",
    ),
    Family(
        name="gemma-3",
        architectures=(
            "Gemma3ForCausalLM",
            "Gemma3ForConditionalGeneration",
            "Gemma3nForCausalLM",
            "Gemma3nForConditionalGeneration",
        ),
        model_types=("gemma3", "gemma3_text", "gemma3n", "gemma3n_text"),
        names=r"gemma-?3n?(?![.\d])",
        any_name=True,
        note="No tools: its template shows none, and vLLM's example template for it is no part of the wheel.",
    ),
    Family(
        name="gemma-2",
        architectures=("Gemma2ForCausalLM", "GemmaForCausalLM"),
        model_types=("gemma2", "gemma"),
        names=r"gemma-?2(?![.\d])|gemma-(?:1\.1-)?[27]b",
        any_name=True,
        note="No tools, and its template refuses a system message.",
    ),
    # ---- Phi -----------------------------------------------------------------------------------
    Family(
        name="phi-4-mini",
        architectures=("Phi3ForCausalLM", "Phi4MMForCausalLM"),
        model_types=("phi3", "phi4mm"),
        names=r"phi-?4-(?:mini|multimodal)-instruct",
        note=(
            "No tools: its template shows none, and vLLM's parser phi4_mini_json streams nothing at all "
            "once a request has tools, no text either."
        ),
    ),
    Family(
        name="phi-3",
        architectures=("Phi3ForCausalLM",),
        model_types=("phi3",),
        names=r"phi-?3|phi-?4(?!-(?:mini|multimodal|reasoning))",
    ),
    # ---- OPT -----------------------------------------------------------------------------------
    Family(
        name="opt",
        architectures=("OPTForCausalLM",),
        model_types=("opt",),
        names=rf"{_START}opt-[\d.]+[mb]",
        any_name=True,
        chat_template="template_basic.jinja",
        lacks_chat_template=True,
        note=_PLAIN_TEXT,
    ),
)
"""The first row that fits decides: the special stands before the general."""


def family(architecture: str | None, model_type: str | None, name: str) -> Family | None:
    """The row for a model, from config.json's first architecture and `model_type`, and its hub id or name.
    Where the config is unknown the name alone decides; where it is known it must agree."""
    rows = [row for row in FAMILIES if _may_be(row, architecture, model_type)]
    named = (row for row in rows if re.search(row.names, name, re.IGNORECASE))
    known = architecture is not None or model_type is not None
    return next(named, None) or next((row for row in rows if known and row.any_name), None)


def _may_be(row: Family, architecture: str | None, model_type: str | None) -> bool:
    if architecture is None and model_type is None:
        return True
    return architecture in row.architectures or model_type in row.model_types
