"""What a call may take of its budgets, set aside before it is sent; and what it cost in the end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import msgspec

from portico.client import budget
from portico.client.budget import Budget, Hold, Need
from portico.client.exchange import Exchanged
from portico.client.wishes import Answer, Delay, Flow, Together
from portico.dialects import openai
from portico.errors import ClientError, NotSupported, PriceUnknown, PromptTooLong, TimedOut
from portico.messages import ChatRequest, CompletionRequest, EmbeddingRequest, Image, Usage

if TYPE_CHECKING:
    from portico.client.flows import Flows

Request = ChatRequest | CompletionRequest | EmbeddingRequest
UNTOLD = 4096
"""Tokens that an answer without max_tokens is given, at most, where a server does not tell its context: what a budget could pay
for may be more than the model takes."""
WAIT = 0.02
"""Seconds after which it is looked again whether calls in flight have left something; up to ten times as long."""


def reserved(
    place: Flows, request: Request, *, stream: bool, began: float
) -> Flow[tuple[Request, Hold | None]]:
    """The request with its max_tokens, and what is set aside for it; None: there is no budget. Raises OverBudget, PriceUnknown,
    PromptTooLong; TimedOut where the time of the whole call is used up by waiting."""
    budgets = budget.in_force(place.settings.budget)
    if not budgets:
        return request, None
    need = yield from _need(place, request, budgets)
    total, wait = place.settings.timeouts.total, WAIT
    until = began + total if total else math.inf
    while True:
        try:
            held = budget.hold(budgets, need, whole=not stream)
        except ClientError as error:
            error.url = place.server.url
            raise
        if isinstance(held, Hold):
            break
        if time.monotonic() + wait > until:
            late = TimedOut(which="total", seconds=total)
            late.url = place.server.url
            raise late
        yield Delay(wait)
        wait = min(wait * 1.5, 10 * WAIT)
    if need.answer is None and held.answer and not isinstance(request, EmbeddingRequest):
        sampling = msgspec.structs.replace(request.sampling, max_tokens=held.answer)
        request = msgspec.structs.replace(request, sampling=sampling)
    return request, held


def _need(place: Flows, request: Request, budgets: tuple[Budget, ...]) -> Flow[Need]:
    price = None
    if any(each.cost is not None for each in budgets):
        found = place.tariff(request.model)
        if (price := found.price) is None:
            error = PriceUnknown(f"A budget of money cannot be kept: {found.why}.")
            error.url = place.server.url
            raise error
    tokens, exact, limit = yield from _prompt(place, request)
    if isinstance(request, EmbeddingRequest):
        return Need(prompt=tokens, answer=0, exact=exact, price=price)
    prompts = len(request.prompts) if isinstance(request, CompletionRequest) else 1
    room = limit - tokens // prompts if limit is not None else UNTOLD
    if exact and prompts == 1 and room < 1:
        too_long = PromptTooLong(tokens=tokens, limit=limit)
        too_long.url = place.server.url
        raise too_long
    return Need(
        prompt=tokens,
        answer=request.sampling.max_tokens,
        room=max(1, room),
        answers=prompts * max(1, request.n),
        exact=exact,
        price=price,
    )


def _prompt(place: Flows, request: Request) -> Flow[tuple[int, bool, int | None]]:
    """(tokens, whether the server counted them, the context)."""
    if isinstance(request, ChatRequest):
        count = yield from place.tokens.count_here(request)
        images = any(isinstance(part, Image) for message in request.messages for part in message.parts)
        return count.tokens, count.exact and not images, count.limit
    inputs = request.inputs if isinstance(request, EmbeddingRequest) else request.prompts
    limit = yield from place.context(request.model)
    counted: list[tuple[int, bool]] = yield Together([_text(place, each, request.model) for each in inputs])
    return sum(tokens for tokens, _ in counted), all(exact for _, exact in counted), limit


def _text(place: Flows, text: str | tuple[int, ...], model: str) -> Flow[tuple[int, bool]]:
    if not isinstance(text, str):
        return len(text), True
    try:
        return len((yield from place.tokens.tokenize(text, model=model))), True
    except NotSupported:
        return len(text.encode()) // 3 + 1, False


class _Used(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    usage: _Used | None = None


def settled(exchanged: Exchanged) -> None:
    """Of a reply that nobody here reads otherwise: its usage, or everything."""
    if exchanged.hold is None:
        return
    used = None
    if isinstance(exchanged.reply, Answer):
        try:
            used = msgspec.json.decode(exchanged.reply.body, type=_Reply).usage
        except msgspec.MsgspecError:
            used = None
    usage = Usage(input_tokens=used.prompt_tokens, output_tokens=used.completion_tokens) if used else None
    exchanged.hold.settle(usage)


def read(path: str, body: Any) -> Request:
    """A raw body as the request it is."""
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
    if path.endswith("/embeddings"):
        return openai.read_embedding(sent)
    return openai.read_chat(sent) if path.endswith("/chat/completions") else openai.read_completion(sent)
