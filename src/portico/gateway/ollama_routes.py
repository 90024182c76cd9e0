"""Ollama's routes that run a model: generate, chat, embed, embeddings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from portico.dialects import ollama
from portico.dialects.framing import sse
from portico.dialects.ollama import wire
from portico.engines import Replica
from portico.engines.thinking import thinks_unasked
from portico.errors import PorticoError, Unsupported
from portico.gateway.inference import assemble, check_chat, lacks_template
from portico.gateway.models import Served
from portico.gateway.ollama_shapes import EmbeddingBody, EmbedReply, Reply
from portico.gateway.relay import SSE_TYPE
from portico.gateway.serving import Serving
from portico.gateway.streaming import Stamps, settle, stream
from portico.gateway.streams import Events
from portico.messages import ChatRequest, CompletionRequest, Event, Usage
from portico.web import Account, Request, Route

NDJSON = b"application/x-ndjson"


class OllamaRoutes:
    """Answers in Ollama's dialect."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def rows(self) -> list[Route]:
        kind = NDJSON.decode()
        return [
            _post("/api/chat", self.chat, "Chat", wire.Chat, Reply, kind),
            _post("/api/generate", self.generate, "Generate", wire.Generate, Reply, kind),
            _post("/api/embed", self.embed, "Embeddings", wire.Embed, EmbedReply),
            _post("/api/embeddings", self.embeddings, "An embedding", wire.Embeddings, EmbeddingBody),
        ]

    async def chat(self, request: Request) -> None:
        body = await request.body()
        asked = ollama.read_chat(body)
        served = await self._serving.models.resolve(asked.model)
        writer = ollama.ChatWriter(asked.model)
        if not asked.messages:
            return await self._load(request, served, writer, asked.keep_alive)

        async def work(served: Served, replica: Replica) -> None:
            chat = thoughtful(served.applied(asked), served)
            if chat.stream:
                events = await self._serving.inference.chat(chat, replica)
                return await self._stream(request, events, writer)
            result = await self._serving.inference.chat_result(chat, replica, request.account)
            settle(request.account, result)
            now = self._serving.stamps.now()
            await request.answer(200, writer.whole(result, timing(request.account), created_at=now))

        limit, keep_alive = asked.sampling.max_tokens, asked.keep_alive
        await self._serving.run(request, served, work, keep_alive=keep_alive, body=body, limit=limit)

    async def generate(self, request: Request) -> None:
        body = await request.body()
        asked = ollama.read_generate(body)
        wanted = asked.request
        served = await self._serving.models.resolve(wanted.model)
        writer = ollama.GenerateWriter(wanted.model)
        if asked.empty:
            return await self._load(request, served, writer, wanted.keep_alive)

        async def work(served: Served, replica: Replica) -> None:
            inference = self._serving.inference
            remembered: Memory | None = None
            if isinstance(wanted, ChatRequest):
                chat = thoughtful(served.applied(wanted), served)
                remembered = Memory(replica, chat, asked.context)
                if asked.context or lacks_template(replica):
                    check_chat(chat, replica)
                    events = await inference.completion(await remembered.request(), replica)
                else:
                    events = await inference.chat(chat, replica)
            else:
                events = await inference.completion(served.completed(wanted), replica)
            if wanted.stream:
                return await self._stream(request, events, writer, remembered)
            result = await assemble(events, request.account)
            settle(request.account, result)
            context = await remembered(result.choices[0].text) if remembered and result.choices else ()
            now = self._serving.stamps.now()
            await request.answer(
                200, writer.whole(result, timing(request.account), created_at=now, context=context)
            )

        limit, keep_alive = wanted.sampling.max_tokens, wanted.keep_alive
        await self._serving.run(request, served, work, keep_alive=keep_alive, body=body, limit=limit)

    async def _load(
        self,
        request: Request,
        served: Served,
        writer: ollama.ChatWriter | ollama.GenerateWriter,
        keep_alive: float | None,
    ) -> None:
        """An empty prompt loads the model; with keep_alive 0 it unloads it."""
        if keep_alive == 0:
            request.account.model = served.spec.name
            request.watch()  # running requests are waited for, and who asked may leave meanwhile
            for spec in served.replicas:
                await self._serving.supervisor.unload(spec.name)
        else:

            async def work(served: Served, replica: Replica) -> None:
                pass

            await self._serving.run(request, served, work, keep_alive=keep_alive)
        now = self._serving.stamps.now()
        said = writer.loaded(now, reason="unload") if keep_alive == 0 else writer.loaded(now)
        await request.answer(200, said)

    async def _stream(
        self,
        request: Request,
        events: Events,
        writer: ollama.ChatWriter | ollama.GenerateWriter,
        remembered: Memory | None = None,
    ) -> None:
        """NDJSON; server-sent events only for a caller that asks for them by name."""
        as_events = b"text/event-stream" in (request.header(b"accept") or b"")
        lines = Lines(writer, self._serving.stamps, as_events=as_events, remember=remembered is not None)

        async def end() -> bytes:
            context = await remembered(lines.text) if remembered is not None else ()
            now = self._serving.stamps.now()
            return lines.framed(writer.final(timing(request.account), created_at=now, context=context))

        await stream(request, events, lines, SSE_TYPE if as_events else NDJSON, end)

    async def embed(self, request: Request) -> None:
        asked = ollama.read_embed(await request.body())
        served = await self._serving.models.resolve(asked.model)

        async def work(served: Served, replica: Replica) -> None:
            # Without an input the model is only loaded.
            vectors: list[list[float]] = []
            usage = Usage()
            if asked.inputs:
                vectors, usage = await self._serving.inference.embeddings(asked, replica)
            request.account.arrived()
            request.account.usage = usage
            reply = ollama.embed_reply(asked.model, vectors, timing(request.account), usage)
            await request.answer(200, reply)

        await self._serving.run(request, served, work, keep_alive=asked.keep_alive)

    async def embeddings(self, request: Request) -> None:
        asked = ollama.read_embeddings(await request.body())
        served = await self._serving.models.resolve(asked.model)

        async def work(served: Served, replica: Replica) -> None:
            vectors: list[list[float]] = []
            usage = Usage()
            if asked.inputs:
                vectors, usage = await self._serving.inference.embeddings(asked, replica)
            request.account.usage = usage
            await request.answer(200, ollama.embeddings_reply(vectors[0] if vectors else ()))

        await self._serving.run(request, served, work, keep_alive=asked.keep_alive)


class Lines:
    """A writer of Ollama's lines that knows the time and how lines are framed."""

    def __init__(
        self,
        writer: ollama.ChatWriter | ollama.GenerateWriter,
        stamps: Stamps,
        *,
        as_events: bool,
        remember: bool,
    ) -> None:
        self._writer, self._stamps, self._as_events = writer, stamps, as_events
        self._texts: list[str] | None = [] if remember else None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts or ())

    def write(self, event: Event) -> bytes:
        if self._texts is not None:
            self._texts.append(getattr(event, "text", ""))
        lines = self._writer.write(event, self._stamps.now())
        return self.framed(lines) if self._as_events else lines

    def error(self, error: PorticoError) -> bytes:
        return self.framed(self._writer.error(error))

    def framed(self, lines: bytes) -> bytes:
        if not self._as_events:
            return lines
        return b"".join([sse(line) for line in lines.splitlines()])


class Memory:
    """`context` of generate: the conversation so far as token ids, which the caller sends back."""

    def __init__(self, replica: Replica, chat: ChatRequest, context: tuple[int, ...]) -> None:
        self._replica, self._chat, self._context = replica, chat, context

    async def request(self) -> CompletionRequest:
        """The prompt with what came before it: as text, because its template is applied already."""
        chat = self._chat
        before = await self._replica.detokenize(self._context) if self._context else ""
        prompt = before + await self._rendered()
        return CompletionRequest(
            model=chat.model,
            prompts=(prompt,),
            sampling=chat.sampling,
            format=chat.format,
            stream=chat.stream,
            logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
            include_usage=True,
        )

    async def _rendered(self) -> str:
        """What the model's template makes of this turn; a model without one gets what its caller wrote, as it
        does from Ollama, whose template for it is `{{ .Prompt }}`."""
        if lacks_template(self._replica):
            return "\n\n".join(message.text for message in self._chat.messages if message.text)
        return await self._replica.render(self._chat)

    async def __call__(self, answer: str) -> tuple[int, ...]:
        """The ids of everything, the answer included; none from an engine that does not tell ids."""
        try:
            prompt = await self._rendered()
            ids = await self._replica.tokenize(prompt + answer, special=not self._context)
        except PorticoError:  # the answer is complete: what cannot be told about it must not spoil it
            return ()
        return (*self._context, *ids)


def timing(account: Account) -> ollama.Timing:
    now = time.perf_counter_ns()
    total, load = now - account.started, account.load_ns
    if account.last <= account.first:
        # An answer that came in one piece does not tell when it began. Clients divide its tokens by `eval`.
        return ollama.Timing(total=total, load=load, eval=total - load)
    prompt = account.first - account.started - load
    return ollama.Timing(total=total, load=load, prompt=prompt, eval=account.last - account.first)


def thoughtful(chat: ChatRequest, served: Served) -> ChatRequest:
    """Ollama's defaults and refusals for a model that is known well: a thinking model thinks unless told
    otherwise, or its template does so only when asked; thinking or tools asked of a model that has none are
    an error."""
    if served.spec.engine != "llamacpp":
        return chat
    capabilities = served.spec.facts.capabilities
    if chat.think and "thinking" not in capabilities:
        raise Unsupported(f'"{chat.model}" does not support thinking', model=chat.model, feature="thinking")
    if chat.tools and "tools" not in capabilities:
        raise Unsupported(f'"{chat.model}" does not support tools', model=chat.model, feature="tools")
    if chat.think is None and "thinking" in capabilities and thinks_unasked(served.spec):
        return msgspec.structs.replace(chat, think=True)
    return chat


def _post(
    path: str,
    handle: Callable[[Request], Awaitable[None]],
    summary: str,
    takes: object,
    gives: object,
    streams: str | None = None,
) -> Route:
    return Route("POST", path, handle, "ollama", summary, takes=takes, gives=gives, streams=streams)
