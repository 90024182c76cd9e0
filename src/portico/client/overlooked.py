"""Parameters that some servers overlook without a word. Asked of such a server, they are an error that names them."""

from __future__ import annotations

from typing import Any

from portico.messages import ChatRequest, CompletionRequest

_LLAMACPP = frozenset(
    {
        "min_tokens",
        "stop_token_ids",
        "include_stop_str_in_output",
        "allowed_token_ids",
        "bad_words",
        "repetition_detection",
        "prompt_logprobs",
        "logprob_token_ids",
        "truncate_prompt_tokens",
        "thinking_token_budget",
        "chat_template",
        "kv_transfer_params",
        "vllm_xargs",
        "mm_processor_kwargs",
    }
)
"""Ten of them were tried with the embedded engine: the answer was the same as without. The last four are vLLM's alone by what they name."""
_OPENAI = _LLAMACPP | {
    "top_k",
    "min_p",
    "repetition_penalty",
    "ignore_eos",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
}
"""Not in its API reference (November 2026); some of it is refused there, which comes to the same."""
_OLLAMA = _OPENAI | {"n", "logit_bias"}
"""By the list of what its /v1 supports (docs/openai.md of Ollama, November 2026)."""
BY_SOFTWARE = {"llama.cpp": _LLAMACPP, "Ollama": _OLLAMA, "OpenAI": _OPENAI}
"""As portico.client.abilities calls them. vLLM has them all."""

_ANY = frozenset().union(*BY_SOFTWARE.values())
_TYPED = ("top_k", "min_p", "repetition_penalty", "logit_bias")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "min_tokens": (0,),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "include_stop_str_in_output": (False,),
    "ignore_eos": (False,),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
}
"""Values that ask for nothing."""


def asked_for(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    """What of the request some server overlooks."""
    sampling = request.sampling
    given: dict[str, Any] = {name: getattr(sampling, name) for name in _TYPED}
    given |= {name: value for name, value in sampling.extra.items() if name in _ANY}
    if request.n > 1:
        given["n"] = request.n
    if isinstance(request, ChatRequest):
        given["chat_template_kwargs"] = request.template_kwargs
    return tuple(name for name, value in given.items() if not _says_nothing(name, value))


def _says_nothing(name: str, value: Any) -> bool:
    return value is None or value in ([], {}, "") or value in _NEUTRAL.get(name, ())
