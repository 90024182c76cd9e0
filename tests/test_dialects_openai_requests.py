"""What OpenAI's clients send, and what is wrong with it."""

from __future__ import annotations

import functools
import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects_fixtures import PNG
from portico.dialects import openai
from portico.errors import InvalidRequest
from portico.messages import (
    ChatRequest,
    Format,
    Image,
    Message,
    Reasoning,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)

HELLO = [{"role": "user", "content": "hi"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "time"}}


def chat(**fields: Any) -> ChatRequest:
    return openai.read_chat(json.dumps({"model": "m", "messages": HELLO, **fields}).encode())


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    return caught.value


# ---- sampling ----------------------------------------------------------------------------------


def test_null_means_unset_everywhere() -> None:
    names = [
        *openai.Peek.__struct_fields__,
        "max_completion_tokens",
        "tool_choice",
        "functions",
        "function_call",
    ]
    names += [
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "reasoning",
        "chat_template_kwargs",
    ]
    names = [name for name in [*names, "ignore_eos"] if name not in ("model", "messages", "prompt")]
    assert chat(**dict.fromkeys(names)) == chat()


def test_names_of_samplers_that_an_engine_may_know_pass() -> None:
    sent = {"ignore_eos": True, "min_tokens": 3, "typical_p": 0.9, "mirostat": 2, "bad_words": ["no"]}
    sampling = chat(top_k=40, min_p=0.1, repetition_penalty=1.1, **sent).sampling
    assert sampling == Sampling(top_k=40, min_p=0.1, repetition_penalty=1.1, extra=sent)


def test_what_only_a_hosted_api_knows_is_ignored() -> None:
    hosted = {
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "user": "u",
        "verbosity": "low",
        "prediction": {"type": "content", "content": "x"},
        "moderation": {},
        "modalities": ["text"],
        "web_search_options": {},
        "audio": {"voice": "x"},
    }
    assert chat(**hosted) == chat()


def test_no_unknown_name_overrules_the_request() -> None:
    assert chat(prompt="another", n_predict=-1, id_slot=3, chat_template="{{ x }}", echo=True) == chat()


def test_limits() -> None:
    assert chat(max_tokens=5).sampling.max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=7).sampling.max_tokens == 7
    assert chat(max_tokens=512.0).sampling.max_tokens == 512
    assert chat(max_tokens=-1).sampling.max_tokens is None
    assert chat(max_tokens=10**15).sampling.max_tokens == 2**31 - 1


def test_stop_may_be_a_text_or_a_list() -> None:
    assert chat(stop="a").sampling.stop == ("a",)
    assert chat(stop=["a", "b"]).sampling.stop == ("a", "b")
    assert chat(stop=["", "b"]).sampling.stop == ("b",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [HELLO[0], {"role": "user", "content": 5}]}, "messages[1].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"model": 3}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"seed": 2.5}, "seed"),
        ({"stop": 3}, "stop"),
        ({"stop": [3]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ({"logit_bias": {"5": "x"}}, "logit_bias[...]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "perhaps", "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [WEATHER]}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
        ),
        ({"logprobs": 5}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param in str(error) and "$" not in str(error) and "`" not in str(error)


def test_messages_of_errors_are_words() -> None:
    error = refused(messages=[HELLO[0], {"role": "user", "content": 5}])
    assert str(error) == "Invalid 'messages[1].content': expected a string or an array, got an integer."
    assert str(refused(logprobs=True, top_logprobs=21)) == "top_logprobs must be between 0 and 20"
    with pytest.raises(InvalidRequest, match="Missing required field: 'model'"):
        openai.read_chat(b'{"messages": [{"role": "user"}]}')


# ---- bodies that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"[]",
        b"null",
        b"nonsense",
        b'{"model": "m"',
        b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "m", "ignored": "\xff", "messages": [{"role": "user", "content": "x"}]}',
        b'\xef\xbb\xbf{"model": "m", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\udc00x"}]}',
        b'{"model": "m", "model": "n", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model":"m","mod\\u0065l":"n","messages":[{"role":"user","content":"x"}]}',
        b'{"model": "m", "min_tokens": 1e999, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "seed": ' + b"1" * 5000 + b', "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "x": ' + b"[" * 100_000,
        b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "m", "messages": [{"role": "user", "content": '
        + b'{"a":' * 5000
        + b"1"
        + b"}" * 5000
        + b"}]}",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_hostile_body_is_an_invalid_request(body: bytes) -> None:
    for read in (openai.read_chat, openai.read_completion, openai.read_embedding):
        with pytest.raises(InvalidRequest):
            read(body)


def test_nesting_just_below_the_limit_of_reading_is_no_failure_of_writing() -> None:
    """Python's stack may be deeper when the request is written than when it was read."""

    def at_depth(depth: int, body: bytes) -> None:
        if depth:
            return at_depth(depth - 1, body)
        try:
            openai.write_chat(openai.read_chat(body), model="m")
        except InvalidRequest:
            pass

    for nesting in range(400, 1000, 7):
        schema = b'{"a":' * nesting + b"1" + b"}" * nesting
        tool = b'{"type":"function","function":{"name":"f","parameters":' + schema + b"}}"
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[' + tool + b"]}"
        for depth in (0, 50, 100):
            at_depth(depth, body)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for read in (openai.read_chat, openai.read_completion, openai.read_embedding, openai.peek):
        with pytest.raises(InvalidRequest):
            read(body)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    set(openai.Peek.__struct_fields__) | {"tool_choice", "functions", "response_format", "reasoning", "input"}
)


@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4), st.none() | anything)
def test_any_json_is_read_or_refused(fields: dict[str, Any], message: Any) -> None:
    sent = {
        "model": "m",
        "messages": HELLO if message is None else [message],
        "prompt": "x",
        "input": "x",
        **fields,
    }
    body = json.dumps(sent, allow_nan=False, default=str).encode() if _finite(sent) else b"{}"
    pairs = [
        (openai.read_chat, openai.write_chat),
        (openai.read_completion, openai.write_completion),
        (openai.read_embedding, openai.write_embedding),
    ]
    for read, write in pairs:
        try:
            request = read(body)  # type: ignore[operator]
        except InvalidRequest as error:
            assert str(error) and openai.error_body(error)
        else:
            json.loads(write(request, model="m"))  # type: ignore[operator]


def _finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


# ---- messages ------------------------------------------------------------------------------------


def one(**message: Any) -> Message:
    return chat(messages=[message]).messages[0]


def test_roles() -> None:
    assert one(role="developer", content="x") == Message(role="system", parts=(Text(text="x"),))
    assert one(role="function", name="f", content="1") == Message(
        role="tool", parts=(ToolResult(id="call_00000001", name="f", text="1"),)
    )


def test_content_may_be_text_null_or_parts() -> None:
    assert one(role="assistant", content=None).parts == ()
    assert one(role="assistant").parts == ()
    assert one(role="user", content="").parts == ()
    assert one(role="user", content=["a", {"type": "text", "text": "b"}]).parts == (
        Text(text="a"),
        Text(text="b"),
    )
    assert one(role="user", content=[{"type": "input_text", "text": "b"}]).parts == (Text(text="b"),)


@pytest.mark.parametrize(
    ("sent", "image"),
    [
        ({"url": "https://x/a.png", "detail": "low"}, Image(url="https://x/a.png", detail="low")),
        ("https://x/a.png", Image(url="https://x/a.png")),
        (f"data:image/webp;base64,{PNG}", Image(url=f"data:image/webp;base64,{PNG}")),
        (f"data:;base64,{PNG}", Image(url=f"data:image/png;base64,{PNG}")),
        ({"url": f"data:;base64,{PNG}"}, Image(url=f"data:image/png;base64,{PNG}")),
        (PNG, Image(url=f"data:image/png;base64,{PNG}")),
    ],
)
def test_images(sent: Any, image: Image) -> None:
    assert one(role="user", content=[{"type": "image_url", "image_url": sent}]).parts == (image,)


@pytest.mark.parametrize(
    "sent", ["file:///etc/passwd", "/etc/passwd", "ftp://x/a.png", "data:;base64", "data:;base64,AAAA"]
)
def test_what_is_no_image_is_refused(sent: str) -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": sent}]}])
    assert error.param == "messages[0].content[0].image_url"


def test_reasoning_is_read_under_both_names() -> None:
    for name in ("reasoning", "reasoning_content"):
        parts = one(role="assistant", content="x", **{name: "hm"}).parts
        assert parts == (Reasoning(text="hm"), Text(text="x"))
    thinking = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}]
    assert one(role="assistant", content=thinking).parts == (Reasoning(text="hm"), Text(text="x"))


def test_arguments_stay_byte_for_byte() -> None:
    text = '{"city" : "Zürich",\n "n": 1.0}'
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": text}}
    request = chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert request.messages[0].parts == (ToolCall(id="c1", name="f", arguments=text),)
    written = json.loads(openai.write_chat(request, model="m"))["messages"][0]
    assert written == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_results_find_their_calls() -> None:
    request = chat(
        messages=[
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "2"},
        ]
    )
    assert [part for message in request.messages for part in message.parts] == [
        ToolCall(id="call_00000001", name="f", arguments="{}"),
        ToolResult(id="call_00000001", name="f", text="1"),
        ToolCall(id="call_00000002", name="g", arguments='{"a":1}'),
        ToolResult(id="call_00000002", name="g", text="2"),
    ]


# ---- tools, formats, thinking --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "choice"),
    [
        ("auto", ToolChoice(mode="auto")),
        ("none", ToolChoice(mode="none")),
        ("required", ToolChoice(mode="required")),
        ("any", ToolChoice(mode="required")),
        ({"type": "function", "function": {"name": "time"}}, ToolChoice(mode="named", name="time")),
        ({"type": "function", "name": "time"}, ToolChoice(mode="named", name="time")),
        ({"type": "custom", "custom": {"name": "x"}}, None),
    ],
)
def test_tool_choice(sent: Any, choice: ToolChoice | None) -> None:
    assert chat(tools=[WEATHER, TIME], tool_choice=sent).tool_choice == choice


def test_allowed_tools_leave_the_others_out() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]}
    request = chat(tools=[WEATHER, TIME], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in request.tools] == ["time"]
    assert request.tool_choice == ToolChoice(mode="required")


def test_functions_are_tools_of_old() -> None:
    request = chat(functions=[{"name": "f", "parameters": {"type": "object"}}], function_call={"name": "f"})
    assert request.tools[0].name == "f"
    assert request.tool_choice == ToolChoice(mode="named", name="f")


def test_tools_of_a_hosted_api_are_left_out() -> None:
    request = chat(tools=[WEATHER, {"type": "web_search"}, {"type": "custom", "custom": {"name": "x"}}])
    assert [tool.name for tool in request.tools] == ["weather"]
    assert chat(tools=[], tool_choice="auto") == chat()


def test_a_tools_schema_passes_untouched() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"anyOf": []}},
        "z": 1,
        "a": 2,
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    written = json.loads(openai.write_chat(chat(tools=[tool]), model="m"))["tools"][0]
    assert json.dumps(written) == json.dumps(
        {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    )


def test_response_format() -> None:
    schema = {"type": "object"}
    assert chat(response_format={"type": "text"}).format is None
    assert chat(response_format={"type": "json_object"}).format == Format(kind="json")
    assert chat(response_format={"type": "json_object", "schema": schema}).format == Format(
        kind="schema", schema=schema
    )
    named = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    assert chat(response_format=named).format == Format(kind="schema", name="n", schema=schema, strict=True)


@pytest.mark.parametrize(
    ("sent", "think"),
    [
        ({"reasoning_effort": "low"}, "low"),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "ultra"}, "max"),
        ({"reasoning": {"effort": "high", "summary": "auto"}}, "high"),
        ({"reasoning": {"enabled": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}}, "low"),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, False),
    ],
)
def test_thinking(sent: dict[str, Any], think: bool | str) -> None:
    request = chat(**sent)
    assert request.think == think and request.template_kwargs == {}


def test_other_arguments_of_the_template_stay() -> None:
    request = chat(chat_template_kwargs={"enable_thinking": True, "documents": [1]})
    assert (request.think, request.template_kwargs) == (True, {"documents": [1]})


# ---- what an engine is sent ----------------------------------------------------------------------


def sent_to(spelling: openai.Spelling, **fields: Any) -> Any:
    return json.loads(openai.write_chat(chat(**fields), model="served", spelling=spelling))


def test_a_strict_server_is_sent_only_what_openais_api_has() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "a", "reasoning": "b", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "d"},
    ]
    fields: dict[str, Any] = {
        "top_k": 1,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
        "temperature": 0.5,
        "reasoning_effort": "high",
        "chat_template_kwargs": {"a": 1},
        "max_tokens": 7,
        "messages": turns,
    }
    strict, hosted = sent_to(openai.STRICT, **fields), sent_to(openai.OPENAI, **fields)
    assert set(strict) == {"model", "messages", "temperature", "reasoning_effort", "max_tokens"}
    assert set(hosted) == set(strict) - {"max_tokens"} | {"max_completion_tokens"}
    assert (strict["max_tokens"], hosted["max_completion_tokens"]) == (7, 7)
    assert [sorted(message) for message in strict["messages"]] == [
        ["content", "role"],
        ["content", "role", "tool_calls"],
        ["content", "role", "tool_call_id"],
    ]
    completion = openai.read_completion(
        b'{"model":"m","prompt":"a","top_k":1,"ignore_eos":true,"max_tokens":7}'
    )
    sent = json.loads(openai.write_completion(completion, model="m", spelling=openai.OPENAI))
    assert set(sent) == {"model", "prompt", "max_tokens"}


def test_each_engine_has_its_spelling() -> None:
    fields = {"repetition_penalty": 1.5, "reasoning_effort": "low"}
    vllm, llamacpp = sent_to(openai.VLLM, **fields), sent_to(openai.LLAMACPP, **fields)
    assert vllm["repetition_penalty"] == 1.5 and "repeat_penalty" not in vllm
    assert llamacpp["repeat_penalty"] == 1.5 and "repetition_penalty" not in llamacpp
    assert vllm["reasoning_effort"] == "low" and vllm["chat_template_kwargs"]["enable_thinking"] is True
    assert llamacpp["chat_template_kwargs"]["reasoning_effort"] == "low"
    unknown = sent_to(openai.ANY, **fields)
    assert unknown["repetition_penalty"] == unknown["repeat_penalty"] == 1.5


def test_a_schema_of_a_completion_has_llamacpps_own_name_there() -> None:
    request = completion(response_format={"type": "json_object"})
    assert b'"response_format":{"type":"json_object"}' in openai.write_completion(request, model="m")
    sent = json.loads(openai.write_completion(request, model="m", spelling=openai.LLAMACPP))
    assert sent.pop("json_schema")["type"] == "object"
    assert sent == {"model": "m", "prompt": "x"}


def test_llamacpps_grammars_leave_no_room_for_white_space() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    sent = sent_to(openai.LLAMACPP, response_format=shape)["response_format"]["json_schema"]["schema"]
    assert sent["x-guidance"]["whitespace_flexible"] is False
    assert {**sent, "x-guidance": None} == {**schema, "x-guidance": None}
    assert (
        "x-guidance"
        not in sent_to(openai.VLLM, response_format=shape)["response_format"]["json_schema"]["schema"]
    )


def shaped(schema: Any, **more: Any) -> Any:
    """The response_format that a vLLM with bounded grammars is sent."""
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return sent_to(openai.VLLM_BOUNDED, response_format=shape, **more)["response_format"]


class Leaf(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1, max_length=8)
    kind: Literal["a", "b"] = "a"
    parent: Leaf | None = None
    parts: list[int]


@pytest.mark.parametrize("schema", [{"type": "object"}, {}, True, Leaf.model_json_schema()])
def test_vllms_grammars_take_a_bound_for_white_space(schema: Any) -> None:
    bounded = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
    assert shaped(schema) == {"type": "structural_tag", "format": bounded}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(?!a)"},
        {"type": "string", "format": "date"},
        {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 2}}},
        {"type": "object", "patternProperties": {"^a": {}}},
        {"type": "array", "items": {"oneOf": [{"type": "null"}]}},
        {"anyOf": [{"$ref": "https://example.org/schema"}]},
        {"$defs": {"a": 1}},
        functools.reduce(lambda inner, _: {"type": "array", "items": inner}, range(40), {"type": "null"}),
    ],
)
def test_a_schema_that_is_not_plain_is_sent_as_it_is(schema: Any) -> None:
    """vLLM then finds a grammar that can do it; as a structural tag it refuses what xgrammar cannot."""
    assert shaped(schema)["json_schema"]["schema"] == schema


@pytest.mark.parametrize(
    ("more", "changed"),
    [
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}, True),
        ({"response_format": {"type": "json_object"}, "tools": [WEATHER]}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": None}, False),
        ({"response_format": {"type": "nonsense"}}, False),
        ({"response_format": 7}, False),
        ({"response_format": {"type": "json_schema"}}, False),
        ({}, False),
    ],
)
def test_the_bound_of_a_body_that_is_passed_on(more: dict[str, Any], changed: bool) -> None:
    seen = openai.peek(json.dumps({"model": "m", "messages": HELLO, **more}).encode())
    changes = openai.bounds(seen, openai.VLLM_BOUNDED)
    assert [format.type for format in changes.values()] == ["structural_tag"] * changed
    assert openai.bounds(seen, openai.VLLM) == {}


def test_a_schema_beside_tools_is_sent_as_it_is() -> None:
    """Of the tools vLLM makes a structural tag of its own."""
    assert (
        shaped({"type": "object"}, tools=[{"type": "function", "function": {"name": "f"}}])["type"]
        == "json_schema"
    )


def test_usage_is_always_asked_for_in_a_stream_and_never_otherwise() -> None:
    assert sent_to(openai.ANY, stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent_to(openai.ANY, stream_options={"include_usage": True})


def test_nothing_unset_is_sent() -> None:
    assert sent_to(openai.ANY) == {"model": "served", "messages": [{"role": "user", "content": "hi"}]}


def test_a_schema_always_has_a_name() -> None:
    written = sent_to(openai.ANY, response_format={"type": "json_schema", "json_schema": {"schema": {}}})
    assert written["response_format"]["json_schema"] == {"name": "response", "schema": {}}


# ---- completions and embeddings ------------------------------------------------------------------


def completion(**fields: Any) -> Any:
    return openai.read_completion(json.dumps({"model": "m", "prompt": "x", **fields}).encode())


def embedding(**fields: Any) -> Any:
    return openai.read_embedding(json.dumps({"model": "m", "input": "x", **fields}).encode())


@pytest.mark.parametrize(
    ("sent", "read"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_prompts_and_inputs_in_four_shapes(sent: Any, read: Any) -> None:
    assert completion(prompt=sent).prompts == read
    assert embedding(input=sent).inputs == read


@pytest.mark.parametrize("sent", [[], [1, "a"], [[]], [[-1]], [["a"]], None, 5, [None], [2**40]])
def test_prompts_and_inputs_that_are_none(sent: Any) -> None:
    for read in (lambda: completion(prompt=sent), lambda: embedding(input=sent)):
        with pytest.raises(InvalidRequest) as caught:
            read()
        assert caught.value.param is not None and caught.value.param.startswith(("prompt", "input"))


def test_logprobs_of_a_completion_are_a_number() -> None:
    assert [completion(logprobs=sent).logprobs for sent in (None, False, True, 0, 5)] == [None, None, 0, 0, 5]
    with pytest.raises(InvalidRequest, match="between 0 and 20"):
        completion(logprobs=21)


def test_no_tokens_may_be_asked_of_a_completion() -> None:
    """lm-eval scores a prompt with echo and max_tokens 0."""
    request = completion(max_tokens=0, echo=True, suffix="", logprobs=1)
    assert (request.sampling.max_tokens, request.echo, request.suffix) == (0, True, None)


def test_encodings() -> None:
    assert embedding().encoding == "float"
    assert embedding(encoding_format="base64").encoding == "base64"
    with pytest.raises(InvalidRequest):
        embedding(encoding_format="int8")
    with pytest.raises(InvalidRequest):
        embedding(dimensions=0)
