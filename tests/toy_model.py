"""A server whose model has seven tokens and probabilities that anybody can compute: for searches that a test repeats in its
own way. Token 0 and 6 are ends."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from scripted_answers import COMPLETIONS, reply, usual_answer
from scripted_upstream import Answer, Received, ScriptedUpstream

VOCABULARY, ENDS = 7, (0, 6)


def logprobs(prefix: Sequence[int]) -> list[float]:
    """Of each token after these."""
    drawn = hashlib.sha256(repr(list(prefix)).encode()).digest()
    logits = [drawn[token] / 64 for token in range(VOCABULARY)]
    total = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - total for logit in logits]


def named(token: int) -> str:
    return f"token_id:{token}"


def speak(upstream: ScriptedUpstream, request: Received) -> Answer:
    """vLLM's way with a completion of one token; everything else as usual."""
    if request.path.removeprefix("/v1") != "/completions":
        return usual_answer(upstream, request)
    return reply(200, completion(request.json))


def completion(body: dict[str, Any]) -> dict[str, Any]:
    given = logprobs(body["prompt"])
    bias = {int(token): float(value) for token, value in (body.get("logit_bias") or {}).items()}
    token = max(range(VOCABULARY), key=lambda at: given[at] + bias.get(at, 0))
    top = sorted(range(VOCABULARY), key=lambda at: -given[at])[: body.get("logprobs") or 1]
    said = {
        "tokens": [named(token)],
        "token_logprobs": [given[token]],
        "top_logprobs": [{named(at): given[at] for at in top}],
        "text_offset": [0],
    }
    choice = {
        "index": 0,
        "text": "x",
        "logprobs": said,
        "finish_reason": "stop" if token in ENDS else "length",
    }
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1, "total_tokens": 0}
    return {"id": "c", "model": "mock-model", "choices": [choice], "usage": usage}


__all__ = ["COMPLETIONS", "ENDS", "VOCABULARY", "logprobs", "speak"]
