"""What Ollama's listing and show say of a model, where they need more than a field of its Facts. Pure."""

from __future__ import annotations

from portico.engines import Facts

UNKNOWN_CONTEXT = 4096  # what Ollama takes where a model does not say


def model_info(facts: Facts) -> dict[str, object]:
    """Ollama's `model_info`. Never None, and the keys that its command line reads without looking
    (architecture, parameter_count, context_length, embedding_length) are always there."""
    architecture = facts.architecture or "unknown"
    found: dict[str, object] = {
        "general.architecture": architecture,
        "general.basename": architecture,
        "general.parameter_count": facts.parameters or 0,
        f"{architecture}.context_length": facts.context or UNKNOWN_CONTEXT,
        f"{architecture}.embedding_length": facts.embedding or 0,
    }
    if facts.license:
        found["general.license"] = facts.license
    return {**found, **{key: value for key, value in facts.metadata.items() if value is not None}}


def parameter_size(count: int | None) -> str:
    """`8.0B`, `494.03M`: Ollama's `details.parameter_size`; empty where it is unknown."""
    if not count:
        return ""
    for unit, size, digits in (("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0)):
        if count >= size:
            return f"{count / size:.0f}{unit}" if count % size == 0 else f"{count / size:.{digits}f}{unit}"
    return str(count)
