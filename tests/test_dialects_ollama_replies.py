"""Replies in Ollama's dialect: written as its own client reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from ollama._types import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse

from dialects_fixtures import lines, ollama_events, openai_events
from portico.dialects import ollama
from portico.dialects.ollama.conversation import arguments
from portico.dialects.vectors import normalised
from portico.errors import (
    Busy,
    ContextLengthExceeded,
    EngineDied,
    InvalidRequest,
    ModelNotFound,
    PorticoError,
    Unsupported,
    UpstreamFailed,
    WaitedTooLong,
)
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

AT = "2026-11-21T08:00:00.000000001Z"
TIMING = ollama.Timing(total=9, load=1, prompt=3, eval=5)
USAGE = Usage(input_tokens=3, output_tokens=2)
METRICS = {
    "total_duration": 9, "load_duration": 1, "prompt_eval_count": 3, "prompt_eval_duration": 3,
    "eval_count": 2, "eval_duration": 5,
}  # fmt: skip


def chat(*events: Event) -> list[Any]:
    writer = ollama.ChatWriter("M:Latest")
    return lines(
        b"".join(writer.write(event, AT) for event in events) + writer.final(TIMING, USAGE, created_at=AT)
    )


def generation(*events: Event, **final: Any) -> list[Any]:
    writer = ollama.GenerateWriter("M:Latest")
    body = b"".join(writer.write(event, AT) for event in events)
    return lines(body + writer.final(TIMING, USAGE, created_at=AT, **final))


# ---- streams -------------------------------------------------------------------------------------


def test_a_chat_to_the_byte() -> None:
    writer = ollama.ChatWriter("m")
    assert writer.write(TextDelta(text='a"\nü'), AT).decode() == (
        f'{{"model":"m","created_at":"{AT}","message":{{"role":"assistant","content":"a\\"\\nü"}},"done":false}}\n'
    )
    assert writer.write(Finished(finish_reason="length"), AT) == b""
    assert writer.write(Used(usage=USAGE), AT) == b""
    assert writer.final(TIMING, created_at=AT).decode() == (
        f'{{"model":"m","created_at":"{AT}","message":{{"role":"assistant","content":""}},"done":true,'
        '"done_reason":"length","total_duration":9,"load_duration":1,"prompt_eval_count":3,'
        '"prompt_eval_duration":3,"eval_count":2,"eval_duration":5}\n'
    )


def test_a_generation() -> None:
    head = {"model": "M:Latest", "created_at": AT}
    assert generation(ReasoningDelta(text="hm"), TextDelta(text="a"), context=[1, 2]) == [
        {**head, "response": "", "thinking": "hm", "done": False},
        {**head, "response": "a", "done": False},
        {**head, "response": "", "done": True, "done_reason": "stop", "context": [1, 2], **METRICS},
    ]


def test_thinking_in_a_chat() -> None:
    thought, *_ = chat(ReasoningDelta(text="hm"))
    assert thought["message"] == {"role": "assistant", "content": "", "thinking": "hm"}


def test_durations_are_never_zero_and_counts_of_zero_are_left_out() -> None:
    last = json.loads(ollama.ChatWriter("m").final(ollama.Timing(eval=-5), Usage(), created_at=AT))
    assert [
        last[name] for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    ] == [1] * 4
    assert "eval_count" not in last and "prompt_eval_count" not in last


def test_tool_calls_come_whole_with_objects_and_the_answer_still_ends_in_stop() -> None:
    first, second, last = chat(
        ToolCallDelta(call=0, id="call_12345678", name="f", arguments='{"b": 1,'),
        ToolCallDelta(call=0, arguments=' "a": [1.0]}'),
        ToolCallDelta(call=1, name="g"),
        Finished(finish_reason="tool_calls"),
    )
    assert first["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"function": {"name": "f", "arguments": {"b": 1, "a": [1.0]}, "index": 0}, "id": "call_12345678"}
        ],
    }
    assert list(first["message"]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]
    given = second["message"]["tool_calls"][0]
    assert given["function"] == {"name": "g", "arguments": {}, "index": 1}
    assert len(given["id"]) == 13 and given["id"].startswith("call_")
    assert (first["done"], last["done"], last["done_reason"]) == (False, True, "stop")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (" ", {}),
        ("null", {}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": ', {"invalid_json": '{"a": '}),
        ("[1]", {"invalid_json": "[1]"}),
        ("5", {"invalid_json": "5"}),
        ('"text"', {"invalid_json": '"text"'}),
        ('{"a":"\\ud800"}', {"invalid_json": '{"a":"\\ud800"}'}),
        ("[" * 100_000, {"invalid_json": "[" * 100_000}),
        ('{"a":' * 950 + "1" + "}" * 950, {"invalid_json": '{"a":' * 950 + "1" + "}" * 950}),
        ('{"a":[' + "[]," * 200 + "[]]}", {"a": [[]] * 201}),
    ],
)
def test_arguments_are_always_an_object(text: str, read: dict[str, Any]) -> None:
    assert arguments(text) == read


def test_calls_that_no_finish_followed_are_not_lost() -> None:
    called, last = chat(ToolCallDelta(call=0, name="f", arguments="{}"))
    assert called["message"]["tool_calls"] and last["done"]


def test_log_probabilities() -> None:
    token = Logprob(
        token="é", logprob=-0.5, bytes=(195, 169), top=(Logprob(token="e", logprob=-1.5, bytes=(101,)),)
    )
    said, *_ = chat(TextDelta(text="é", logprobs=(token, Logprob(token="x", logprob=-1.0))))
    assert said["logprobs"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -1.5, "bytes": [101]}],
        },
        {"token": "x", "logprob": -1.0, "bytes": None},
    ]
    assert said["message"]["content"] == "é"


def test_an_error_ends_a_stream() -> None:
    writer = ollama.ChatWriter("m")
    body = writer.write(TextDelta(text="a"), AT) + writer.error(EngineDied(model="m"))
    body += writer.final(TIMING, created_at=AT)
    assert lines(body)[1:] == [{"error": str(EngineDied(model="m"))}]


def test_an_answer_that_the_engine_aborts_ends_in_an_error() -> None:
    *_, last = chat(TextDelta(text="a"), Finished(finish_reason="error"))
    assert list(last) == ["error"]


def test_only_the_first_choice_is_written() -> None:
    said = chat(TextDelta(text="a"), TextDelta(text="b", index=1), Finished(finish_reason="length", index=1))
    assert [line["message"]["content"] for line in said] == ["a", ""] and said[-1]["done_reason"] == "stop"


@given(openai_events())
def test_ollamas_client_reads_every_stream(events: list[Event]) -> None:
    chats = [ChatResponse.model_validate(line) for line in chat(*events)]
    generations = [GenerateResponse.model_validate(line) for line in generation(*events)]
    text = "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == 0)
    assert "".join(line.message.content or "" for line in chats) == text
    assert "".join(line.response or "" for line in generations) == text
    calls = [call.function.name for line in chats for call in line.message.tool_calls or ()]
    assert calls == [
        event.name for event in events if isinstance(event, ToolCallDelta) and event.name and event.index == 0
    ]
    assert [line.done for line in chats] == [False] * (len(chats) - 1) + [True]


# ---- whole bodies --------------------------------------------------------------------------------


def test_a_whole_chat() -> None:
    call = ToolCall(id="call_12345678", name="f", arguments='{"a":1}')
    choice = Choice(text="a", reasoning="hm", tool_calls=(call,), finish_reason="tool_calls")
    body = ollama.ChatWriter("M").whole(Result(choices=(choice,), usage=USAGE), TIMING, created_at=AT)
    assert b"\n" not in body
    assert json.loads(body) == {
        "model": "M",
        "created_at": AT,
        "message": {
            "role": "assistant",
            "content": "a",
            "thinking": "hm",
            "tool_calls": [
                {"id": "call_12345678", "function": {"name": "f", "arguments": {"a": 1}, "index": 0}}
            ],
        },
        "done": True,
        "done_reason": "stop",
        **METRICS,
    }
    ChatResponse.model_validate_json(body)


def test_a_whole_generation() -> None:
    logprob = Logprob(token="a", logprob=-1.0)
    result = Result(choices=(Choice(text="a", finish_reason="length", logprobs=(logprob,)),), usage=USAGE)
    body = ollama.GenerateWriter("M").whole(result, TIMING, created_at=AT, context=[1])
    assert json.loads(body) == {
        "model": "M", "created_at": AT, "response": "a", "done": True, "done_reason": "length", "context": [1],
        "logprobs": [{"token": "a", "logprob": -1.0, "bytes": None}], **METRICS,
    }  # fmt: skip
    GenerateResponse.model_validate_json(body)


@given(ollama_events())
def test_a_result_without_choices_is_an_empty_answer(events: list[Event]) -> None:
    body = ollama.ChatWriter("m").whole(Result(choices=()), ollama.Timing(), created_at=AT)
    assert json.loads(body)["message"] == {"role": "assistant", "content": ""}


def test_loading_and_unloading() -> None:
    head = {"model": "m", "created_at": AT}
    assert json.loads(ollama.GenerateWriter("m").loaded(AT)) == {
        **head, "response": "", "done": True, "done_reason": "load",
    }  # fmt: skip
    assert json.loads(ollama.ChatWriter("m").loaded(AT, reason="unload")) == {
        **head, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "unload",
    }  # fmt: skip


# ---- embeddings ----------------------------------------------------------------------------------


def test_embeddings_have_length_one_also_when_they_are_cut() -> None:
    body = ollama.embed_reply("m", [[3.0, 4.0], [0.0, 0.0]], TIMING, Usage(input_tokens=2))
    assert json.loads(body) == {
        "model": "m", "embeddings": [[0.6, 0.8], [0.0, 0.0]], "total_duration": 9, "load_duration": 1, "prompt_eval_count": 2,
    }  # fmt: skip
    EmbedResponse.model_validate_json(body)
    assert normalised([3.0, 4.0, 9.0], 2) == [0.6, 0.8] and normalised([3.0], 2) == [1.0]
    assert json.loads(ollama.embed_reply("m", [[3.0, 4.0]], TIMING, Usage()))["embeddings"] == [[0.6, 0.8]]
    assert json.loads(ollama.embed_reply("m", [], ollama.Timing(), Usage()))["embeddings"] == []


def test_the_older_route_gives_the_vector_as_it_is() -> None:
    assert ollama.embeddings_reply([3.0, 4.0]) == b'{"embedding":[3.0,4.0]}'
    assert ollama.embeddings_reply(()) == b'{"embedding":[]}'
    EmbeddingsResponse.model_validate_json(ollama.embeddings_reply([1.0]))


# ---- errors, and lines read by a client ----------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModelNotFound(model="x"), "model 'x' not found"),
        (ModelNotFound(model="x", nearest=["y"]), "model 'x' not found. Nearest: y"),
        (InvalidRequest("model is required"), "model is required"),
        (Busy(), "server busy, please try again.  maximum pending requests exceeded"),
        (
            WaitedTooLong(seconds=3),
            "server busy, please try again.  The request waited 3 s for its turn (queue_timeout).",
        ),
        (ContextLengthExceeded(tokens=None, limit=None), "the input length exceeds the context length"),
        (
            ContextLengthExceeded(tokens=5, limit=4),
            "the input length exceeds the context length (5 tokens, the context is 4)",
        ),
        (
            Unsupported('"x" does not support vision', model="x", feature="images"),
            '"x" does not support vision',
        ),
        (PorticoError("bad \ud800"), "bad ?"),
    ],
)
def test_errors_are_one_text(error: PorticoError, text: str) -> None:
    assert json.loads(ollama.error_body(error)) == {"error": text}


def test_errors_are_read_back() -> None:
    missing = ollama.read_error(404, b'{"error":"model \'x\' not found"}', model="x")
    assert isinstance(missing, ModelNotFound) and missing.model == "x"
    long = ollama.read_error(400, ollama.error_body(ContextLengthExceeded(tokens=5, limit=4)))
    assert isinstance(long, ContextLengthExceeded)
    for body in (b"<html>", b"", b'{"error":{"message":"x"}}', b"[" * 100_000, b'{"x":' + b"[" * 100_000):
        other = ollama.read_error(502, body)
        assert isinstance(other, UpstreamFailed) and other.status == 502 and str(other)


def test_an_error_line_is_raised() -> None:
    with pytest.raises(UpstreamFailed, match="out of memory"):
        ollama.ChunkReader().feed(b'{"error":"out of memory"}\n')
    reader = ollama.ChunkReader()
    said = b'{"message":{"role":"assistant","content":"a"},"done":false}\n'
    assert reader.feed(said + b'{"error":"out of memory"}\n') == [TextDelta(text="a")]
    with pytest.raises(UpstreamFailed, match="out of memory"):
        reader.end()
    for line in (b"data: {}\n", b'{"error":{}}\n', b"[" * 100_000 + b"\n"):
        with pytest.raises(UpstreamFailed, match="not Ollama's"):
            ollama.ChunkReader().feed(line)


def test_a_loaded_model_is_the_end_of_a_stream() -> None:
    reader = ollama.ChunkReader()
    body = ollama.ChatWriter("m").loaded(AT)
    assert [*reader.feed(body), *reader.end()] == [Finished(finish_reason="stop")] and reader.done
