"""llama.cpp's /infill: text between a prefix and a suffix. OpenAI's `suffix` is unknown to its completions, and
this route answers in its own language.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (POST /infill)
"""

from __future__ import annotations

import msgspec

from portico.dialects.framing import SSEReader
from portico.dialects.openai import LLAMACPP, write_completion
from portico.dialects.openai.errors import read_error
from portico.dialects.openai.logprobs import TokenWithTop, read
from portico.errors import InvalidRequest, PorticoError, UpstreamFailed
from portico.messages import CompletionRequest, Event, Finished, TextDelta, Usage, Used


class _Chunk(msgspec.Struct, gc=False):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    tokens_cached: int = 0
    completion_probabilities: list[TokenWithTop] | None = None


_chunk = msgspec.json.Decoder(_Chunk)


def write_infill(request: CompletionRequest) -> bytes:
    """The body for /infill, streamed. Raises InvalidRequest for a prompt of token ids."""
    prompt = request.prompts[0]
    if not isinstance(prompt, str):
        raise InvalidRequest("A suffix needs a prompt that is a text, not token ids.", param="prompt")
    streamed = msgspec.structs.replace(request, stream=True, suffix=None)
    body = msgspec.json.decode(write_completion(streamed, model="", spelling=LLAMACPP))
    for name in ("model", "prompt", "logprobs", "stream_options"):
        body.pop(name, None)
    if (limit := body.pop("max_tokens", None)) is not None:
        body["n_predict"] = limit
    if request.logprobs is not None:
        body["n_probs"] = max(1, request.logprobs)
    return msgspec.json.encode({**body, "input_prefix": prompt, "input_suffix": request.suffix or ""})


class InfillReader:
    """Reads a streamed reply of /infill; the same three members as OpenAI's ChunkReader."""

    def __init__(self) -> None:
        self.done = False
        self.failure: PorticoError | None = None
        self._frames = SSEReader()

    def feed(self, data: bytes) -> list[Event]:
        return self._events(self._frames.feed(data))

    def end(self) -> list[Event]:
        return self._events(self._frames.end())

    def _events(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for payload in payloads:
            if payload == b"[DONE]":
                continue
            if payload.startswith(b'{"error"'):
                self.failure = read_error(500, payload)
                break
            try:
                chunk = _chunk.decode(payload)
            except msgspec.DecodeError as error:
                self.failure = UpstreamFailed(f"The engine sent what cannot be read: {error}.", status=502)
                break
            probabilities = read(chunk.completion_probabilities) if chunk.completion_probabilities else ()
            if chunk.content or probabilities:
                events.append(TextDelta(text=chunk.content, logprobs=probabilities))
            if chunk.stop:
                self.done = True
                events.append(Finished(finish_reason="length" if chunk.stop_type == "limit" else "stop"))
                usage = Usage(input_tokens=chunk.tokens_evaluated, output_tokens=chunk.tokens_predicted)
                events.append(Used(usage=usage))
        if self.failure is not None and not events:
            raise self.failure
        return events
