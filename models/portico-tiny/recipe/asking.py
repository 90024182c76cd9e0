"""A sample as a request of OpenAI's API, and the reply as a message that can be judged."""

from __future__ import annotations

import json
from typing import Any

from recipe.sample import Message, Sample

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
Json = dict[str, Any]


def request(sample: Sample, *, grammar: bool = False, model: str = "default") -> tuple[str, Json]:
    """(path, body). `grammar`: the answer is held to the sample's schema, or to a tool call."""
    body: Json = {"model": model, "temperature": 0, "max_tokens": sample.max_tokens}
    if sample.completion is not None:
        return COMPLETIONS, {**body, "prompt": sample.completion}
    body["messages"] = [spelled(message) for message in sample.prompt]
    if sample.tools:
        body["tools"] = list(sample.tools)
    if sample.thinking:
        body["chat_template_kwargs"] = {"enable_thinking": True}
    if grammar and sample.schema is not None:
        shape = {"name": "answer", "schema": sample.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    elif grammar:
        body["tool_choice"] = "required"
    return CHAT, body


def has_grammar(sample: Sample) -> bool:
    """A schema; or one call, that tool_choice can force. Two calls it cannot, and it leaves no room to think."""
    if sample.completion is not None:
        return False
    return sample.schema is not None or (
        len(sample.answer.get("tool_calls") or []) == 1 and not sample.thinking
    )


def spelled(message: Message) -> Message:
    """OpenAI's arguments are text; and our own mark on a message is nobody else's business."""
    said = {name: value for name, value in message.items() if name != "untrained"}
    if not message.get("tool_calls"):
        return said
    calls = []
    for call in message["tool_calls"]:
        function = dict(call["function"])
        if not isinstance(function["arguments"], str):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        calls.append({**call, "function": function})
    return {**said, "tool_calls": calls}


def answer(path: str, reply: Json) -> tuple[Message, str]:
    """(the assistant's message, why it ended)."""
    choice = reply["choices"][0]
    reason = choice.get("finish_reason") or "none"
    if path == COMPLETIONS:
        return {"role": "assistant", "content": choice["text"]}, reason
    message = dict(choice["message"])
    if not message.get("reasoning_content") and message.get("reasoning"):
        message["reasoning_content"] = message["reasoning"]  # vLLM's newer name
    return message, reason


def ended(reason: str) -> bool:
    """The model ended by itself."""
    return reason in ("stop", "tool_calls")
