"""What engines call the things that they spell differently."""

from __future__ import annotations

from typing import Literal

from portico.messages import Value


class Spelling(Value, frozen=True, kw_only=True):
    """A server that speaks OpenAI's HTTP, and its own words beyond it. Names it does not know it ignores;
    the default has every engine's, for a server of which nothing is known."""

    repetition: tuple[str, ...] = ("repetition_penalty", "repeat_penalty")
    """Names of the repetition penalty."""
    schema_in_completions: Literal["response_format", "json_schema"] = "response_format"
    """The field of a raw completion that holds the schema of its answer."""
    compact_schemas: bool = False
    """Its grammars allow white space between any two tokens of JSON, and a small model may then write nothing
    else until its limit (measured: 8 % of forced calls). `x-guidance` at the schema's root forbids that."""
    bounds_white_space: bool = False
    """So do its grammars, and of a schema that is sent as a structural tag they take a bound (measured: 28 % of
    answers were lost without, none with it)."""
    effort_in_template: bool = True
    """The reasoning effort goes to the chat template by name as well, not only as a field of its own."""
    extensions: bool = True
    """It overlooks what OpenAI's API does not have. A server that refuses it is sent nothing of it."""
    passes_extra: bool = False
    """It is sent names that no shape here has, though it may refuse them."""
    most_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The field of a chat that limits its answer."""


ANY = Spelling()
STRICT = Spelling(repetition=(), effort_in_template=False, extensions=False)
OPENAI = Spelling(
    repetition=(), effort_in_template=False, extensions=False, most_tokens="max_completion_tokens"
)
"""OpenAI itself, whose newer models refuse max_tokens."""
VLLM = Spelling(repetition=("repetition_penalty",), effort_in_template=False)
VLLM_BOUNDED = Spelling(repetition=("repetition_penalty",), effort_in_template=False, bounds_white_space=True)
"""vLLM whose grammars are xgrammar's."""
LLAMACPP = Spelling(repetition=("repeat_penalty",), schema_in_completions="json_schema", compact_schemas=True)
