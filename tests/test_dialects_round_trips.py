"""read(write(x)) == x, in both dialects, for requests and for streams whose bytes are split anywhere."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dialects_fixtures import (
    completion_events,
    ollama_chats,
    ollama_events,
    openai_chats,
    openai_completions,
    openai_embeddings,
    openai_events,
    split,
)
from portico.dialects import ollama, openai
from portico.dialects.assemble import Assembler
from portico.dialects.openai import logprobs
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Event,
    Finished,
    ReasoningDelta,
    Result,
    TextDelta,
)

CUTS = st.lists(st.integers(0, 10**6), max_size=8)
AT = "2026-11-21T08:00:00.000000001Z"
# What llama.cpp is told about white space in a schema is not the caller's, and would be read back as his.
_LLAMACPP = msgspec.structs.replace(openai.LLAMACPP, compact_schemas=False)
SPELLINGS = st.sampled_from([openai.ANY, openai.VLLM, _LLAMACPP])


@given(openai_chats, SPELLINGS)
def test_openai_chat(request: ChatRequest, spelling: openai.Spelling) -> None:
    body = openai.write_chat(request, model=request.model, spelling=spelling)
    assert openai.read_chat(body) == request


@given(openai_chats)
def test_a_streamed_chat_always_asks_for_its_usage(request: ChatRequest) -> None:
    streamed = msgspec.structs.replace(request, stream=True)
    read = openai.read_chat(openai.write_chat(streamed, model=request.model))
    assert read == msgspec.structs.replace(streamed, include_usage=True)


@given(openai_completions, st.sampled_from([openai.ANY, openai.VLLM]))  # llama.cpp's has its own schema field
def test_openai_completion(request: CompletionRequest, spelling: openai.Spelling) -> None:
    body = openai.write_completion(request, model=request.model, spelling=spelling)
    assert openai.read_completion(body) == request


@given(openai_embeddings)
def test_openai_embedding(request: EmbeddingRequest) -> None:
    assert openai.read_embedding(openai.write_embedding(request, model=request.model)) == request


@given(ollama_chats)
def test_ollama_chat(request: ChatRequest) -> None:
    assert ollama.read_chat(ollama.write_chat(request)) == request


@given(ollama_chats)
def test_from_ollama_to_an_engine_and_back(request: ChatRequest) -> None:
    """What Ollama can say, OpenAI can: nothing is lost between caller and engine but the server's affairs."""
    plain = msgspec.structs.replace(
        request,
        stream=False,
        keep_alive=None,
        truncate=False,
        context=None,
        logprobs=False,
        top_logprobs=None,
    )
    assert openai.read_chat(openai.write_chat(plain, model=plain.model)) == plain


def fed(reader: Any, body: bytes, cuts: list[int]) -> list[Event]:
    events = [event for piece in split(body, cuts) for event in reader.feed(piece)]
    assert reader.done
    return events


@given(openai_events(), CUTS)
def test_openai_stream(events: list[Event], cuts: list[int]) -> None:
    writer = openai.ChatWriter("m", include_usage=True)
    body = b"".join(writer.write(event) for event in events) + writer.end()
    assert fed(openai.ChunkReader(), body, cuts) == events


@given(completion_events(), CUTS)
def test_openai_completion_stream(events: list[Event], cuts: list[int]) -> None:
    writer = openai.CompletionWriter("m", include_usage=True)
    body = b"".join(writer.write(event) for event in events) + writer.end()
    assert fed(openai.CompletionChunkReader(), body, cuts) == events


@given(ollama_events(), CUTS)
def test_ollama_stream(events: list[Event], cuts: list[int]) -> None:
    writer = ollama.ChatWriter("m")
    body = b"".join(writer.write(event, AT) for event in events) + writer.final(
        ollama.Timing(), created_at=AT
    )
    assert fed(ollama.ChunkReader(), body, cuts) == events


@given(ollama_events(), CUTS)
def test_ollama_generation(events: list[Event], cuts: list[int]) -> None:
    writer = ollama.GenerateWriter("m")
    body = b"".join(writer.write(event, AT) for event in events) + writer.final(
        ollama.Timing(), created_at=AT
    )
    assert fed(ollama.ChunkReader(), body, cuts) == events


def assembled(events: list[Event]) -> Result:
    assembler = Assembler()
    for event in events:
        assembler.add(event)
    return assembler.result()


@given(openai_events())
def test_a_whole_chat_is_its_stream_assembled(events: list[Event]) -> None:
    result = assembled(events)
    for (
        choice
    ) in result.choices:  # a token beyond the text is the one that ended the turn: it is read as such
        assume(logprobs.of_text(choice.logprobs, choice.text) == choice.logprobs)
    assert openai.read_result(openai.ChatWriter("m").whole(result)) == result


@given(completion_events())
def test_a_whole_completion_is_its_stream_assembled(events: list[Event]) -> None:
    result = assembled(events)
    assert openai.read_completion_result(openai.CompletionWriter("m").whole(result)) == result


@given(ollama_events())
def test_a_whole_ollama_chat_is_its_stream_assembled(events: list[Event]) -> None:
    result = assembled(events)
    body = ollama.ChatWriter("m").whole(result, ollama.Timing(), created_at=AT)
    reader = ollama.ChunkReader()
    assert assembled([*reader.feed(body), *reader.end()]) == result


@pytest.mark.parametrize("crlf", [b"\r\n", b"\r"])
@given(openai_events(), CUTS)
def test_other_line_ends(crlf: bytes, events: list[Event], cuts: list[int]) -> None:
    writer = openai.ChatWriter("m", include_usage=True)
    body = b"".join(writer.write(event) for event in events) + writer.end()
    reader = openai.ChunkReader()
    pieces = split(body.replace(b"\n", crlf), cuts)
    found = [event for piece in pieces for event in reader.feed(piece)] + reader.end()
    assert found == events and reader.done


@given(openai_events())
def test_events_may_be_written_in_the_other_dialect(events: list[Event]) -> None:
    """An OpenAI engine behind an Ollama caller: every text of the first choice arrives, in order."""
    writer, reader = ollama.ChatWriter("m"), ollama.ChunkReader()
    body = b"".join(writer.write(event, AT) for event in events) + writer.final(
        ollama.Timing(), created_at=AT
    )
    read = reader.feed(body)
    for kind in (TextDelta, ReasoningDelta):
        sent = [event.text for event in events if isinstance(event, kind) and event.index == 0]
        assert [event.text for event in read if isinstance(event, kind)] == sent
    assert sum(isinstance(event, Finished) for event in read) == 1
