"""What Ollama's clients send, and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import ChatRequest as ClientChat
from ollama._types import GenerateRequest as ClientGenerate

from dialects_fixtures import PNG
from portico.dialects import ollama, openai
from portico.errors import InvalidRequest
from portico.messages import (
    ChatRequest,
    CompletionRequest,
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
IMAGE = Image(url=f"data:image/png;base64,{PNG}")


def chat(**fields: Any) -> ChatRequest:
    return ollama.read_chat(json.dumps({"model": "m", "messages": HELLO, **fields}).encode())


def generate(**fields: Any) -> ollama.Generate:
    return ollama.read_generate(json.dumps({"model": "m", "prompt": "hi", **fields}).encode())


def sampling(**options: Any) -> Sampling:
    return chat(options=options).sampling


def refusal(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    return str(caught.value)


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"num_predict": 5}, Sampling(max_tokens=5)),
        ({"num_predict": -1}, Sampling()),
        ({"num_predict": -2}, Sampling()),
        ({"num_predict": 0}, Sampling()),
        ({"num_predict": 40.9}, Sampling(max_tokens=40)),
        ({"max_tokens": 7}, Sampling(max_tokens=7)),
        ({"max_tokens": 7, "num_predict": 5}, Sampling(max_tokens=5)),
        ({"max_tokens": 7, "num_predict": None}, Sampling(max_tokens=7)),
        ({"num_predict": 10**30}, Sampling(max_tokens=2**31 - 1)),
        ({"temperature": 0}, Sampling(temperature=0.0)),
        ({"temperature": -1}, Sampling(temperature=0.0)),
        ({"top_k": 40}, Sampling(top_k=40)),
        ({"top_k": 0}, Sampling(top_k=-1)),
        ({"top_p": 0.5}, Sampling(top_p=0.5)),
        ({"top_p": 0}, Sampling(top_p=1.0)),
        ({"top_p": 1.5}, Sampling(top_p=1.0)),
        ({"min_p": 0.05}, Sampling(min_p=0.05)),
        ({"typical_p": 1.0}, Sampling()),
        ({"typical_p": 0.9}, Sampling(extra={"typical_p": 0.9})),
        ({"repeat_penalty": 1.1}, Sampling(repetition_penalty=1.1)),
        ({"repeat_penalty": 0}, Sampling()),
        ({"repeat_penalty": 1.1, "repeat_last_n": 0}, Sampling()),
        (
            {"repeat_penalty": 1.1, "repeat_last_n": 64},
            Sampling(repetition_penalty=1.1, extra={"repeat_last_n": 64}),
        ),
        (
            {"presence_penalty": 3, "frequency_penalty": -3},
            Sampling(presence_penalty=2.0, frequency_penalty=-2.0),
        ),
        ({"seed": 42}, Sampling(seed=42)),
        ({"seed": -1}, Sampling()),
        ({"stop": ["a", "b"]}, Sampling(stop=("a", "b"))),
        ({"stop": "a"}, Sampling(stop=("a",))),
        ({"stop": None, "temperature": None}, Sampling()),
        ({"mirostat": 2, "ignore_eos": True}, Sampling(extra={"mirostat": 2, "ignore_eos": True})),
        ({"num_gpu": 1, "num_batch": 512, "use_mmap": True, "numa": False, "tfs_z": 1.0}, Sampling()),
        ({"model": "other", "messages": [], "n_predict": 9, "id_slot": 1, "stream": False}, Sampling()),
    ],
    ids=repr,
)
def test_options(options: dict[str, Any], read: Sampling) -> None:
    assert sampling(**options) == read
    assert generate(options=options).request.sampling == read


def test_num_ctx_is_a_budget_of_tokens() -> None:
    assert chat(options={"num_ctx": 4096}).context == 4096
    assert chat(options={"num_ctx": 0}).context is None
    assert generate(options={"num_ctx": 4096}, raw=True).request.context == 4096


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("stop", 5, "array"),
        ("stop", [5], "array"),
        ("num_predict", "5", "integer"),
        ("num_predict", True, "integer"),
        ("num_ctx", [], "integer"),
        ("num_gpu", "all", "integer"),
        ("temperature", "hot", "float32"),
        ("use_mmap", 1, "boolean"),
    ],
)
def test_a_wrong_type_is_refused_in_ollamas_words(option: str, value: Any, kind: str) -> None:
    assert refusal(options={option: value}) == f'option "{option}" must be of type {kind}'


def test_what_options_ask_for_reaches_an_engine_under_its_own_names() -> None:
    request = chat(options={"num_predict": 5, "repeat_penalty": 1.5, "ignore_eos": True, "top_k": 0})
    sent = json.loads(openai.write_chat(request, model="m", spelling=openai.VLLM))
    assert sent == {
        "ignore_eos": True, "model": "m", "stream": True, "stream_options": {"include_usage": True},
        "max_tokens": 5, "top_k": -1, "repetition_penalty": 1.5, "messages": [{"role": "user", "content": "hi"}],
    }  # fmt: skip


# ---- the other fields ----------------------------------------------------------------------------


def test_streaming_and_truncation_are_on_unless_switched_off() -> None:
    assert (chat().stream, chat().truncate) == (True, True)
    assert (chat(stream=None, truncate=None).stream, chat(truncate=None).truncate) == (True, True)
    assert (chat(stream=False).stream, chat(truncate=False).truncate) == (False, False)
    assert generate().request.stream and not generate(stream=False).request.stream


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (None, None), (0, 0), (300, 300), (2.5, 2.5), (-1, -1), ("0", 0), ("0s", 0), ("5m", 300), ("1h30m", 5400),
        ("-1s", -1), ("-1m", -60), ("1.5h", 5400), ("100ms", 0.1), ("-1", -1), ("300", 300), ("1m30s500ms", 90.5), (".5s", 0.5),
    ],
)  # fmt: skip
def test_keep_alive(sent: Any, seconds: float | None) -> None:
    assert chat(keep_alive=sent).keep_alive == pytest.approx(seconds)
    assert ollama.read_duration(sent) == pytest.approx(seconds)


@pytest.mark.parametrize("sent", ["", "five minutes", "5 m", "m", "5d", True, [], "--5s", "1h-5m"])
def test_what_is_no_duration(sent: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(keep_alive=sent)
    assert caught.value.param == "keep_alive"


SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}


@pytest.mark.parametrize(
    ("sent", "format"),
    [
        (None, None),
        ("", None),
        ("json", Format(kind="json")),
        (SCHEMA, Format(kind="schema", schema=SCHEMA)),
        (json.dumps(SCHEMA), Format(kind="schema", schema=SCHEMA)),
    ],
)
def test_format(sent: Any, format: Format | None) -> None:
    assert chat(format=sent).format == format
    assert generate(format=sent).request.format == format


@pytest.mark.parametrize("sent", ["xml", 5, [], "[1]", "{"])
def test_what_is_no_format(sent: Any) -> None:
    assert "invalid format" in refusal(format=sent)


def test_think() -> None:
    levels: list[Any] = [None, True, False, "low", "high", "max", "HIGH", ""]
    assert [chat(think=sent).think for sent in levels] == [
        None,
        True,
        False,
        "low",
        "high",
        "max",
        "high",
        None,
    ]
    assert 'invalid think value: "much"' in refusal(think="much")


def test_logprobs() -> None:
    assert (
        chat(logprobs=True, top_logprobs=3).logprobs,
        chat(logprobs=True, top_logprobs=3).top_logprobs,
    ) == (True, 3)
    assert chat(top_logprobs=3).top_logprobs is None
    assert refusal(top_logprobs=21) == refusal(top_logprobs=-1) == "top_logprobs must be between 0 and 20"
    raw = [
        generate(raw=True, **sent).request
        for sent in ({}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2})
    ]
    assert [request.logprobs for request in raw] == [None, 0, 2]


def test_a_model_is_required() -> None:
    for read in (ollama.read_chat, ollama.read_generate, ollama.read_embed, ollama.read_embeddings):
        for body in (b"{}", b'{"model":""}', b'{"model":" "}'):
            with pytest.raises(InvalidRequest, match="model is required"):
                read(body)  # type: ignore[operator]


def test_no_messages_only_load_the_model() -> None:
    assert chat(messages=[]).messages == chat(messages=None).messages == ()
    assert chat(messages=[], keep_alive=0).keep_alive == 0


# ---- messages ------------------------------------------------------------------------------------


def one(**message: Any) -> Message:
    return chat(messages=[message]).messages[0]


def test_roles_in_any_case() -> None:
    assert [one(role=role, content="x").role for role in ("User", "SYSTEM", "Assistant", "Tool")] == [
        "user", "system", "assistant", "tool",
    ]  # fmt: skip
    assert "invalid role" in refusal(messages=[{"role": "robot", "content": "x"}])


def test_content_may_be_empty_null_or_missing() -> None:
    assert (
        one(role="user", content="")
        == one(role="user", content=None)
        == one(role="user")
        == Message(role="user")
    )


def test_images_are_base64_and_their_type_is_sniffed() -> None:
    assert one(role="user", content="x", images=[PNG]).parts == (IMAGE, Text(text="x"))
    assert one(role="user", images=[f"data:image/png;base64,{PNG}"]).parts == (IMAGE,)
    heads = {
        "/9j/4AAQSkZJRgABAQ": "jpeg",
        "R0lGODlhAQABAIAA": "gif",
        "UklGRiQAAABXRUJQVlA4": "webp",
    }
    for head, kind in heads.items():
        assert one(role="user", images=[head]).parts == (Image(url=f"data:image/{kind};base64,{head}"),)


@pytest.mark.parametrize("sent", ["AAAA", "!", "", "http://x/a.png", "https://x/a.png", "file:///etc/passwd"])
def test_what_is_no_image_is_refused(sent: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(messages=[{"role": "user", "images": [PNG, sent]}])
    assert caught.value.param == "messages[0].images[1]"


def call(name: str, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **fields}


def test_an_assistants_turn() -> None:
    message = one(
        role="assistant",
        content="x",
        thinking="hm",
        tool_calls=[call("f", {"b": 1, "a": "ü"}, id="call_12345678")],
    )
    assert message.parts == (
        Reasoning(text="hm"),
        Text(text="x"),
        ToolCall(id="call_12345678", name="f", arguments='{"b":1,"a":"ü"}'),
    )


def test_results_find_their_calls_by_id_name_or_order() -> None:
    request = chat(
        messages=[
            {
                "role": "assistant",
                "tool_calls": [call("f", {}), call("g", {}), call("h", {}), call("i", {}, id="own")],
            },
            {"role": "tool", "tool_name": "g", "content": "g"},
            {"role": "tool", "tool_call_id": "own", "content": "i"},
            {"role": "tool", "content": "f"},
            {"role": "tool", "content": "h"},
            {"role": "tool", "content": "orphan"},
        ]
    )
    results = [part for message in request.messages[1:] for part in message.parts]
    assert results == [
        ToolResult(id="call_00000002", name="g", text="g"),
        ToolResult(id="own", text="i"),
        ToolResult(id="call_00000001", name="f", text="f"),
        ToolResult(id="call_00000003", name="h", text="h"),
        ToolResult(id="call_00000004", text="orphan"),
    ]


def test_answers_are_not_paired_with_calls_of_an_earlier_turn() -> None:
    request = chat(
        messages=[
            {"role": "assistant", "tool_calls": [call("f", {})]},
            {"role": "user", "content": "never mind"},
            {"role": "assistant", "tool_calls": [call("f", {})]},
            {"role": "tool", "tool_name": "f", "content": "1"},
        ]
    )
    assert request.messages[-1].parts == (ToolResult(id="call_00000002", name="f", text="1"),)


def test_an_engine_always_gets_ids_and_the_same_ones_each_time() -> None:
    messages = [
        {"role": "assistant", "tool_calls": [call("f", {"a": 1})]},
        {"role": "tool", "tool_name": "f", "content": "1"},
    ]
    first, second = (openai.write_chat(chat(messages=messages), model="m") for _ in range(2))
    assert first == second
    asked, answered = json.loads(first)["messages"]
    assert asked["tool_calls"][0]["id"] == answered["tool_call_id"] == "call_00000001"
    assert asked["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_tools_pass_untouched() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "items": {}}},
        "$defs": {"x": {"anyOf": []}},
    }
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}
    request = chat(tools=[tool])
    assert json.loads(openai.write_chat(request, model="m"))["tools"] == [tool]
    assert chat(tools=[]).tools == ()
    assert chat(tools=[tool], tool_choice="required").tool_choice == ToolChoice(mode="required")
    assert chat(
        tools=[tool], tool_choice={"type": "function", "function": {"name": "f"}}
    ).tool_choice == ToolChoice(mode="named", name="f")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "images": [5]}]}, "messages[0].images[0]"),
        ({"messages": "hi"}, "messages"),
        ({"tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"options": []}, "options"),
        ({"stream": "no"}, "stream"),
        ({"model": 5}, "model"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.param == param and param in str(caught.value)


# ---- generate ------------------------------------------------------------------------------------


def test_a_generation_is_a_chat_of_one_turn() -> None:
    asked = generate(system="be brief", images=[PNG], think="low", keep_alive="5m")
    request = asked.request
    assert isinstance(request, ChatRequest)
    assert request.messages == (
        Message(role="system", parts=(Text(text="be brief"),)),
        Message(role="user", parts=(IMAGE, Text(text="hi"))),
    )
    assert (request.think, request.keep_alive, asked.empty) == ("low", 300, False)


def test_raw_and_suffix_are_completions() -> None:
    raw = generate(raw=True).request
    assert isinstance(raw, CompletionRequest) and (raw.prompts, raw.suffix) == (("hi",), None)
    filled = generate(suffix="end").request
    assert isinstance(filled, CompletionRequest) and filled.suffix == "end"
    assert isinstance(generate(suffix="", raw=False).request, ChatRequest)


@pytest.mark.parametrize("beside", [{"template": "x"}, {"system": "x"}, {"context": [1]}])
def test_raw_has_no_template_system_or_context(beside: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"^raw mode does not support template, system, or context$"):
        generate(raw=True, **beside)


def test_an_empty_prompt_only_loads_the_model() -> None:
    assert generate(prompt="").empty and generate(prompt=None).empty and generate(prompt="", raw=True).empty
    assert not generate(prompt="", suffix="x").empty
    unload = generate(prompt="", keep_alive=0)
    assert unload.empty and unload.request.keep_alive == 0


def test_what_belongs_to_the_conversation_so_far() -> None:
    asked = generate(context=[1, 2, 3], template="{{ .Prompt }}")
    assert (asked.context, asked.template) == ((1, 2, 3), "{{ .Prompt }}")
    for wrong in ([-1], [2**40], ["x"], 5):
        with pytest.raises(InvalidRequest):
            generate(context=wrong)


# ---- embeddings ----------------------------------------------------------------------------------


def embed(**fields: Any) -> Any:
    return ollama.read_embed(json.dumps({"model": "m", **fields}).encode())


def test_embed() -> None:
    assert embed(input="x").inputs == ("x",)
    assert embed(input=["x", ""]).inputs == ("x", "")
    assert embed().inputs == embed(input="").inputs == embed(input=[]).inputs == ()
    assert (embed(input="x").truncate, embed(input="x", truncate=False).truncate) == (True, False)
    assert (embed(input="x", dimensions=8).dimensions, embed(input="x", dimensions=0).dimensions) == (8, None)
    for wrong in (5, [5], {"a": 1}, ["x", None]):
        with pytest.raises(InvalidRequest, match=r"^invalid input type$"):
            embed(input=wrong)


def test_the_older_route_of_one_prompt() -> None:
    read = ollama.read_embeddings(b'{"model":"m","prompt":"x","keep_alive":"1m"}')
    assert (read.inputs, read.truncate, read.keep_alive) == (("x",), False, 60)
    assert ollama.read_embeddings(b'{"model":"m"}').inputs == ()


# ---- anything ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "missing request body"),
        (b"nonsense", "not valid JSON"),
        (b'\xef\xbb\xbf{"model":"m"}', "not valid JSON"),
        (b'{"model":"m","prompt":"\xff"}', "not UTF-8"),
        (b'{"model":"m","x":"\\ud800"}', "not valid JSON"),
        (b'{"model":"m","x":' + b"[" * 100_000, "nested too deeply"),
        (b'{"model":"m","model":"n"}', "given twice"),
    ],
)
def test_a_hostile_body_is_an_invalid_request(body: bytes, says: str) -> None:
    for read in (ollama.read_chat, ollama.read_generate, ollama.read_embed, ollama.read_embeddings):
        with pytest.raises(InvalidRequest, match=says):
            read(body)  # type: ignore[operator]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "messages",
    "prompt",
    "format",
    "options",
    "keep_alive",
    "think",
    "top_logprobs",
    "logprobs",
    "tools",
    "tool_choice",
    "input",
    "context",
    "images",
]
OPTIONS = [
    "num_predict",
    "num_ctx",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "stop",
    "repeat_penalty",
    "repeat_last_n",
    "mirostat",
    "typical_p",
    "numa",
]


@given(
    st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4),
    st.none() | st.dictionaries(st.sampled_from(OPTIONS), anything, max_size=3),
)
def test_any_json_is_read_or_refused(fields: dict[str, Any], options: dict[str, Any] | None) -> None:
    body = json.dumps({"model": "m", **fields, **({} if options is None else {"options": options})}).encode()
    try:
        request = ollama.read_chat(body)
    except InvalidRequest as error:
        assert ollama.error_body(error)
    else:
        json.loads(openai.write_chat(request, model="m"))
        json.loads(ollama.write_chat(request))
    try:
        asked = ollama.read_generate(body).request
    except InvalidRequest as error:
        assert ollama.error_body(error)
    else:
        write: Any = openai.write_chat if isinstance(asked, ChatRequest) else openai.write_completion
        json.loads(write(asked, model="m"))
    for read in (ollama.read_embed, ollama.read_embeddings):
        try:
            read(body)  # type: ignore[operator]
        except InvalidRequest as error:
            assert ollama.error_body(error)


# ---- Ollama's own client -------------------------------------------------------------------------


def test_what_ollamas_client_sends() -> None:
    sent = ClientChat(
        model="m",
        messages=[{"role": "user", "content": "hi", "images": [PNG]}],
        stream=True,
        format="json",
        options={"temperature": 0.5, "stop": ["x"]},
        keep_alive="5m",
        think="high",
        logprobs=True,
        top_logprobs=2,
    ).model_dump_json(exclude_none=True)
    request = ollama.read_chat(sent.encode())
    assert request.messages == (Message(role="user", parts=(IMAGE, Text(text="hi"))),)
    assert (request.think, request.keep_alive, request.top_logprobs) == ("high", 300, 2)
    assert request.sampling == Sampling(temperature=0.5, stop=("x",))
    generation = ClientGenerate(model="m", prompt="hi", raw=True, suffix="", width=0).model_dump_json(
        exclude_none=True
    )
    assert isinstance(ollama.read_generate(generation.encode()).request, CompletionRequest)


def test_what_we_send_is_what_ollamas_client_would() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    request = chat(tools=[tool], options={"num_predict": 3}, keep_alive=5, think=True, stream=False)
    ClientChat.model_validate_json(ollama.write_chat(request))
