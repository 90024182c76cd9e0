"""Replies in OpenAI's dialect: written as its own client validates them, read from engines as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from openai import APIError
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from dialects_fixtures import completion_events, openai_events, openai_sees, openai_stream, sse_payloads
from portico.dialects import openai
from portico.dialects.assemble import Assembler
from portico.errors import Busy, UpstreamFailed
from portico.messages import (
    Choice,
    Event,
    Finished,
    Logprob,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    Used,
)

USED = Used(usage=Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=0))


def written(*events: Event, include_usage: bool = False) -> bytes:
    writer = openai.ChatWriter("m", include_usage=include_usage, id="chatcmpl-1", created=7)
    return b"".join(writer.write(event) for event in events) + writer.end()


# ---- streams, written ----------------------------------------------------------------------------


def test_a_stream_to_the_byte() -> None:
    head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":['
    assert written(TextDelta(text='a"ü'), TextDelta(text="b"), Finished(finish_reason="stop")).decode() == (
        f'data: {head}{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]}}\n\n'
        f'data: {head}{{"index":0,"delta":{{"content":"a\\"ü"}},"logprobs":null,"finish_reason":null}}]}}\n\n'
        f'data: {head}{{"index":0,"delta":{{"content":"b"}},"logprobs":null,"finish_reason":null}}]}}\n\n'
        f'data: {head}{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_usage_is_null_until_the_last_chunk_which_has_no_choices() -> None:
    body = written(TextDelta(text="a"), USED, Finished(finish_reason="stop"), include_usage=True)
    *chunks, last, done = sse_payloads(body)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_usage_that_nobody_asked_for_is_not_written() -> None:
    assert all("usage" not in chunk for chunk in sse_payloads(written(TextDelta(text="a"), USED))[:-1])


def test_the_role_comes_once_for_each_choice_even_without_text() -> None:
    body = written(TextDelta(text="a", index=1), TextDelta(text="b", index=1), Finished(finish_reason="stop"))
    deltas = [
        (choice["index"], choice["delta"]) for chunk in sse_payloads(body)[:-1] for choice in chunk["choices"]
    ]
    assert [(index, delta.get("role")) for index, delta in deltas] == [
        (1, "assistant"),
        (1, None),
        (1, None),
        (0, "assistant"),
        (0, None),
    ]


def test_reasoning_has_both_names() -> None:
    chunk = sse_payloads(written(ReasoningDelta(text="hm")))[1]
    assert chunk["choices"][0]["delta"] == {"reasoning": "hm", "reasoning_content": "hm"}


def test_tool_calls_in_pieces() -> None:
    body = written(
        ToolCallDelta(call=0, id="c1", name="f"),
        ToolCallDelta(call=0, arguments='{"a"'),
        ToolCallDelta(call=0, arguments=":1}"),
        ToolCallDelta(call=1, name="g", arguments="{}"),
        Finished(finish_reason="tool_calls"),
    )
    pieces = [
        piece
        for chunk in sse_payloads(body)[:-1]
        for choice in chunk["choices"]
        for piece in choice["delta"].get("tool_calls", ())
    ]
    assert pieces[0] == {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    assert pieces[1] == {"index": 0, "function": {"arguments": '{"a"'}}
    assert pieces[2] == {"index": 0, "function": {"arguments": ":1}"}}
    assert pieces[3]["index"] == 1 and pieces[3]["id"].startswith("call_") and pieces[3]["type"] == "function"


def test_an_error_ends_a_stream() -> None:
    writer = openai.ChatWriter("m", include_usage=True)
    body = writer.write(TextDelta(text="a")) + writer.error(Busy()) + writer.end()
    *_, error = sse_payloads(body)
    assert error == {
        "error": {"message": str(Busy()), "type": "rate_limit_error", "param": None, "code": "overloaded"}
    }
    with pytest.raises(APIError, match="server busy"):
        openai_stream(body)


def test_an_answer_that_the_engine_aborts_ends_in_an_error() -> None:
    body = written(TextDelta(text="a"), Finished(finish_reason="error"))
    assert "error" in sse_payloads(body)[-1]


@given(openai_events())
def test_the_openai_client_reads_every_stream(events: list[Event]) -> None:
    chunks = openai_stream(written(*events, include_usage=True))
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    text = "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == 0
    )
    assert text == "".join(
        event.text for event in events if isinstance(event, TextDelta) and event.index == 0
    )
    assert chunks[-1].usage is not None and {chunk.id for chunk in chunks} == {"chatcmpl-1"}


# ---- whole bodies, written -----------------------------------------------------------------------


def test_content_is_null_beside_calls_and_a_text_otherwise() -> None:
    call = ToolCall(id="c1", name="f", arguments="{}")
    result = Result(choices=(Choice(tool_calls=(call,), finish_reason="tool_calls"), Choice(index=1)))
    body = json.loads(openai.ChatWriter("m", id="chatcmpl-1", created=7).whole(result))
    assert body["choices"][0] == {
        "index": 0,
        "message": {
            "content": None,
            "role": "assistant",
            "refusal": None,
            "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}, "type": "function"}],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert body["choices"][1]["message"]["content"] == ""


def test_logprobs_of_a_chat() -> None:
    token = Logprob(token="é", logprob=-0.5, bytes=(195, 169), top=(Logprob(token="e", logprob=-1.5),))
    body = json.loads(openai.ChatWriter("m").whole(Result(choices=(Choice(text="é", logprobs=(token,)),))))
    assert body["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -1.5, "bytes": None}],
            }
        ],
        "refusal": None,
    }


def assembled(events: list[Event]) -> Result:
    assembler = Assembler()
    for event in events:
        assembler.add(event)
    return assembler.result()


@given(openai_events())
def test_the_openai_client_reads_every_chat(events: list[Event]) -> None:
    result = assembled(events)
    with openai_sees(openai.ChatWriter("m").whole(result)) as client:
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert isinstance(answer, ChatCompletion)
    assert [choice.message.content or "" for choice in answer.choices] == [
        choice.text for choice in result.choices
    ]


@given(completion_events())
def test_the_openai_client_reads_every_completion(events: list[Event]) -> None:
    writer = openai.CompletionWriter("m", include_usage=True)
    stream = b"".join(writer.write(event) for event in events) + writer.end()
    payloads = sse_payloads(stream)[:-1]
    for choice in (choice for payload in payloads for choice in payload["choices"]):
        # The client's type has no null here, though OpenAI's own server sends it until the last chunk.
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    chunks = [Completion.model_validate(payload) for payload in payloads]
    assert chunks[-1].usage is not None
    with openai_sees(openai.CompletionWriter("m").whole(assembled(events))) as client:
        answer = client.completions.create(model="m", prompt="x")
    assert isinstance(answer, Completion)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert (
        answer.choices[0].text == text == "".join(choice.text for chunk in chunks for choice in chunk.choices)
    )


def test_logprobs_of_a_completion_stand_in_columns() -> None:
    tokens = (
        Logprob(token="ab", logprob=-1.0, top=(Logprob(token="x", logprob=-2.0),)),
        Logprob(token="c", logprob=-0.5),
    )
    writer = openai.CompletionWriter("m")
    events = (TextDelta(text="ab", logprobs=tokens[:1]), TextDelta(text="c", logprobs=tokens[1:]))
    streamed = [
        payload["choices"][0]["logprobs"] for event in events for payload in sse_payloads(writer.write(event))
    ]
    assert [columns["text_offset"] for columns in streamed] == [[0], [2]]
    whole = json.loads(
        openai.CompletionWriter("m").whole(Result(choices=(Choice(text="abc", logprobs=tokens),)))
    )
    assert whole["choices"][0]["logprobs"] == {
        "text_offset": [0, 2],
        "token_logprobs": [-1.0, -0.5],
        "tokens": ["ab", "c"],
        "top_logprobs": [{"x": -2.0}, {}],
    }


# ---- chunks, read --------------------------------------------------------------------------------


def read(*payloads: Any, reader: openai.ChunkReader | None = None) -> list[Event]:
    body = b"".join(
        b"data: " + (payload if isinstance(payload, bytes) else json.dumps(payload).encode()) + b"\n\n"
        for payload in payloads
    )
    return (reader or openai.ChunkReader()).feed(body)


def chunk(delta: Any = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]}


def test_what_says_nothing_gives_no_event() -> None:
    reader = openai.ChunkReader()
    assert reader.feed(b": comment\n\ndata: null\n\ndata:\n\n") == []
    assert (
        read(
            chunk({"role": "assistant", "content": None}),
            chunk({"content": ""}),
            chunk(None),
            {},
            reader=reader,
        )
        == []
    )


def test_reasoning_under_either_name_and_before_the_text() -> None:
    assert read(chunk({"reasoning": "a"}), chunk({"reasoning_content": "b", "content": "c"})) == [
        ReasoningDelta(text="a"),
        ReasoningDelta(text="b"),
        TextDelta(text="c"),
    ]
    assert read(chunk({"reasoning": "a", "reasoning_content": "a"})) == [ReasoningDelta(text="a")]


def test_log_probabilities_without_a_text_are_not_lost() -> None:
    logprobs = {"content": [{"token": "é", "logprob": -1.0, "bytes": [195], "top_logprobs": []}]}
    assert read(chunk({"content": ""}, logprobs=logprobs)) == [
        TextDelta(text="", logprobs=(Logprob(token="é", logprob=-1.0, bytes=(195,)),))
    ]


def test_usage_comes_once_wherever_it_stands() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": None}
    used = Used(usage=Usage(input_tokens=1, output_tokens=2))
    finished = Finished(finish_reason="stop")
    running = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    assert read(chunk({}, finish_reason="stop"), {"choices": [], "usage": usage}, b"[DONE]") == [
        finished,
        used,
    ]
    in_last = {**chunk({}, finish_reason="stop"), "usage": usage}
    assert read(in_last, b"[DONE]") == [finished, used]
    every = [{**chunk({"content": "a"}), "usage": running}, in_last, {"choices": [], "usage": usage}]
    assert read(*every) == [TextDelta(text="a"), finished, used]


def test_a_reply_is_whole_without_done_once_all_its_choices_have_finished() -> None:
    reader = openai.ChunkReader()
    read(chunk({"content": "a"}), chunk({"content": "b"}, index=1), reader=reader)
    assert not reader.done
    read(chunk({}, finish_reason="length"), reader=reader)
    assert not reader.done
    read(chunk({}, finish_reason="stop", index=1), reader=reader)
    assert reader.done


def test_done_alone_is_the_end() -> None:
    reader = openai.ChunkReader()
    assert reader.feed(b"data: [DONE]\n\n") == [] and reader.done


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("abort", "error"),
        ("content_filter", "stop"),
        ("eos", "stop"),
    ],
)
def test_reasons_to_finish(sent: str, reason: Any) -> None:
    assert read(chunk({}, finish_reason=sent)) == [Finished(finish_reason=reason)]


def test_tool_calls_without_index_and_with_an_object() -> None:
    delta = {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}]}
    assert read(chunk(delta)) == [ToolCallDelta(call=0, id="c1", name="f", arguments='{"a":1}')]


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "out of memory", "type": "server_error", "code": 500}},
        {"error": "out of memory"},
        {"object": "error", "message": "out of memory", "code": 500},
    ],
)
def test_an_error_in_the_stream_is_raised(payload: Any) -> None:
    with pytest.raises(UpstreamFailed, match="out of memory") as caught:
        read(payload)
    assert caught.value.status == 500


def test_what_came_before_an_error_in_the_same_packet_is_not_lost() -> None:
    reader = openai.ChunkReader()
    assert read(chunk({"content": "a"}), {"error": "out of memory"}, reader=reader) == [TextDelta(text="a")]
    assert isinstance(reader.failure, UpstreamFailed)
    for again in (lambda: reader.feed(b""), reader.end):
        with pytest.raises(UpstreamFailed, match="out of memory"):
            again()


def test_llamacpps_own_error_events_are_raised() -> None:
    with pytest.raises(UpstreamFailed, match="out of memory"):
        openai.ChunkReader().feed(b'error: {"code":500,"message":"out of memory"}\n\n')


@pytest.mark.parametrize("payload", [b"nonsense", b"<html>", b"[1]", b'{"choices":5}', b"[" * 100_000])
def test_what_is_no_chunk_is_the_engines_failure(payload: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        read(payload)
    assert caught.value.status == 502


def test_a_character_that_the_engine_cut_does_not_end_the_stream() -> None:
    surrogate = b'{"choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}'
    no_utf8 = b'{"choices":[{"index":0,"delta":{"content":"b\xf0\x9f"}}]}'
    assert read(surrogate, no_utf8) == [TextDelta(text="a\ufffd"), TextDelta(text="b\ufffd")]


def test_completions_in_either_shape() -> None:
    reader = openai.CompletionChunkReader()
    columns = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": [None, {"b": -1.0}],
        "text_offset": [0, 1],
    }
    first, second = read(
        {"choices": [{"index": 0, "text": "ab", "logprobs": columns}]}, chunk(None, text="c"), reader=reader
    )
    assert isinstance(first, TextDelta) and first.text == "ab" and second == TextDelta(text="c")
    unknown, known = first.logprobs
    assert unknown.logprob != unknown.logprob and known == Logprob(
        token="b", logprob=-1.0, top=(Logprob(token="b", logprob=-1.0),)
    )
    again = openai.CompletionWriter("m").write(first)
    assert sse_payloads(again)[0]["choices"][0]["logprobs"]["token_logprobs"] == [None, -1.0]
    llamacpp = {"content": [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]}
    assert read({"choices": [{"index": 0, "text": "a", "logprobs": llamacpp}]}, reader=reader) == [
        TextDelta(text="a", logprobs=(Logprob(token="a", logprob=-1.0, bytes=(97,)),))
    ]


def test_whole_replies_that_are_none() -> None:
    for body in (b"", b"null", b"<html>", b'{"choices": 5}', b"[]"):
        for reading in (openai.read_result, openai.read_completion_result, openai.read_embeddings):
            with pytest.raises(UpstreamFailed):
                reading(body)
    with pytest.raises(UpstreamFailed, match="boom"):
        openai.read_result(b'{"error": {"message": "boom"}}')


# ---- embeddings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(encoding: Any) -> None:
    vectors = [[0.5, -0.25], [1.0, 2.0]]
    body = openai.embedding_reply("m", vectors, Usage(input_tokens=4), encoding=encoding)
    assert openai.read_embeddings(body) == (vectors, Usage(input_tokens=4))
    # The client asks for base64 by itself and decodes it, but its strict type knows only numbers.
    with openai_sees(body, strict=encoding == "float") as client:
        answer = client.embeddings.create(model="m", input="x")
    assert isinstance(answer, CreateEmbeddingResponse)
    assert [item.embedding for item in answer.data] == vectors
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4


def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    body = {
        "data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}],
        "usage": {"prompt_tokens": 2},
    }
    assert openai.read_embeddings(json.dumps(body).encode())[0] == [[1.0], [2.0]]
