"""What the dialects' tests share: values to round-trip, and clients that judge what is written."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx2
import msgspec
import openai as openai_client
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from portico.messages import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Finished,
    Format,
    Image,
    Logprob,
    Message,
    Reasoning,
    ReasoningDelta,
    Sampling,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
    Usage,
    Used,
)

# A busy machine is no failure, and 60 examples find what 100 do on the third run.
settings.register_profile(
    "dialects", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dialects")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

# ---- clients that judge --------------------------------------------------------------------------


def openai_sees(
    body: bytes, *, content_type: str = "application/json", strict: bool = True
) -> openai_client.OpenAI:
    """An openai client that validates strictly, unless told otherwise, and gets `body` as the answer to whatever it asks."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": content_type})

    return openai_client.OpenAI(
        api_key="none",
        base_url="http://127.0.0.1/v1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
        _strict_response_validation=strict,
        max_retries=0,
    )


def openai_stream(body: bytes) -> list[Any]:
    """The chunks of a streamed chat, as the openai client reads them."""
    with openai_sees(body, content_type="text/event-stream") as client:
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        return list(stream)


def sse_payloads(body: bytes) -> list[Any]:
    """The JSON of each event; "[DONE]" for the end. Checks the framing to the byte."""
    assert body.endswith(b"\n\n")
    payloads = []
    for event in body[:-2].split(b"\n\n"):
        assert event.startswith(b"data: ") and b"\n" not in event
        payload = event[len(b"data: ") :]
        payloads.append("[DONE]" if payload == b"[DONE]" else json.loads(payload))
    return payloads


def lines(body: bytes) -> list[Any]:
    """The JSON of each NDJSON line. Checks the framing to the byte."""
    assert body.endswith(b"\n") and b"\n\n" not in body
    return [json.loads(line) for line in body[:-1].split(b"\n")]


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    """`body` in pieces, cut at these places (any integers)."""
    places = sorted({cut % (len(body) + 1) for cut in cuts} | {0, len(body)})
    return [body[start:end] for start, end in itertools.pairwise(places)]


# ---- values --------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z0-9_.-]{1,12}", fullmatch=True)
ids = st.from_regex(r"call_[a-z0-9]{8}", fullmatch=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
shares = st.floats(0.015625, 1, width=32)
penalties = st.floats(-2, 2, width=32)

canonical_arguments = json_objects.map(lambda value: msgspec.json.encode(value).decode())
"""Arguments as they come back from a dialect that carries them as an object."""

logprobs = st.builds(
    Logprob,
    token=texts,
    logprob=st.floats(-100, 0, width=32),
    bytes=st.none() | st.lists(st.integers(0, 255), max_size=4).map(tuple),
    top=st.lists(st.builds(Logprob, token=texts, logprob=st.floats(-100, 0, width=32)), max_size=2).map(
        tuple
    ),
)

_tool_calls = st.builds(ToolCall, id=ids, name=names, arguments=texts)
_object_calls = st.builds(ToolCall, id=ids, name=names, arguments=canonical_arguments)
_images = st.sampled_from([Image(url=f"data:image/png;base64,{PNG}")])
_links = st.builds(
    Image,
    url=st.sampled_from(["https://example.com/a.png", f"data:image/png;base64,{PNG}"]),
    detail=st.sampled_from([None, "low"]),
)

extras = st.dictionaries(
    st.sampled_from(["ignore_eos", "min_tokens", "mirostat", "bad_words", "dry_multiplier"]),
    json_values.filter(lambda value: value is not None),
    max_size=3,
)


def messages(*, images: st.SearchStrategy[Image], calls: st.SearchStrategy[ToolCall], mixed: bool) -> Any:
    """Messages in the order of parts that the readers give. mixed: images may stand between texts."""
    said = st.lists(st.builds(Text, text=texts), max_size=1)
    if mixed:
        shown = st.lists(images | st.builds(Text, text=texts), max_size=3)
    else:
        shown = st.tuples(st.lists(images, max_size=2), said).map(lambda pair: [*pair[0], *pair[1]])
    thoughts = st.lists(st.builds(Reasoning, text=texts), max_size=1)
    user = st.builds(Message, role=st.sampled_from(["user", "system"]), parts=shown.map(tuple))
    assistant = st.builds(
        Message,
        role=st.just("assistant"),
        parts=st.tuples(thoughts, said, st.lists(calls, max_size=2, unique_by=lambda call: call.id)).map(
            lambda lists: tuple(part for parts in lists for part in parts)
        ),
    )
    tool = st.builds(
        Message,
        role=st.just("tool"),
        parts=st.builds(ToolResult, id=ids, name=st.just("") | names, text=texts).map(lambda part: (part,)),
    )
    return st.lists(user | assistant | tool, min_size=1, max_size=4).map(tuple)


def _consistent(request: ChatRequest) -> ChatRequest:
    """Drops what a request cannot have: a choice among no tools, or of a tool that is not there."""
    choice = request.tool_choice
    if choice is not None and choice.mode == "named":
        choice = ToolChoice(mode="named", name=request.tools[0].name) if request.tools else None
    changed = {"tool_choice": choice if request.tools else None}
    if not request.logprobs:
        changed["top_logprobs"] = None
    return msgspec.structs.replace(request, **changed)


_choices = st.none() | st.builds(ToolChoice, mode=st.sampled_from(["auto", "none", "required", "named"]))

openai_sampling = st.builds(
    Sampling,
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    temperature=st.none() | st.floats(0, 2, width=32),
    top_p=st.none() | shares,
    top_k=st.none() | st.just(-1) | st.integers(1, 1000),
    min_p=st.none() | shares,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(texts, max_size=2).map(tuple),
    presence_penalty=st.none() | penalties,
    frequency_penalty=st.none() | penalties,
    repetition_penalty=st.none() | shares,
    logit_bias=st.none()
    | st.dictionaries(st.integers(0, 1000).map(str), st.floats(-100, 100, width=32), min_size=1, max_size=2),
    extra=extras,
)

openai_formats = st.one_of(
    st.none(),
    st.just(Format(kind="json")),
    st.builds(
        Format, kind=st.just("schema"), name=names, schema=json_objects, strict=st.none() | st.booleans()
    ),
)

openai_chats = st.builds(
    ChatRequest,
    model=names,
    messages=messages(images=_links, calls=_tool_calls, mixed=True),
    tools=st.lists(
        st.builds(
            Tool,
            name=names,
            description=st.none() | texts,
            parameters=st.none() | json_objects,
            strict=st.none() | st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    tool_choice=_choices,
    parallel_tool_calls=st.none() | st.booleans(),
    format=openai_formats,
    sampling=openai_sampling,
    n=st.integers(1, 128),
    logprobs=st.booleans(),
    top_logprobs=st.none() | st.integers(0, 20),
    think=st.none() | st.booleans() | st.sampled_from(["low", "medium", "high"]),
    template_kwargs=st.dictionaries(st.sampled_from(["documents", "tools_in_user"]), json_values, max_size=2),
).map(_consistent)

_prompts = st.one_of(
    st.lists(texts, min_size=1, max_size=3),
    st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3),
).map(tuple)

openai_completions = st.builds(
    CompletionRequest,
    model=names,
    prompts=_prompts,
    suffix=st.none() | texts,
    echo=st.booleans(),
    sampling=openai_sampling,
    format=openai_formats,
    n=st.integers(1, 8),
    logprobs=st.none() | st.integers(0, 20),
)

openai_embeddings = st.builds(
    EmbeddingRequest,
    model=names,
    inputs=_prompts,
    dimensions=st.none() | st.integers(1, 4096),
    encoding=st.sampled_from(["float", "base64"]),
)

ollama_chats = st.builds(
    ChatRequest,
    model=names,
    messages=messages(images=_images, calls=_object_calls, mixed=False),
    tools=st.lists(
        st.builds(Tool, name=names, description=st.none() | texts, parameters=st.none() | json_objects),
        max_size=2,
    ).map(tuple),
    tool_choice=_choices,
    format=st.none()
    | st.just(Format(kind="json"))
    | st.builds(Format, kind=st.just("schema"), schema=json_objects),
    sampling=st.builds(
        Sampling,
        max_tokens=st.none() | st.integers(1, 2**31 - 1),
        temperature=st.none() | st.floats(0, 2, width=32),
        top_p=st.none() | shares,
        top_k=st.none() | st.just(-1) | st.integers(1, 1000),
        min_p=st.none() | shares,
        seed=st.none() | st.integers(0, 2**61),
        stop=st.lists(texts, max_size=2).map(tuple),
        presence_penalty=st.none() | penalties,
        frequency_penalty=st.none() | penalties,
        repetition_penalty=st.none() | shares,
        extra=extras,
    ),
    stream=st.booleans(),
    logprobs=st.booleans(),
    top_logprobs=st.none() | st.integers(0, 20),
    think=st.none() | st.booleans() | st.sampled_from(["low", "medium", "high", "max"]),
    keep_alive=st.none() | st.floats(-1, 3600, width=32),
    truncate=st.booleans(),
    context=st.none() | st.integers(1, 2**20),
).map(_consistent)

# ---- streams of events ---------------------------------------------------------------------------

_usages = st.builds(
    Usage,
    input_tokens=st.integers(1, 10**6),
    output_tokens=st.integers(1, 10**6),
    cached_tokens=st.none() | st.integers(0, 10**6),
    reasoning_tokens=st.none() | st.integers(0, 10**6),
)


@st.composite
def openai_events(draw: st.DrawFn) -> list[Any]:
    """A chat of one or two choices whose deltas are mixed, with its usage at the end."""
    events: list[Any] = []
    choices = range(draw(st.integers(1, 2)))
    for index in choices:
        said = st.builds(
            TextDelta, text=texts, index=st.just(index), logprobs=st.lists(logprobs, max_size=2).map(tuple)
        )
        thought = st.builds(ReasoningDelta, text=texts, index=st.just(index))
        events += draw(st.lists(said | thought, max_size=4))
        for call in range(draw(st.integers(0, 2))):
            events.append(
                ToolCallDelta(
                    call=call,
                    id=draw(ids),
                    name=draw(names),
                    arguments=draw(st.just("") | texts),
                    index=index,
                )
            )
            events += [
                ToolCallDelta(call=call, arguments=text, index=index)
                for text in draw(st.lists(texts, max_size=2))
            ]
    for index in choices:
        events.append(
            Finished(finish_reason=draw(st.sampled_from(["stop", "length", "tool_calls"])), index=index)
        )
    return [*events, Used(usage=draw(_usages))]


@st.composite
def completion_events(draw: st.DrawFn) -> list[Any]:
    """A text completion. The old shape of log probabilities has no bytes, and a token only once."""
    plain = st.builds(Logprob, token=texts, logprob=st.floats(-100, 0, width=32))
    chosen = st.builds(
        Logprob,
        token=texts,
        logprob=st.floats(-100, 0, width=32),
        top=st.lists(plain, max_size=2, unique_by=lambda top: top.token).map(tuple),
    )
    said = st.builds(TextDelta, text=texts, logprobs=st.lists(chosen, max_size=2).map(tuple))
    finish = Finished(finish_reason=draw(st.sampled_from(["stop", "length"])))
    return [*draw(st.lists(said, max_size=4)), finish, Used(usage=draw(_usages))]


@st.composite
def ollama_events(draw: st.DrawFn) -> list[Any]:
    """A chat as Ollama can say it: calls whole and last, with objects as arguments."""
    said = st.builds(TextDelta, text=texts, logprobs=st.lists(logprobs, max_size=2).map(tuple))
    thought = st.builds(ReasoningDelta, text=texts)
    events: list[Any] = draw(st.lists(said | thought, max_size=4))
    calls = draw(st.integers(0, 2))
    for call in range(calls):
        events.append(
            ToolCallDelta(call=call, id=draw(ids), name=draw(names), arguments=draw(canonical_arguments))
        )
    reason = draw(st.sampled_from(["length", "tool_calls" if calls else "stop"]))
    usage = Usage(input_tokens=draw(st.integers(1, 10**6)), output_tokens=draw(st.integers(1, 10**6)))
    return [*events, Finished(finish_reason=reason), Used(usage=usage)]
