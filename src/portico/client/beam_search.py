"""How a server is asked for the likeliest answers: one token of every beam at a time, or all at once where it is vLLM.

No server tells which tokens end an answer, so it is asked: a token that is forced on it ends the answer or does not. What it
said is kept with the client; but a recording holds all questions, and a replay asks them all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from portico import recording
from portico.client import options
from portico.client.beams import Beam, Beams, EarlyStopping, IsEnd, Line, Search
from portico.client.flows import COMPLETIONS, Flows
from portico.client.results import Timing, used_by_both
from portico.client.wishes import Flow, Together
from portico.dialects import openai
from portico.dialects.openai.logprobs import NUMBERED
from portico.errors import InvalidRequest, NotSupported, PromptTooLong, Refused
from portico.messages import Choice, CompletionRequest, Logprob, Message, Sampling, Usage

By = Literal["auto", "client", "server"]
MOST = 20
"""Alternatives with a token that vLLM and Portico give at most, unless they are told otherwise (--max-logprobs)."""
_SPARE = 4
"""Alternatives asked for beyond the width: so many of them may be ends."""
_FORCED = 100.0
"""The bias that leaves a model one token to say (OpenAI's API allows -100 to 100)."""
FEATURE = "beam search"


class Wanted(NamedTuple):
    """The arguments of a search."""

    width: int
    max_tokens: int
    length_penalty: float
    early_stopping: EarlyStopping
    ends: Sequence[int] | None
    by: By
    at_once: int
    extra: Mapping[str, Any]


def search(flows: Flows, prompt: Any, *, model: str | None, wanted: Wanted) -> Flow[Beams]:
    """Raises NotSupported for a server that lacks what this needs, InvalidRequest for a width it cannot have."""
    if wanted.width < 1 or wanted.max_tokens < 1:
        raise InvalidRequest("Beam search needs a width and max_tokens of at least 1.", param="width")
    began = time.monotonic()
    name = yield from flows.own(model)
    ids = yield from _ids(flows, prompt, name)
    limit = yield from flows.context(name)
    if limit is not None and len(ids) + wanted.max_tokens > limit:
        error = PromptTooLong(tokens=len(ids), limit=limit, wanted=wanted.max_tokens)
        error.url = flows.server.url
        raise error
    own = wanted.by == "server" or (wanted.by == "auto" and wanted.early_stopping == "never")
    if own and (yield from _has_its_own(flows, name, ids, wanted)):
        found = yield from _servers(flows, name, ids, wanted)
    elif wanted.by == "server":
        raise _lacking(
            flows, "has no beam search of its own (vLLM's use_beam_search): leave out by='server'."
        )
    else:
        found = yield from _Asking(flows, name, ids, wanted).run()
    timing = Timing(total=time.monotonic() - began)
    return msgspec.structs.replace(
        found, prompt_token_ids=ids, model=name, url=flows.server.url, timing=timing
    )


def _ids(flows: Flows, prompt: Any, model: str) -> Flow[tuple[int, ...]]:
    try:
        if isinstance(prompt, str) and (found := (yield from flows.tokens.tokenize(prompt, model=model))):
            return tuple(found)
        if isinstance(prompt, Message):
            prompt = [prompt]
        if prompt and all(isinstance(each, int) for each in prompt):
            return tuple(prompt)
        if prompt and all(isinstance(each, Mapping | Message) for each in prompt):
            return (yield from flows.tokens.rendered(options.chat(model, prompt, options={})))
    except NotSupported as error:
        raise _lacking(flows, "has no route to tokenize: give the prompt as token ids.") from error
    raise InvalidRequest("A prompt is a text, token ids, or messages, and not empty.", param="prompt")


class _Asking:
    """One search by the client. Owns what it counts."""

    def __init__(self, flows: Flows, model: str, prompt: tuple[int, ...], wanted: Wanted) -> None:
        self._flows, self._model, self._prompt, self._wanted = flows, model, prompt, wanted
        self._search = Search(
            wanted.width,
            max_tokens=wanted.max_tokens,
            length_penalty=wanted.length_penalty,
            early_stopping=wanted.early_stopping,
        )
        self._usage, self._requests = Usage(), 0
        self._alternatives = max(wanted.width, min(wanted.width + _SPARE, MOST))
        self._ends: dict[int, bool] = (
            {} if recording.current() is not None else flows.ends.setdefault(model, {})
        )
        named = frozenset(wanted.ends or ())
        self._is_end: IsEnd = self._ends.get if wanted.ends is None else named.__contains__

    def run(self) -> Flow[Beams]:
        search = self._search
        while not search.over:
            asked: list[Flow[Any]] = [self._next(line) for line in search.running]
            told = yield Together(asked, self._wanted.at_once)
            found = search.followers(told)
            while unsure := search.unsure(found, self._is_end):
                yield Together([self._try(token) for token in sorted(unsure)], self._wanted.at_once)
            search.go_on(found, self._is_end)
        texts = yield from self._texts([ended.line.ids for ended in search.ended])
        beams = tuple(
            Beam(
                text=text,
                token_ids=ended.line.ids,
                logprob=ended.line.logprob,
                score=ended.score,
                finish_reason="stop" if ended.stopped else "length",
            )
            for ended, text in zip(search.ended, texts, strict=True)
        )
        return Beams(sequences=beams, usage=self._usage, requests=self._requests, by="client")

    def _next(self, line: Line) -> Flow[list[tuple[int, float]]]:
        """The likeliest tokens after a beam."""
        prompt = (*self._prompt, *line.ids)
        try:
            said, _ = yield from self._ask(prompt, alternatives=self._alternatives)
        except Refused as error:
            if line.ids:
                raise
            refusal = str(error.args[0])
            why = "does not complete token ids with log probabilities"
            if "logprobs" in refusal:
                why = f"does not give {self._alternatives} alternatives with a token (width={self._wanted.width})"
            raise _lacking(self._flows, f"{why}; it says: {refusal}") from error
        if (
            not said
        ):  # llama.cpp says nothing of a token that is an end or half a character: it is made to say another
            another = next((token for token, is_end in self._ends.items() if not is_end), self._prompt[0])
            said, _ = yield from self._ask(prompt, alternatives=self._alternatives, forced=another)
        found = [(number(each), each.logprob) for each in (said[0].top if said else ())]
        known = [(token, logprob) for token, logprob in found if token is not None and math.isfinite(logprob)]
        if len(known) < min(self._wanted.width, 2):
            raise _lacking(self._flows, "gives no token ids with its log probabilities.")
        return known

    def _try(self, token: int) -> Flow[None]:
        """Whether a token is an end: the server is left no other one to say."""
        said, stopped = yield from self._ask(self._prompt[:1], alternatives=0, forced=token)
        if said and not stopped and number(said[0]) != token:
            raise _lacking(
                self._flows, "does not keep to logit_bias: name the tokens that end an answer, ends=."
            )
        self._ends[token] = stopped

    def _ask(
        self, prompt: Sequence[int], *, alternatives: int, forced: int | None = None
    ) -> Flow[tuple[tuple[Logprob, ...], bool]]:
        """(what is said of the one token that is made, whether it was an end)."""
        sampling = Sampling(
            max_tokens=1,
            temperature=0.0,
            logit_bias=None if forced is None else {str(forced): _FORCED},
            extra={"return_tokens_as_token_ids": True, **self._wanted.extra},
        )
        request = CompletionRequest(
            model=self._model, prompts=(tuple(prompt),), logprobs=alternatives, sampling=sampling
        )
        body = openai.write_completion(request, model=self._model)
        exchanged = yield from self._flows.asked_here(COMPLETIONS, body, self._model)
        result = exchanged.read(openai.read_completion_result, "an answer")
        choice = result.choices[0] if result.choices else Choice()
        self._requests += 1
        self._usage = used_by_both(self._usage, result.usage)
        return choice.logprobs, choice.finish_reason == "stop"

    def _texts(self, answers: Sequence[tuple[int, ...]]) -> Flow[list[str]]:
        wished: list[Flow[Any]] = [
            self._flows.tokens.detokenize(
                [token for token in ids if not self._is_end(token)], model=self._model
            )
            for ids in answers
        ]
        try:
            texts: list[str] = yield Together(wished, self._wanted.at_once)
        except NotSupported:
            return [""] * len(answers)
        return texts


def number(said: Logprob) -> int | None:
    """The token's id, as vLLM writes it and as llama.cpp does."""
    if said.id is not None:
        return said.id
    text = said.token.removeprefix(NUMBERED)
    return int(text) if text != said.token and text.isdecimal() else None


# ---- vLLM's own


class _Columns(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _Choice(msgspec.Struct):
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: _Columns | None = None


class _Used(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    usage: _Used = _Used()


def _body(model: str, prompt: Sequence[int], wanted: Wanted, **more: Any) -> bytes:
    return msgspec.json.encode(
        {
            "model": model,
            "prompt": prompt,
            "use_beam_search": True,
            "n": wanted.width,
            "max_tokens": wanted.max_tokens,
            "length_penalty": wanted.length_penalty,
            "temperature": 0,
            **wanted.extra,
            **more,
        }
    )


def _has_its_own(flows: Flows, model: str, prompt: Sequence[int], wanted: Wanted) -> Flow[bool]:
    """vLLM refuses to stream a beam search; whoever does not know the field answers with one token. Asked once."""
    known = flows.own_beams.get(model) if recording.current() is None else None
    if known is None:
        body = _body(model, prompt[:1], wanted, n=1, max_tokens=1, stream=True)
        try:
            yield from flows.asked_here(COMPLETIONS, body, model)
            known = False
        except Refused as error:
            known = "beam search" in error.args[0].lower()
        flows.own_beams[model] = known
    return known


def _servers(flows: Flows, model: str, prompt: Sequence[int], wanted: Wanted) -> Flow[Beams]:
    more = {
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "include_stop_str_in_output": True,
    }
    exchanged = yield from flows.asked_here(COMPLETIONS, _body(model, prompt, wanted, **more), model)
    reply = exchanged.read(lambda sent: msgspec.json.decode(sent, type=_Reply), "an answer")
    found = []
    for choice in reply.choices:
        ids = tuple(choice.token_ids or ())
        columns = choice.logprobs.token_logprobs if choice.logprobs is not None else []
        total = sum(logprob for logprob in columns if logprob is not None)
        found.append(
            Beam(
                text=choice.text,
                token_ids=ids,
                logprob=total,
                score=total / max(len(ids), 1) ** wanted.length_penalty,
                finish_reason="stop" if choice.finish_reason == "stop" else "length",
            )
        )
    used = Usage(input_tokens=reply.usage.prompt_tokens, output_tokens=reply.usage.completion_tokens)
    found.sort(key=lambda beam: -beam.score)
    return Beams(sequences=tuple(found), usage=used, requests=1, by="server")


def _lacking(flows: Flows, what: str) -> NotSupported:
    error = NotSupported(f"The server cannot do a {FEATURE}: it {what}", feature=FEATURE)
    error.url = flows.server.url
    return error
