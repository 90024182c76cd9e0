"""Beam search: the likeliest answers, instead of one that is drawn.

`Search` decides by transformers' rules (generation/utils.py, `_beam_search`, read at 5.24), from token ids and log
probabilities alone. beam_search.py asks a server for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from portico.client.results import Timing
from portico.messages import FinishReason, Usage

EarlyStopping = bool | Literal["never"]
IsEnd = Callable[[int], bool | None]
"""Whether a token ends an answer; None: nobody knows yet."""


class Beam(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. `str(beam)` is its text."""

    text: str
    """Without the end; empty where the server has no /detokenize."""
    token_ids: tuple[int, ...]
    """With the token that ended it."""
    logprob: float
    """The sum of its tokens' log probabilities (natural logarithm)."""
    score: float
    """`logprob` / number of tokens ** length_penalty. The end counts as a token."""
    finish_reason: FinishReason

    def __str__(self) -> str:
        return self.text


class Beams(msgspec.Struct, frozen=True, kw_only=True):
    """Answers, the best first. `str(beams)` is the text of the best."""

    sequences: tuple[Beam, ...]
    usage: Usage
    """Of all requests together; a prompt that was sent again counts again."""
    requests: int
    by: Literal["client", "server"]
    """Who searched: the client, by transformers' rules, or vLLM, by its own."""
    prompt_token_ids: tuple[int, ...] = ()
    model: str = ""
    url: str = ""
    timing: Timing = Timing()

    def __str__(self) -> str:
        return self.sequences[0].text if self.sequences else ""

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[Beam]:
        return iter(self.sequences)

    def __getitem__(self, at: int) -> Beam:
        return self.sequences[at]


# ---- what is decided


class Line(NamedTuple):
    """The tokens of an answer so far, and the sum of their log probabilities."""

    ids: tuple[int, ...]
    logprob: float


class Ended(NamedTuple):
    score: float
    line: Line
    stopped: bool
    """At an end; else at max_tokens."""


class Search:
    """Which beams go on. Does no I/O: it is told what may follow, and which tokens are ends."""

    def __init__(
        self, width: int, *, max_tokens: int, length_penalty: float, early_stopping: EarlyStopping
    ) -> None:
        self.width, self.max_tokens = width, max_tokens
        self._penalty, self._early = length_penalty, early_stopping
        self.running: list[Line] = [Line((), 0.0)]
        self.ended: list[Ended] = []
        self.over = False

    def followers(self, told: Sequence[Sequence[tuple[int, float]]]) -> list[Line]:
        """Every running beam with each token that may follow it, the likeliest first."""
        found = [
            Line((*line.ids, token), line.logprob + logprob)
            for line, tokens in zip(self.running, told, strict=True)
            for token, logprob in tokens
        ]
        return sorted(found, key=lambda line: -line.logprob)

    def unsure(self, found: Sequence[Line], is_end: IsEnd) -> set[int]:
        """Tokens of which it must be known whether they are ends before `go_on` can decide."""
        tokens, going = set[int](), 0
        for at, line in enumerate(found):
            if at >= self.width and (going >= self.width or len(line.ids) >= self.max_tokens):
                break
            token = line.ids[-1]
            if is_end(token) is None:
                tokens.add(token)
            going += not is_end(token)
        return tokens

    def go_on(self, found: Sequence[Line], is_end: IsEnd) -> None:
        """One step.

        1. Of the `width` likeliest, those that end (at an end or at max_tokens) are finished, and the best `width` finished
        ones are kept; once there are so many and early_stopping is True, no further one. 2. The `width` likeliest others
        go on. 3. It is over when none goes on; when early_stopping is True and `width` are finished; or when the best that
        runs, divided by its length now (by max_tokens for "never" and a positive penalty), is no better than the worst that
        is kept.
        """
        length = len(found[0].ids)
        full = len(self.ended) == self.width
        for line in found[: self.width]:  # (1)
            stopped = bool(is_end(line.ids[-1]))
            if (stopped or length >= self.max_tokens) and not (full and self._early is True):
                self.ended.append(Ended(self._score(line, length), line, stopped))
        self.ended.sort(key=lambda ended: -ended.score)
        del self.ended[self.width :]
        others = [line for line in found if not is_end(line.ids[-1])] if length < self.max_tokens else []
        self.running = others[: self.width]  # (2)
        self.over = not self.running or self._settled(length)  # (3)

    def _settled(self, length: int) -> bool:
        if len(self.ended) < self.width:
            return False
        if self._early is True:
            return True
        longest = self.max_tokens if self._early == "never" and self._penalty > 0 else length
        return self._score(self.running[0], longest) <= self.ended[-1].score

    def _score(self, line: Line, length: int) -> float:
        return float(line.logprob / length**self._penalty)
