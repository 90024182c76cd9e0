"""Ollama's `options`, both ways: names of samplers, the budget of tokens, and what only loading knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from portico.dialects.body import INT32
from portico.dialects.extra import STRUCTURAL
from portico.errors import InvalidRequest
from portico.messages import JSON, Sampling, Value

# ---- types, in the words of Ollama's errors ------------------------------------------------------


def _integer(sent: object) -> int | None:
    """A number; its fraction is cut off, as Ollama does."""
    if isinstance(sent, bool) or not isinstance(sent, int | float) or sent != sent:
        return None
    return int(min(max(sent, -(2.0**62)), 2.0**62))


def _float(sent: object) -> float | None:
    if isinstance(sent, bool) or not isinstance(sent, int | float):
        return None
    return float(min(max(sent, -1e30), 1e30))


def _boolean(sent: object) -> bool | None:
    return sent if isinstance(sent, bool) else None


def _texts(sent: object) -> list[str] | None:
    """A list of texts; a lone text is one of one."""
    if isinstance(sent, str):
        return [sent]
    if isinstance(sent, list) and all(isinstance(item, str) for item in sent):
        return sent
    return None


Reader = Callable[[object], Any]

_INTEGER: tuple[Reader, str] = (_integer, "integer")
_FLOAT: tuple[Reader, str] = (_float, "float32")
_BOOLEAN: tuple[Reader, str] = (_boolean, "boolean")

_SAMPLING: dict[str, tuple[Reader, str]] = {
    "num_predict": _INTEGER,
    "max_tokens": _INTEGER,  # not Ollama's; clients written for other servers send it
    "num_ctx": _INTEGER,
    "temperature": _FLOAT,
    "top_k": _INTEGER,
    "top_p": _FLOAT,
    "min_p": _FLOAT,
    "typical_p": _FLOAT,
    "repeat_penalty": _FLOAT,
    "repetition_penalty": _FLOAT,  # vLLM's word
    "repeat_last_n": _INTEGER,
    "presence_penalty": _FLOAT,
    "frequency_penalty": _FLOAT,
    "seed": _INTEGER,
    "stop": (_texts, "array"),
}

# How a model is loaded. A request never loads a model anew, so they are looked at and left alone.
_LOADING: dict[str, tuple[Reader, str]] = {
    **dict.fromkeys(
        ("num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"), _INTEGER
    ),
    **dict.fromkeys(
        ("numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mmap", "use_mlock", "embedding_only"),
        _BOOLEAN,
    ),
    "penalize_newline": _BOOLEAN,  # no engine has these two any more
    "tfs_z": _FLOAT,
}


class Options(Value, frozen=True, kw_only=True):
    sampling: Sampling = Sampling()
    context: int | None = None
    """num_ctx: tokens that prompt and answer may take together."""


# ---- reading -------------------------------------------------------------------------------------


def read_options(sent: Mapping[str, JSON] | None) -> Options:
    """Raises InvalidRequest: `option "stop" must be of type array`. null means unset; names that are
    neither Ollama's nor structural go to `Sampling.extra`."""
    known: dict[str, Any] = {}
    extra: dict[str, JSON] = {}
    for name, value in (sent or {}).items():
        if value is None:
            continue
        kind = _SAMPLING.get(name) or _LOADING.get(name)
        if kind is not None:
            known[name] = _typed(name, value, kind)
        elif name not in STRUCTURAL:
            extra[name] = value
    sampling = _sampling(known, extra)
    context = known.get("num_ctx")
    return Options(sampling=sampling, context=context if context and context > 0 else None)


def _typed(name: str, value: JSON, kind: tuple[Reader, str]) -> Any:
    read, word = kind
    found = read(value)
    if found is None:
        raise InvalidRequest(f'option "{name}" must be of type {word}', param=f"options.{name}")
    return found


def _sampling(known: Mapping[str, Any], extra: dict[str, JSON]) -> Sampling:
    limit = known.get("num_predict", known.get("max_tokens"))
    top_k, top_p, min_p = known.get("top_k"), known.get("top_p"), known.get("min_p")
    seed, temperature = known.get("seed"), known.get("temperature")
    if known.get("typical_p", 1.0) != 1.0:
        extra["typical_p"] = known["typical_p"]
    if known.get("repeat_last_n"):
        extra["repeat_last_n"] = known["repeat_last_n"]
    return Sampling(
        # -1 is no limit and -2 until the context is full; 0 would give nothing.
        max_tokens=min(limit, INT32) if limit is not None and limit > 0 else None,
        temperature=None if temperature is None else max(temperature, 0.0),
        top_p=top_p if top_p is None or 0 < top_p <= 1 else 1.0,
        top_k=top_k if top_k is None or top_k > 0 else -1,
        min_p=None if min_p is None else min(max(min_p, 0.0), 1.0),
        seed=seed if seed is not None and seed >= 0 else None,
        stop=tuple(text for text in known.get("stop", ()) if text),
        presence_penalty=_clamped(known.get("presence_penalty")),
        frequency_penalty=_clamped(known.get("frequency_penalty")),
        repetition_penalty=_repetition(known),
        extra=extra,
    )


def _clamped(penalty: float | None) -> float | None:
    return None if penalty is None else min(max(penalty, -2.0), 2.0)


def _repetition(known: Mapping[str, Any]) -> float | None:
    """repeat_last_n 0 means: look at no token, so punish none."""
    penalty: float | None = known.get("repeat_penalty", known.get("repetition_penalty"))
    if penalty is None or penalty <= 0 or known.get("repeat_last_n") == 0:
        return None
    return penalty


# ---- writing -------------------------------------------------------------------------------------


def write_options(sampling: Sampling, context: int | None) -> dict[str, JSON]:
    """`options` of a request; what is None is left out. Ollama has no logit_bias."""
    options: dict[str, JSON] = {
        "num_predict": sampling.max_tokens,
        "num_ctx": context,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        **sampling.extra,
    }
    return {name: value for name, value in options.items() if value is not None}
