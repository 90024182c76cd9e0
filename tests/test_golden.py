"""The embedded engine says what transformers says with the same weights: greedy answers and log probabilities.

models/portico-tiny/golden.json has transformers' answers (float32); models/portico-tiny/recipe/golden.py writes it.
Its prompts have no near ties, so the answers must be equal, and the log probabilities within what 16 bit cost.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import pytest

from gguf_edit import TINY
from live_server import LiveServer

NEAR = 0.05
"""For the log probability of a token that was chosen."""
RELATIVE = 0.02
"""... and of another one, which is further from 0: this part of it, where that is more."""
BROKEN = "\ufffd"


@cache
def golden() -> dict[str, Any]:
    found = json.loads((TINY.parent / "golden.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def names() -> list[str]:
    return [prompt["name"] for prompt in golden()["prompts"]]


def test_it_was_made_with_these_weights() -> None:
    weights = hashlib.sha256((TINY.parent / "model.safetensors").read_bytes()).hexdigest()
    assert weights == golden()["weights"], (
        "golden.json is of other weights: write it again (recipe/golden.py)"
    )
    assert len(names()) >= 6


@pytest.mark.parametrize("name", names())
def test_a_prompt_is_the_same_tokens(server: LiveServer, name: str) -> None:
    prompt = next(each for each in golden()["prompts"] if each["name"] == name)
    body = {"model": "default", "prompt": prompt["prompt"], "add_special_tokens": False}
    assert server.ask("POST", "/tokenize", body)["tokens"] == prompt["prompt_ids"]


@pytest.mark.parametrize("name", names())
def test_a_greedy_answer_is_that_of_transformers(server: LiveServer, name: str) -> None:
    prompt = next(each for each in golden()["prompts"] if each["name"] == name)
    texts, ends = golden()["texts"], golden()["ends"]
    tokens = [token for token in prompt["greedy"]["tokens"] if token["id"] not in ends]
    body = {"model": "default", "prompt": prompt["prompt"], "temperature": 0, "max_tokens": len(tokens) + 8}
    choice = server.ask("POST", "/v1/completions", {**body, "logprobs": 5})["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (prompt["greedy"]["text"], "stop")

    said = choice["logprobs"]
    for at, token in enumerate(tokens):
        assert said["token_logprobs"][at] == pytest.approx(token["logprob"], abs=NEAR), (
            at,
            texts[str(token["id"])],
        )
        others = said["top_logprobs"][at]
        for id_, logprob in token["top"][:3]:
            text = texts[str(id_)]
            if BROKEN not in text and id_ not in ends and logprob > token["top"][4][1] + 2 * NEAR:
                assert others[text] == pytest.approx(logprob, abs=NEAR, rel=RELATIVE), (at, text)
