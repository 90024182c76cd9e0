"""Raw text of models through the parsers of an installed vLLM, as its server does it: JSON in, JSON out.

Run by vLLM's own interpreter: `python tests/vllm_parse.py < in.json > out.json`. In: `tools`, `tokenizers`
and `samples` of vllm_samples.json. Out: what this vLLM knows by name, and every sample parsed as a whole,
streamed token by token, and streamed sixteen at a time: vLLM joins what a client has not fetched yet, and
speculative decoding makes several at once. Nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "CRITICAL"}
answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)  # vLLM logs to stdout, where only the answer may stand

import vllm  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders  # noqa: E402
from tokenizers.models import BPE  # noqa: E402
from tokenizers.pre_tokenizers import ByteLevel  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: E402
from vllm.parser import ParserManager  # noqa: E402
from vllm.reasoning import ReasoningParserManager  # noqa: E402
from vllm.tool_parsers import ToolParserManager  # noqa: E402
from vllm.transformers_utils.chat_templates.registry import CHAT_TEMPLATES_DIR  # noqa: E402
from vllm.v1.engine.detokenizer import IncrementalDetokenizer  # noqa: E402

STEPS = {"by_token": 1, "by_sixteen": 16}


def tokenizer_of(special: list[str], plain: list[str]) -> PreTrainedTokenizerFast:
    """Every byte is a token, beside those of the family: `special` ones vanish from the text unless a parser
    asks for them, `plain` ones are only never split."""
    vocabulary = {character: i for i, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in plain])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def encode(tokenizer: PreTrainedTokenizerFast, text: str, harmony: bool) -> list[int]:
    if not harmony:
        return list(tokenizer.encode(text, add_special_tokens=False))
    from vllm.entrypoints.openai.parser.harmony_utils import get_encoding  # gpt-oss brings its own tokens

    return list(get_encoding().encode(text, allowed_special="all"))


class Run:
    """One sample and everything that the server has at hand when its answer comes."""

    def __init__(self, sample: dict[str, Any], tokenizer: Any, tools: list[dict[str, Any]]) -> None:
        self.harmony = sample["tool_parser"] == "openai"
        self.tokenizer = tokenizer
        self.prompt = encode(tokenizer, sample["prompt"], self.harmony)
        self.output = encode(tokenizer, sample["output"] + sample["end"], self.harmony)
        self.stopped = bool(sample["end"])
        self.asked = {
            "model": "a-model",
            "messages": [{"role": "user", "content": "Hello"}],
            "tools": tools,
            "tool_choice": "auto",
            **sample.get("request", {}),
        }
        self.parser_class = ParserManager.get_parser(
            tool_parser_name=sample["tool_parser"],
            reasoning_parser_name=sample["reasoning_parser"],
            enable_auto_tools=sample["tool_parser"] is not None,
            is_harmony=self.harmony,
            tokenizer=tokenizer,
        )

    def start(self) -> tuple[Any, Any, Any]:
        """A parser, the request as it has changed it, and what turns tokens into text."""
        request = ChatCompletionRequest(**self.asked)
        variables = request.build_chat_params(None, "auto").chat_template_kwargs
        parser = self.parser_class(self.tokenizer, request.tools, chat_template_kwargs=variables)
        request = parser.adjust_request(request)
        engine_request = SimpleNamespace(
            request_id="a-request",
            prompt_token_ids=self.prompt,
            prompt_embeds=None,
            sampling_params=request.to_sampling_params(1000, {}),
        )
        return parser, request, IncrementalDetokenizer.from_new_request(self.tokenizer, engine_request)

    def chunks(self, detokenizer: Any, step: int) -> Iterator[tuple[str, list[int], bool]]:
        """Text, tokens, and whether they are the last. The token that ends a turn has no text."""
        for i in range(0, len(self.output), step):
            ids = self.output[i : i + step]
            last = i + step >= len(self.output)
            if not self.harmony:
                detokenizer.update(ids, last and self.stopped)
            yield detokenizer.get_next_output_text(last, delta=True), ids, last

    def whole(self) -> dict[str, Any]:
        parser, request, detokenizer = self.start()
        text = "".join(text for text, *_ in self.chunks(detokenizer, len(self.output)))
        reasoning, content, calls = parser.parse(
            text, request, enable_auto_tools=True, model_output_token_ids=self.output
        )
        return {
            "reasoning": reasoning,
            "content": content,
            "calls": [{"name": call.name, "arguments": call.arguments} for call in calls or []],
        }

    def streamed(self, step: int) -> dict[str, Any]:
        parser, request, detokenizer = self.start()
        said = {"reasoning": "", "content": ""}
        calls: dict[int, dict[str, str]] = {}
        for text, ids, last in self.chunks(detokenizer, step):
            delta = parser.parse_delta(text, ids, request, prompt_token_ids=self.prompt, finished=last)
            if delta is None:
                continue
            said["reasoning"] += delta.reasoning or ""
            said["content"] += delta.content or ""
            for piece in delta.tool_calls:
                call = calls.setdefault(piece.index, {"name": "", "arguments": ""})
                call["name"] += (piece.function and piece.function.name) or ""
                call["arguments"] += (piece.function and piece.function.arguments) or ""
        return {
            "reasoning": said["reasoning"] or None,
            "content": said["content"] or None,
            "calls": [calls[index] for index in sorted(calls)],
        }


def parsed(sample: dict[str, Any], tokenizer: Any, tools: list[dict[str, Any]]) -> dict[str, Any]:
    try:
        run = Run(sample, tokenizer, tools)
    except TypeError as error:  # what vLLM's server ends with at its start
        return {"refused": str(error)}
    return {"whole": run.whole()} | {name: run.streamed(step) for name, step in STEPS.items()}


def main() -> None:
    given = json.load(sys.stdin)
    tokenizers = {
        name: tokenizer_of(tokens["special"], tokens.get("plain", []))
        for name, tokens in given["tokenizers"].items()
    }
    result = {
        "version": vllm.__version__,
        "tool_parsers": ToolParserManager.list_registered(),
        "reasoning_parsers": ReasoningParserManager.list_registered(),
        "chat_templates": sorted(path.name for path in CHAT_TEMPLATES_DIR.glob("*.jinja")),
        "samples": [
            parsed(sample, tokenizers[sample["tokenizer"]], given["tools"]) for sample in given["samples"]
        ],
    }
    with answer:
        json.dump(result, answer, ensure_ascii=False)


if __name__ == "__main__":
    main()
