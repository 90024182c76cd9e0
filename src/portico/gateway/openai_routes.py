"""OpenAI's routes: chat/completions, completions, embeddings, models; and vLLM's tokenize beside them."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Collection

import msgspec

from portico.dialects import body as bodies
from portico.dialects import openai
from portico.dialects.openai import wire
from portico.engines import Replica
from portico.errors import ContextLengthExceeded, InvalidRequest, UpstreamFailed
from portico.gateway import openai_shapes as shapes
from portico.gateway.inference import CHAT, COMPLETIONS, assemble, unsupported
from portico.gateway.models import Served
from portico.gateway.relay import SSE_TYPE, relay
from portico.gateway.serving import Serving
from portico.gateway.streaming import settle, stream
from portico.messages import ChatRequest, CompletionRequest
from portico.web import Request, Route

_tokenize = msgspec.json.Decoder(shapes.Tokenize)
_rerank = msgspec.json.Decoder(wire.Rerank)
_detokenize = msgspec.json.Decoder(shapes.Detokenize)


WRONG_FIELD = (400, 422)


class OpenAIRoutes:
    """Answers in OpenAI's dialect."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def rows(self) -> list[Route]:
        s, chat, completions = shapes, "/v1/chat/completions", "/v1/completions"
        return [
            _post(chat, self.chat, "Chat", wire.Chat, s.ChatReply, SSE_TYPE),
            _post(
                completions, self.completions, "Raw completion", wire.Completion, s.CompletionReply, SSE_TYPE
            ),
            _post("/v1/embeddings", self.embeddings, "Embeddings", wire.Embedding, s.Embeddings),
            _post("/v1/rerank", self.rerank, "Documents by how well they fit", wire.Rerank, s.Reranked),
            Route("GET", "/v1/models", self.models, "openai", "The models there are", gives=s.ModelList),
            Route("GET", "/v1/models/{model:path}", self.model, "openai", "One model", gives=s.ModelEntry),
            _post("/tokenize", self.tokenize, "Token ids of a text or a chat", s.Tokenize, s.Tokenized),
            _post("/detokenize", self.detokenize, "Text of token ids", s.Detokenize, s.Detokenized),
        ]

    async def chat(self, request: Request) -> None:
        body = await request.body()
        seen = openai.peek(body)
        stream_it = bool(seen.stream)
        served = await self._serving.models.resolve(seen.model)
        limit = seen.limit
        odd = _ODD.findall(body)
        foreign = bool(odd) and has_other_parts(body, odd)
        plain = foreign or is_plain(body, seen, odd)

        async def work(served: Served, replica: Replica) -> None:
            forced = may_force(seen) and not (foreign or replica.abilities.forces_arguments)
            if plain and not forced and goes_on(request, served, replica):
                over = limit is not None and replica.context is not None and limit >= replica.context
                sent = openai.relay_body(
                    body,
                    model=replica.served_name,
                    include_usage=stream_it,
                    drop=("max_tokens", "max_completion_tokens") if over else (),
                    changes=openai.bounds(seen, replica.abilities.spelling),
                    glance=seen,
                )
                try:
                    return await relay(
                        request, replica, CHAT, sent, stream=stream_it, usage=seen.include_usage
                    )
                except ContextLengthExceeded:
                    if limit is None or request.started or foreign:
                        raise
                    # The prompt may fit without the caller's max_tokens: the long way round clamps it.
                except UpstreamFailed as error:
                    if error.status in WRONG_FIELD and not request.started and not foreign:
                        openai.read_chat(body)  # ours names the field as OpenAI's clients know it
                    raise
            chat = served.applied(openai.read_chat(body))
            writer = openai.ChatWriter(
                seen.model, include_usage=chat.include_usage, numbered=wants_numbers(chat)
            )
            if chat.stream:
                events = await self._serving.inference.chat(chat, replica)
                return await stream(request, events, writer, SSE_TYPE, _end(writer))
            result = await self._serving.inference.chat_result(chat, replica, request.account)
            settle(request.account, result)
            await request.answer(200, writer.whole(result))

        comments = SSE_TYPE if stream_it else b""
        await self._serving.run(request, served, work, body=body, limit=limit, comments=comments)

    async def completions(self, request: Request) -> None:
        body = await request.body()
        seen = openai.peek(body)
        stream_it = bool(seen.stream)
        served = await self._serving.models.resolve(seen.model)

        empty = seen.limit == 0 and b'"echo"' not in body  # vLLM refuses it with an error about itself

        async def work(served: Served, replica: Replica) -> None:
            if goes_on(request, served, replica) and not empty:
                sent = openai.relay_body(
                    body,
                    model=replica.served_name,
                    include_usage=stream_it,
                    changes=openai.bounds(seen, replica.abilities.spelling),
                    glance=seen,
                )
                try:
                    return await relay(
                        request, replica, COMPLETIONS, sent, stream=stream_it, usage=seen.include_usage
                    )
                except ContextLengthExceeded:
                    if seen.limit is None or request.started:
                        raise
            completion = served.completed(openai.read_completion(body))
            writer = openai.CompletionWriter(
                seen.model, include_usage=completion.include_usage, numbered=wants_numbers(completion)
            )
            events = await self._serving.inference.completion(completion, replica)
            if completion.stream:
                return await stream(request, events, writer, SSE_TYPE, _end(writer))
            result = await assemble(events, request.account)
            settle(request.account, result)
            await request.answer(200, writer.whole(result))

        comments = SSE_TYPE if stream_it else b""
        await self._serving.run(request, served, work, body=body, limit=seen.limit, comments=comments)

    async def embeddings(self, request: Request) -> None:
        body = await request.body()
        asked = openai.read_embedding(body)
        served = await self._serving.models.resolve(asked.model)

        async def work(served: Served, replica: Replica) -> None:
            if replica.abilities.relays:
                sent = openai.relay_body(body, model=replica.served_name, include_usage=False)
                try:
                    return await relay(request, replica, "/v1/embeddings", sent, stream=False, usage=False)
                except UpstreamFailed as error:
                    if error.status == 404:  # vLLM has this route for models that embed, and else not
                        raise unsupported(replica, "embedding", "embeddings") from None
                    raise
            vectors, usage = await self._serving.inference.embeddings(asked, replica)
            request.account.usage = usage
            reply = openai.embedding_reply(asked.model, vectors, usage, encoding=asked.encoding)
            await request.answer(200, reply)

        await self._serving.run(request, served, work)

    async def rerank(self, request: Request) -> None:
        """Not OpenAI's own: vLLM and others have it, and their clients look for it beside OpenAI's routes."""
        body = await request.body()
        asked = bodies.decode(_rerank, body)
        served = await self._serving.models.resolve(asked.model)

        async def work(served: Served, replica: Replica) -> None:
            if not replica.abilities.relays:
                raise unsupported(replica, "rerank", "reranking needs a model and an engine made for it")
            sent = openai.relay_body(body, model=replica.served_name, include_usage=False)
            try:
                await relay(request, replica, "/v1/rerank", sent, stream=False, usage=False)
            except UpstreamFailed as error:
                if error.status == 404:
                    raise unsupported(replica, "rerank", "reranking") from None
                raise

        await self._serving.run(request, served, work)

    async def models(self, request: Request) -> None:
        models = self._serving.models
        await models.current()
        entries = [await self._entry(name) for name in models.names()]
        if request.header(b"anthropic-version") is not None:
            return await request.answer(200, _anthropic_list(entries))
        await request.answer(200, msgspec.json.encode({"object": "list", "data": entries}))

    async def model(self, request: Request) -> None:
        await request.answer(200, msgspec.json.encode(await self._entry(request.params["model"])))

    async def _entry(self, name: str) -> dict[str, object]:
        served = await self._serving.models.resolve(name)
        spec, facts = served.spec, served.spec.facts
        return {
            "id": name,
            "object": "model",
            "created": int(facts.modified or self._serving.models.started),
            "owned_by": "portico",
            "max_model_len": self._serving.supervisor.context(spec.name) or spec.most_context,
        }

    async def tokenize(self, request: Request) -> None:
        body = await request.body()
        asked = bodies.decode(_tokenize, body)
        served = await self._serving.models.resolve(asked.model)

        async def work(served: Served, replica: Replica) -> None:
            if asked.messages is not None:
                text = await replica.render(served.applied(openai.read_chat(body)))
            elif asked.prompt is not None:
                text = asked.prompt
            else:
                raise InvalidRequest("Send `prompt` or `messages`.", param="prompt")
            ids = await replica.tokenize(text, special=asked.add_special_tokens)
            pieces = await replica.pieces(text) if asked.return_token_strs else None
            answer = shapes.Tokenized(
                count=len(ids), max_model_len=replica.context, tokens=list(ids), token_strs=pieces
            )
            await request.answer(200, msgspec.json.encode(answer))

        await self._serving.run(request, served, work)

    async def detokenize(self, request: Request) -> None:
        asked = bodies.decode(_detokenize, await request.body())
        served = await self._serving.models.resolve(asked.model)

        async def work(served: Served, replica: Replica) -> None:
            answer = shapes.Detokenized(prompt=await replica.detokenize(asked.tokens))
            await request.answer(200, msgspec.json.encode(answer))

        await self._serving.run(request, served, work)


def goes_on(request: Request, served: Served, replica: Replica) -> bool:
    """The body may be passed on as it is. To a server that refuses what it does not know only if the caller chose it: the
    fields that the model knows for which it stands in are left out."""
    abilities = replica.abilities
    chosen = abilities.spelling.extensions or not request.account.fallback
    return abilities.relays and served.preset is None and chosen


def wants_numbers(request: ChatRequest | CompletionRequest) -> bool:
    """vLLM's own parameter; here it holds for engines that do not know it."""
    return request.sampling.extra.get("return_tokens_as_token_ids") is True


_REWORDED = (b'"developer"', b'"image_url"', b'"reasoning')
_OTHER_PARTS = (b'"video_url"', b'"input_audio"', b'"audio_url"')
_ODD = re.compile(b"|".join((*_REWORDED, *_OTHER_PARTS)))
"""What a chat is looked through for, all at once: each look of its own costs half as much as this one."""


def is_plain(body: bytes, seen: openai.Peek, odd: Collection[bytes]) -> bool:
    """Nothing in a chat has to be put differently for an engine: no role or field that only some know, no
    image in a form that only some accept. What merely occurs in a text stands there with escaped quotes. `odd` is
    what was found in it of the words above."""
    if seen.functions is not None or seen.function_call is not None or seen.reasoning is not None:
        return False
    if seen.tool_choice is not None and b'"allowed_tools"' in body:
        return False
    return not odd or not any(word in odd for word in _REWORDED)


def has_other_parts(body: bytes, odd: Collection[bytes]) -> bool:
    """A part that only the engine understands: the body goes to it as it is, and what is wrong with it the engine
    says."""
    if not any(word in odd for word in _OTHER_PARTS):
        return False
    try:
        said = _parts.decode(body)  # the word may also be a tool's parameter, or somebody's whole message
    except msgspec.DecodeError:
        return False
    return any(
        part.type in _OTHER_TYPES
        for message in said.messages
        if isinstance(message.content, list)
        for part in message.content
        if isinstance(part, _Part)
    )


class _Part(msgspec.Struct, gc=False):
    type: str = ""


class _Content(msgspec.Struct, gc=False):
    content: str | list[_Part | str] | None = None


class _Parts(msgspec.Struct, gc=False):
    messages: list[_Content] = []


_OTHER_TYPES = ("video_url", "input_audio", "audio_url")
_parts = msgspec.json.Decoder(_Parts)


def may_force(seen: openai.Peek) -> bool:
    """A tool call may be forced. Then the tools may have to be marked for the engine to keep to their schemas."""
    return seen.tool_choice not in (None, "auto", "none")


def _post(
    path: str,
    handle: Callable[[Request], Awaitable[None]],
    summary: str,
    takes: object,
    gives: object,
    streams: bytes | None = None,
) -> Route:
    content = streams.decode().partition(";")[0] if streams else None
    return Route("POST", path, handle, "openai", summary, takes=takes, gives=gives, streams=content)


def _end(writer: openai.ChatWriter | openai.CompletionWriter) -> Callable[[], Awaitable[bytes]]:
    async def end() -> bytes:
        return writer.end()

    return end


def _anthropic_list(entries: list[dict[str, object]]) -> bytes:
    """The same list for a caller that speaks Anthropic's dialect."""
    found = [
        {
            "type": "model",
            "id": entry["id"],
            "display_name": entry["id"],
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(str(entry["created"])))),
        }
        for entry in entries
    ]
    ends = (
        {"first_id": found[0]["id"], "last_id": found[-1]["id"]}
        if found
        else {"first_id": None, "last_id": None}
    )
    return msgspec.json.encode({"data": found, "has_more": False, **ends})
