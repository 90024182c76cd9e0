"""Tokens: who counts them, when a number is a guess, and what an answer has room for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from portico.errors import NoSuchModel, PromptTooLong
from scripted_answers import COMPLETIONS, reply
from scripted_upstream import ScriptedUpstream
from test_client import Both, error

TOKENIZE = "/tokenize"


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


class Counts:
    """Several counts by one client, one after the other; an error stands for itself."""

    def __init__(self, both: Both, *models: str | None) -> None:
        self.found: list[Any] = []
        if both.kind == "sync":
            both.do(lambda one: [self._sync(one, model) for model in models])
        else:
            both.do(lambda one: self._async(one, models))

    def _sync(self, one: Any, model: str | None) -> None:
        try:
            self.found.append(one.count("Hello", model=model))
        except NoSuchModel as failed:
            self.found.append(failed)

    async def _async(self, one: Any, models: tuple[str | None, ...]) -> None:
        for model in models:
            try:
                self.found.append(await one.count("Hello", model=model))
            except NoSuchModel as failed:
                self.found.append(failed)


def test_a_wrong_model_is_an_error_and_later_counts_stay_exact(
    both: Both, upstream: ScriptedUpstream
) -> None:
    upstream.script(TOKENIZE, error(404, "The model `nope` does not exist."))
    wrong, right = Counts(both, "nope", None).found
    assert isinstance(wrong, NoSuchModel) and right.exact


def test_a_route_that_one_model_lacks_is_asked_for_another(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(TOKENIZE, error(501, "This engine does not count."))
    guessed, exact, again = Counts(both, "remote", "local", "remote").found
    assert (guessed.exact, exact.exact, again.exact) == (False, True, False)
    assert len(upstream.requests(TOKENIZE)) == 2, "what is missing is not asked for again"


def test_several_raw_prompts_have_the_rest_of_the_context_too(both: Both, upstream: ScriptedUpstream) -> None:
    """And not the 16 tokens of vLLM."""
    both.do(lambda one: one.complete(["ab", "abcd"]))
    assert upstream.last(COMPLETIONS)["max_tokens"] == upstream.max_model_len - 4
    both.do(lambda one: one.complete([[1, 2, 3]]))
    assert upstream.last(COMPLETIONS)["max_tokens"] == upstream.max_model_len - 3


def test_one_of_several_raw_prompts_is_too_long(both: Both, upstream: ScriptedUpstream) -> None:
    with pytest.raises(PromptTooLong) as caught:
        both.do(lambda one: one.complete(["a", "a" * upstream.max_model_len]))
    assert caught.value.tokens == caught.value.limit == upstream.max_model_len
    assert not upstream.requests(COMPLETIONS)


def test_a_server_that_cannot_count_decides_itself(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(TOKENIZE, reply(404, {"detail": "Not Found"}))
    both.do(lambda one: one.complete("Hello"))
    assert "max_tokens" not in upstream.last(COMPLETIONS)
