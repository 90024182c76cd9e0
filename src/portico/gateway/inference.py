"""The one path from a request to an engine's events; what an engine cannot do itself is made right here.

Pure decisions (what to send, what to drop) are functions; `Inference` acts on them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial

import msgspec

from portico.dialects import openai
from portico.dialects.assemble import Assembler
from portico.dialects.infill import InfillReader, write_infill
from portico.dialects.vectors import normalised
from portico.engines import Replica
from portico.engines.thinking import thinks_unasked
from portico.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    PorticoError,
    TemplateMissing,
    Unsupported,
    UpstreamClosed,
    UpstreamFailed,
    UpstreamUnreachable,
)
from portico.gateway.streams import (
    Echoed,
    Events,
    ForcedCall,
    Joined,
    Reader,
    ReplyEvents,
    Told,
    judged,
    obituary,
)
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Event,
    Finished,
    Format,
    Image,
    Message,
    ReasoningDelta,
    Result,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
    Used,
)
from portico.web import Account, Reply

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
INFILL = "/infill"
MOST_ANSWERS = 1024
NO_ROOM = "max_tokens must be at least 1, got 0"
"""What vLLM says of a prompt that fills its context to the last token. Whoever asks for no tokens is answered here."""
_MARKERS = 2
"""Tokens that an embedding model puts around a text: one before, one behind it."""
_TURN, _FRAME = 32, 256
"""Tokens that a chat template may add to a message, and to the whole: roles and markers, a system message of its
own."""


class Inference:
    """Asks replicas. Owns nothing; a stream it returns is closed by its caller."""

    async def chat(self, request: ChatRequest, replica: Replica) -> Events:
        """The events of a chat.

        1. Refuse what this model cannot do. 2. Without a chat template, chat as plain text if that was
        asked for. 3. Several choices: one request each where the engine cannot. 4. A forced tool call: a
        schema where the engine does not force. 5. Ask, and if the prompt does not fit, drop the oldest
        messages (Ollama's truncate) or clamp max_tokens, and ask again.
        """
        check_chat(request, replica)  # (1)
        if lacks_template(replica):  # (2)
            if replica.spec.chat_fallback == "prompt":
                return await self.completion(as_prompt(request), replica)
            raise TemplateMissing(model=replica.spec.name)
        if request.n > 1 and not replica.abilities.multiple:  # (3)
            one = msgspec.structs.replace(request, n=1)
            return joined([partial(self.chat, one, replica)] * request.n, replica, per_prompt=request.n)
        if is_forced(request.tool_choice) and not replica.abilities.forces_tools:
            return await self._forced(request, replica)  # (4)
        return await self._ask_chat(request, replica)  # (5)

    async def chat_result(self, request: ChatRequest, replica: Replica, account: Account) -> Result:
        """A whole chat. Engines that see a hang-up are asked for it whole; others stream, and it is put
        together here, so that a caller who leaves stops them."""
        if not replica.abilities.sees_hangup or (request.n > 1 and not replica.abilities.multiple):
            return await assemble(
                await self.chat(msgspec.structs.replace(request, stream=True), replica), account
            )
        check_chat(request, replica)
        return await self._ask_whole(request, replica)

    async def completion(self, request: CompletionRequest, replica: Replica) -> Events:
        """The events of a raw completion; several prompts and choices are asked one by one where the
        engine cannot take them together, the choices of a prompt standing side by side."""
        count = len(request.prompts) * request.n
        if count > MOST_ANSWERS:
            raise InvalidRequest(f"At most {MOST_ANSWERS} answers are given to one request.", param="prompt")
        if count > 1 and not replica.abilities.multiple:
            opens: list[Callable[[], Awaitable[Events]]] = []
            for prompt in request.prompts:
                one = msgspec.structs.replace(request, prompts=(prompt,), n=1)
                opens += [partial(self.completion, one, replica)] * request.n
            return joined(opens, replica, per_prompt=request.n)
        if request.suffix is not None and lacks(replica, "insert"):
            raise unsupported(replica, "insert", "suffix (fill in the middle)")
        if request.echo and not replica.abilities.echo:
            return await self._echoed(request, replica)
        if request.suffix is not None and not replica.abilities.suffix:
            return await open_stream(replica, INFILL, write_infill(request), InfillReader())
        if request.sampling.max_tokens == 0 and not request.echo:
            return Told(await self._nothing(request, replica))
        return await self._ask_completion(request, replica)

    async def embeddings(
        self, request: EmbeddingRequest, replica: Replica
    ) -> tuple[list[list[float]], Usage]:
        """One vector for each input. Raises Unsupported for a model that has none."""
        if lacks(replica, "embedding"):
            raise unsupported(replica, "embedding", "embeddings")
        try:
            vectors, usage = await ask_embeddings(request, replica)
        except UpstreamFailed as error:
            if error.status == 404:  # vLLM has this route for models that embed, and else not
                raise unsupported(replica, "embedding", "embeddings") from None
            raise
        except ContextLengthExceeded as error:
            if not request.truncate:
                raise
            vectors, usage = await ask_embeddings(await shortened(request, replica, error), replica)
        if request.dimensions is not None:  # an engine that knows no such thing gives all it has
            vectors = [
                normalised(vector, request.dimensions) if len(vector) > request.dimensions else vector
                for vector in vectors
            ]
        return vectors, usage

    # ---- inside

    async def _ask_chat(self, request: ChatRequest, replica: Replica) -> Events:
        if request.logprobs and request.tools and not replica.abilities.logprobs_with_tools:
            return Told(retold(await self._ask_whole(request, replica)))
        request = await self._budgeted(request, replica)
        try:
            return await open_chat(request, replica)
        except ContextLengthExceeded as error:
            return await open_chat(await self._fitted(request, replica, error), replica)

    async def _ask_whole(self, request: ChatRequest, replica: Replica) -> Result:
        request = await self._budgeted(request, replica)
        try:
            return openai.read_result(await fetch(replica, CHAT, write_chat(request, replica, stream=False)))
        except ContextLengthExceeded as error:
            smaller = await self._fitted(request, replica, error)
            return openai.read_result(await fetch(replica, CHAT, write_chat(smaller, replica, stream=False)))

    async def _budgeted(self, request: ChatRequest, replica: Replica) -> ChatRequest:
        """`num_ctx` never reloads a model: a smaller one only cuts the conversation."""
        budget = request.context
        if not request.truncate or budget is None or (replica.context and budget >= replica.context):
            return request
        if surely_fits(request, budget):
            return request
        try:
            return await self._dropped(request, replica, budget)
        except (Unsupported, UpstreamFailed):
            return request  # a server that cannot count: it will say itself what does not fit

    async def _fitted(
        self, request: ChatRequest, replica: Replica, error: ContextLengthExceeded
    ) -> ChatRequest:
        limit = error.limit or replica.context
        if limit is None:
            raise error
        try:
            tokens = await replica.count(request)
        except (Unsupported, UpstreamFailed):
            if error.tokens is None:
                raise error from None
            tokens = error.tokens
        if tokens < limit and request.sampling.max_tokens is not None:
            # The prompt fits, max_tokens on top of it does not: it is clamped, never refused.
            sampling = msgspec.structs.replace(request.sampling, max_tokens=limit - tokens)
            return msgspec.structs.replace(request, sampling=sampling)
        if not request.truncate:
            raise ContextLengthExceeded(tokens=tokens, limit=limit)
        try:
            return await self._dropped(request, replica, limit)
        except (Unsupported, UpstreamFailed):
            raise error from None

    async def _dropped(self, request: ChatRequest, replica: Replica, limit: int) -> ChatRequest:
        """The same request with the fewest oldest messages dropped that make it fit, as Ollama does."""
        candidates = list(droppings(request.messages))
        low, high = 0, len(candidates) - 1
        while low < high:  # the prompt shrinks with every message dropped: halve
            middle = (low + high) // 2
            trial = msgspec.structs.replace(request, messages=candidates[middle])
            if await replica.count(trial) < limit:
                high = middle
            else:
                low = middle + 1
        smaller = msgspec.structs.replace(request, messages=candidates[high])
        tokens = await replica.count(smaller)
        if tokens >= limit:
            raise ContextLengthExceeded(tokens=tokens, limit=limit)
        return smaller

    async def _forced(self, request: ChatRequest, replica: Replica) -> Events:
        request = await self._budgeted(request, replica)
        try:
            return await self._open_forced(request, replica)
        except ContextLengthExceeded as error:
            return await self._open_forced(await self._fitted(request, replica, error), replica)

    async def _open_forced(self, request: ChatRequest, replica: Replica) -> Events:
        """llama.cpp's grammar lets a model talk instead of calling. A schema does not: the template renders
        messages and tools as always, and the schema leaves only a call."""
        choice = request.tool_choice
        tools = request.tools
        if choice is not None and choice.mode == "named":
            tools = tuple(tool for tool in tools if tool.name == choice.name)
            if not tools:
                raise InvalidRequest(
                    f"tool_choice names {choice.name!r}, which is not in tools.", param="tool_choice"
                )
        elif not tools:
            raise InvalidRequest("tool_choice is 'required', but there are no tools.", param="tool_choice")
        if any(isinstance(part, Image) for message in request.messages for part in message.parts):
            raise unsupported(replica, "a forced tool call with images", "tool_choice")
        prompt = await replica.render(msgspec.structs.replace(request, tool_choice=None, tools=tools))
        # A model trained on <tool_call> writes the call badly without it, and badly without the name in it.
        marked = calls_in_marks(replica) and not prompt.rstrip().endswith("<think>")
        if marked:
            prompt += TOOL_CALL
        name = tools[0].name if len(tools) == 1 and not marked else None
        completion = CompletionRequest(
            model=request.model,
            prompts=(prompt,),
            format=Format(kind="schema", schema=call_schema(tools, named=name is None)),
            sampling=msgspec.structs.replace(
                request.sampling, stop=()
            ),  # a stop inside the JSON would break it
            stream=True,
            include_usage=True,
        )
        return ForcedCall(await self._ask_completion(completion, replica), name)

    async def _echoed(self, request: CompletionRequest, replica: Replica) -> Events:
        prompt = request.prompts[0]
        if request.logprobs is not None:
            raise Unsupported(
                "The embedded engine has no log probabilities of the prompt: echo and logprobs do not go together.",
                model=replica.spec.name,
                feature="echo with logprobs",
            )
        text = prompt if isinstance(prompt, str) else await replica.detokenize(prompt)
        return Echoed(await self.completion(msgspec.structs.replace(request, echo=False), replica), text)

    async def _nothing(self, request: CompletionRequest, replica: Replica) -> Sequence[Event]:
        """A completion of no tokens: llama.cpp would make one."""
        read = 0
        for prompt in request.prompts:
            read += len(
                prompt if not isinstance(prompt, str) else await replica.tokenize(prompt, special=True)
            )
        answers = range(len(request.prompts) * request.n)
        ended = [Finished(finish_reason="length", index=index) for index in answers]
        return (*ended, Used(usage=Usage(input_tokens=read)))

    async def _ask_completion(self, request: CompletionRequest, replica: Replica) -> Events:
        try:
            return await open_completion(request, replica)
        except ContextLengthExceeded as error:
            limit, asked = error.limit or replica.context, request.sampling.max_tokens
            if limit is None or asked is None or len(request.prompts) != 1:
                raise
            prompt = request.prompts[0]
            tokens = (
                len(prompt)
                if not isinstance(prompt, str)
                else len(await replica.tokenize(prompt, special=True))
            )
            if tokens >= limit:
                raise ContextLengthExceeded(tokens=tokens, limit=limit, param="prompt") from None
            sampling = msgspec.structs.replace(request.sampling, max_tokens=limit - tokens)
            return await open_completion(msgspec.structs.replace(request, sampling=sampling), replica)


# ---- asking an engine --------------------------------------------------------------------------


def write_chat(request: ChatRequest, replica: Replica, *, stream: bool) -> bytes:
    sent = msgspec.structs.replace(request, stream=stream)
    if is_forced(request.tool_choice) and not replica.abilities.forces_arguments:
        tools = tuple(msgspec.structs.replace(tool, strict=True) for tool in request.tools)
        sent = msgspec.structs.replace(sent, tools=tools)
    if replica.spec.engine == "llamacpp" and request.format is not None and not will_think(request, replica):
        # Its grammar lets a model that can think do so before the JSON, also where thinking is off.
        extra = {**request.sampling.extra, "reasoning_format": "none"}
        sent = msgspec.structs.replace(sent, sampling=msgspec.structs.replace(request.sampling, extra=extra))
    return openai.write_chat(sent, model=replica.served_name, spelling=replica.abilities.spelling)


def will_think(request: ChatRequest, replica: Replica) -> bool:
    return thinks_unasked(replica.spec) if request.think is None else bool(request.think)


async def open_chat(request: ChatRequest, replica: Replica) -> Events:
    body = write_chat(request, replica, stream=True)
    return await open_stream(replica, CHAT, body, openai.ChunkReader())


async def open_completion(request: CompletionRequest, replica: Replica) -> Events:
    streamed = msgspec.structs.replace(request, stream=True)
    body = openai.write_completion(streamed, model=replica.served_name, spelling=replica.abilities.spelling)
    return await open_stream(replica, COMPLETIONS, body, openai.CompletionChunkReader())


async def open_stream(replica: Replica, path: str, body: bytes, reader: Reader) -> Events:
    """Sends `body`, when it is its turn, and returns the reply's events. Raises the engine's own error, read."""
    if replica.turns is not None:
        await replica.turns.acquire()
    reply: Reply | None = None
    try:
        reply = await replica.upstream.request("POST", path, body)
        if reply.status != 200:
            raise read_refusal(replica, reply.status, await reply.read(), reply.header(b"retry-after"))
    except BaseException as error:
        if reply is not None:
            reply.close()
        if replica.turns is not None:
            replica.turns.release()
        if isinstance(error, UpstreamClosed | UpstreamUnreachable):
            raise await obituary(replica, error) from error
        raise
    return ReplyEvents(reply, reader, replica)


async def fetch(replica: Replica, path: str, body: bytes) -> bytes:
    """The body of a whole reply, when it is its turn. Raises the engine's own error, read."""
    async with replica.turns or nullcontext():
        try:
            answer = await replica.upstream.fetch("POST", path, body)
        except (UpstreamClosed, UpstreamUnreachable) as error:
            raise await obituary(replica, error) from error
    if answer.status != 200:
        raise read_refusal(replica, answer.status, answer.body, dict(answer.headers).get(b"retry-after"))
    return answer.body


def joined(opens: Sequence[Callable[[], Awaitable[Events]]], replica: Replica, *, per_prompt: int) -> Joined:
    """The streams as one, at a time half as many as the engine answers at once: the caller of all of them may read
    slowly, and others have to be served meanwhile."""
    at_once = max(1, replica.turns.at_once // 2) if replica.turns is not None else len(opens)
    return Joined(opens, per_prompt=per_prompt, at_once=at_once)


async def ask_embeddings(request: EmbeddingRequest, replica: Replica) -> tuple[list[list[float]], Usage]:
    spelling = replica.abilities.spelling
    body = openai.write_embedding(request, model=replica.served_name, spelling=spelling)
    return openai.read_embeddings(await fetch(replica, EMBEDDINGS, body))


async def shortened(
    request: EmbeddingRequest, replica: Replica, error: ContextLengthExceeded
) -> EmbeddingRequest:
    """The same request with every input cut at its end to what the model can take, as Ollama does."""
    limit = error.limit or replica.context
    if limit is None:
        raise error
    room = max(1, limit - _MARKERS)
    inputs: list[str | tuple[int, ...]] = []
    for each in request.inputs:
        if isinstance(each, str):
            try:
                tokens = await replica.tokenize(each)
                inputs.append(each if len(tokens) <= room else await replica.detokenize(tokens[:room]))
            except Unsupported:
                raise error from None
        else:
            inputs.append(each[:room])
    return msgspec.structs.replace(request, inputs=tuple(inputs))


def read_refusal(
    replica: Replica, status: int, body: bytes, retry_after: bytes | None = None
) -> PorticoError:
    """The engine's error in our words, where we have better ones; with its Retry-After, for the caller."""
    error = judged(replica, openai.read_error(status, body))
    if retry_after is not None:
        error.headers = ((b"retry-after", retry_after),)
    if isinstance(error, UpstreamFailed):
        text = str(error).lower()
        if error.status == 400 and NO_ROOM in text and replica.context is not None:
            return ContextLengthExceeded(tokens=replica.context, limit=replica.context)
        if (
            error.status < 500
            and "chat template" in text
            and ("must provide" in text or "no longer allowed" in text)
        ):
            return TemplateMissing(model=replica.spec.name)
        if "image input is not supported" in text or "is not a multimodal model" in text:
            return unsupported(replica, "vision", "images")
        if error.status in (401, 403):
            # The engine refused our key, not the caller's: to the caller this is a bad gateway.
            return UpstreamFailed(
                f"The engine refused its key: {error}", status=502, code="upstream_refused_key"
            )
    return error


async def assemble(stream: Events, account: Account) -> Result:
    """The whole of a stream, which is closed. The account is told when its parts arrived."""
    assembler = Assembler()
    try:
        while batch := await stream.batch():
            account.arrived(len(batch))
            for event in batch:
                assembler.add(event)
            await asyncio.sleep(0)  # a fast engine must not keep other callers waiting
        return assembler.result()
    finally:
        stream.close()


def retold(result: Result) -> list[Event]:
    """A whole answer as the events that would have made it."""
    events: list[Event] = []
    for choice in result.choices:
        index = choice.index
        if choice.reasoning:
            events.append(ReasoningDelta(text=choice.reasoning, index=index))
        if choice.text or choice.logprobs:
            events.append(TextDelta(text=choice.text, index=index, logprobs=choice.logprobs))
        events += [
            ToolCallDelta(call=number, id=call.id, name=call.name, arguments=call.arguments, index=index)
            for number, call in enumerate(choice.tool_calls)
        ]
        events.append(Finished(finish_reason=choice.finish_reason, index=index))
    return [*events, Used(usage=result.usage)]


# ---- decisions ---------------------------------------------------------------------------------


def lacks(replica: Replica, capability: str) -> bool:
    """Only the models of the embedded engine are known that well; other servers answer for themselves."""
    return replica.spec.engine == "llamacpp" and capability not in replica.spec.facts.capabilities


def is_forced(choice: ToolChoice | None) -> bool:
    return choice is not None and choice.mode in ("required", "named")


def surely_fits(request: ChatRequest, budget: int) -> bool:
    """Whether a conversation need not be counted. A token is at least a byte; tools, calls and images become
    text or tokens of which only the template and the model know how many."""
    if request.tools:
        return False
    size = _FRAME + _TURN * len(request.messages)
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Image | ToolCall):
                return False
            size += len(part.text.encode())
    return size < budget


def lacks_template(replica: Replica) -> bool:
    spec = replica.spec
    return spec.engine == "llamacpp" and spec.chat_template is None and spec.facts.chat_template is None


def check_chat(request: ChatRequest, replica: Replica) -> None:
    """Raises Unsupported for images a model cannot see."""
    if not lacks(replica, "vision"):
        return
    for message in request.messages:
        if any(isinstance(part, Image) for part in message.parts):
            raise unsupported(replica, "vision", "images")


def unsupported(replica: Replica, capability: str, feature: str) -> Unsupported:
    """Ollama's sentence: clients look for "does not support"."""
    name = replica.spec.name
    return Unsupported(f'"{name}" does not support {capability} ({feature}).', model=name, feature=feature)


def as_prompt(request: ChatRequest) -> CompletionRequest:
    """A conversation as plain text for a base model: "User: ...", blank line, "Assistant: ..."."""
    turns = [f"{message.role.capitalize()}: {message.text}" for message in request.messages]
    sampling = request.sampling
    stops = sampling.stop or ("\nUser:",)
    return CompletionRequest(
        model=request.model,
        prompts=("\n\n".join([*turns, "Assistant:"]),),
        sampling=msgspec.structs.replace(sampling, stop=stops),
        format=request.format,
        stream=request.stream,
        n=request.n,
        include_usage=True,
    )


def droppings(messages: Sequence[Message]) -> Sequence[tuple[Message, ...]]:
    """The conversation with 0, 1, 2, ... of its oldest messages left out; system messages and the last
    message always stay. A tool's result does not stay without the call it answers."""
    movable = [index for index, message in enumerate(messages[:-1]) if message.role != "system"]
    found = [tuple(messages)]
    for count in range(1, len(movable) + 1):
        dropped = set(movable[:count])
        rest = [message for index, message in enumerate(messages) if index not in dropped]
        first = next((message for message in rest if message.role != "system"), None)
        if first is not None and first.role == "tool" and count < len(movable):
            continue
        found.append(tuple(rest))
    return found


TOOL_CALL = "<tool_call>\n"
# The mark with a JSON object of name and arguments in it, as a template spells it. Others (Qwen3-Coder, GLM,
# Hunyuan) put XML or names into the same mark.
HERMES = re.compile(r"""<tool_call>(?:\\n|\s)*\{\\?["'](?:name|arguments)\b""")


def calls_in_marks(replica: Replica) -> bool:
    """Whether the chat template writes calls as Hermes does."""
    return HERMES.search(replica.spec.chat_template or replica.spec.facts.chat_template or "") is not None


def call_schema(tools: Sequence[Tool], *, named: bool) -> dict[str, object]:
    """The JSON schema of a call: an object of name and arguments, or the lone tool's arguments."""
    if not named:
        return parameters(tools[0])
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": parameters(tool)},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
    }


def parameters(tool: Tool) -> dict[str, object]:
    """A tool's schema. What it does not name is not allowed unless it says so: a grammar that lets a model
    invent further arguments lets a small one invent them for ever."""
    schema = tool.parameters if isinstance(tool.parameters, dict) else {}
    if schema.get("type", "object") == "object" and "properties" in schema:
        return {"type": "object", "additionalProperties": False, **schema}
    return schema or {"type": "object", "properties": {}}
