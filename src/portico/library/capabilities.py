"""What a model can do, in Ollama's words, from its chat template and its metadata. Pure."""

from __future__ import annotations

import re

ORDER = ("completion", "tools", "insert", "vision", "embedding", "thinking")

_TOOLS = re.compile(r"\btools\b|\btool_calls\b")
_THINKING = re.compile(
    r"<think>|enable_thinking|reasoning_effort|\[THINK\]|<\|channel\|>analysis"
    r"|\bthinking is defined|\b(?:if|not|and) thinking\b"
)
# Architectures that only embed; others say so by a pooling type.
_BERTS = {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"}
EMBEDDING_ARCHITECTURES = frozenset(_BERTS | {"eurobert", "t5encoder", "gemma-embedding"})


def capabilities(
    template: str | None, *, embeds: bool = False, sees: bool = False, inserts: bool = False
) -> tuple[str, ...]:
    """`embeds`: it only makes embeddings; `sees`: it takes images; `inserts`: it has fill-in-the-middle tokens."""
    if embeds:
        return ("embedding",)
    template = template or ""
    found = {
        "completion": True,
        "tools": _TOOLS.search(template) is not None,
        "insert": inserts,
        "vision": sees,
        "thinking": _THINKING.search(template) is not None,
    }
    return tuple(word for word in ORDER if found.get(word))


def with_vision(found: tuple[str, ...]) -> tuple[str, ...]:
    """The same model with a projector beside it."""
    return tuple(word for word in ORDER if word in found or word == "vision")
