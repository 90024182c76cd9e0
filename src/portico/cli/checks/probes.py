"""The requests by which a model that runs is asked what it supports: few tokens, at temperature 0."""

from __future__ import annotations

from typing import Any

from portico.cli.checks.asking import Answer, Asker, Heard
from portico.cli.checks.who import Model

MOST_TOKENS = 16
PROMPT = "You are asked by portico doctor, which only wants to know whether you answer. " * 8 + "Say hello."
"""Long enough that its beginning can be found again in a cache of prompts: more than a hundred tokens."""
TOOL = {
    "type": "function",
    "function": {
        "name": "go",
        "description": "Go.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
CHOICES = ("yes", "no")
SCHEMA = {"enum": list(CHOICES)}
"""Not an object: before its keys a small model may write blanks until the tokens are used up."""


class OpenAI:
    """Requests in OpenAI's dialect, with what vLLM and llama.cpp add."""

    def __init__(self, model: Model, *, thinks_when_told: bool) -> None:
        self._model = model.name
        # Thoughts would use up the few tokens before the call or the JSON begins.
        self._quiet = {"chat_template_kwargs": {"enable_thinking": False}} if thinks_when_told else {}

    def chat(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/v1/chat/completions", self._body(1)),)

    def twice(self, asker: Asker) -> tuple[Heard, ...]:
        body = self._body(1)
        first = asker.post("/v1/chat/completions", body)
        return (first, asker.post("/v1/chat/completions", body)) if isinstance(first, Answer) else (first,)

    def tools(self, asker: Asker) -> tuple[Heard, ...]:
        """A call that is required, and whether one may be left to the model, as agents do. The first is streamed:
        a call's name is parsed long before the call is whole, for which the tokens may be too few."""
        required = self._quietly(
            asker, self._body(MOST_TOKENS, tools=[TOOL], tool_choice="required", stream=True)
        )
        return required, self._quietly(asker, self._body(1, tools=[TOOL], tool_choice="auto"))

    def schema(self, asker: Asker) -> tuple[Heard, ...]:
        form = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}
        return (self._quietly(asker, self._body(MOST_TOKENS, response_format=form)),)

    def logprobs(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/v1/chat/completions", self._body(1, logprobs=True, top_logprobs=1)),)

    def priority(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/v1/chat/completions", self._body(1, priority=1)),)

    def tokenize(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/tokenize", {"model": self._model, "prompt": "Hello", "content": "Hello"}),)

    def _body(self, tokens: int, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": PROMPT}]
        return {
            "model": self._model,
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": False,
            **more,
        }

    def _quietly(self, asker: Asker, body: dict[str, Any]) -> Heard:
        """Without thoughts; some templates refuse to be told so, and are asked as they are."""
        heard = asker.post("/v1/chat/completions", {**body, **self._quiet})
        if isinstance(heard, Answer) and heard.status == 400 and "template" in heard.said:
            return asker.post("/v1/chat/completions", body)
        return heard


class Ollama:
    """Requests in Ollama's dialect. The context is the one it was loaded with: with another one Ollama would load
    it anew."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def chat(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/api/chat", self._body(1)),)

    def tools(self, asker: Asker) -> tuple[Heard, ...]:
        body = self._body(MOST_TOKENS, tools=[TOOL])
        body["messages"] = [{"role": "user", "content": "Call the function go now, with no arguments."}]
        return (asker.post("/api/chat", body),)

    def schema(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/api/chat", self._body(MOST_TOKENS, format=SCHEMA)),)

    def logprobs(self, asker: Asker) -> tuple[Heard, ...]:
        return (asker.post("/api/chat", self._body(1, logprobs=True, top_logprobs=1)),)

    def _body(self, tokens: int, **more: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"temperature": 0, "num_predict": tokens}
        if self._model.context:
            options["num_ctx"] = self._model.context
        messages = [{"role": "user", "content": PROMPT}]
        return {"model": self._model.name, "messages": messages, "options": options, "stream": False, **more}
