"""Which of a model's replicas answers a request, and which are given a rest because they fail.

Choosing is pure (`choose`); `Balance` owns what is known of each replica meanwhile.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b

import msgspec

from portico.messages import Value

FAILURES = 5
"""In a row: then a replica gets a rest."""
REST_SECONDS = 10.0
"""After it one request tries whether it answers again; the others wait for how that ends."""
FAR, MUCH = 8192, 1.5
"""A replica that has the beginning of a prompt in its cache is kept for it unless it has so many more tokens, and so
many times as many, before it as the least loaded one: reading a prompt again is cheaper then than waiting."""
START = 4 * FAR
"""A replica that is not loaded is started, and waited for, when each that is has so many more tokens before it: less is
answered sooner than a model is loaded."""


class Candidate(Value, frozen=True, kw_only=True):
    """How one replica stands. `outstanding`: tokens of the requests it has now, asked for and read."""

    name: str
    outstanding: int = 0
    ready: bool = True
    """It answers at once; another has to be started first, or waited for."""
    resting: bool = False
    tried: int = 0
    """How often it has failed this request."""


def choose(
    candidates: Sequence[Candidate], key: bytes, *, draw: Callable[[Sequence[Candidate]], Candidate]
) -> Candidate:
    """At least one candidate.

    1. Those that failed this request least often; of these the ones that are not resting, if there are any; of
       these the ones that are ready, if there are any. Where all of these have far more to do than one that is not, it
       is that one: else replicas that were unloaded would never be used again.
    2. Of these the one that `key`, the beginning of the prompt, belongs to, unless it has far too much to do.
    3. Else the less loaded of two that are drawn.
    """
    rest: Sequence[Candidate] = candidates
    fewest = min(one.tried for one in rest)
    rest = [one for one in rest if one.tried == fewest]
    rest = [one for one in rest if not one.resting] or rest
    ready = [one for one in rest if one.ready]
    if ready:
        calm = min(one.outstanding for one in ready) - START
        rest = [one for one in rest if not one.ready and one.outstanding < calm] or ready  # (1)
    if len(rest) == 1:
        return rest[0]
    home = max(rest, key=lambda one: blake2b(key + one.name.encode(), digest_size=8).digest())
    least = min(one.outstanding for one in rest)
    if home.outstanding <= max(least + FAR, MUCH * least):  # (2)
        return home
    one, other = draw(rest), draw(rest)  # (3)
    return min(one, other, key=lambda each: each.outstanding)


class _Record:
    __slots__ = ("failures", "outstanding", "rests_until", "trial")

    def __init__(self) -> None:
        self.outstanding = self.failures = 0
        self.rests_until = 0.0
        self.trial = False


class Balance:
    """Owns the load and the failures of all replicas that share their model with others. Belongs to one loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[Sequence[Candidate]], Candidate] = random.choice,
    ) -> None:
        self._clock, self._draw = clock, draw
        self._records: dict[str, _Record] = {}

    def choose(
        self, names: Sequence[str], key: bytes, *, tried: Collection[str], is_ready: Callable[[str], bool]
    ) -> str:
        """The replica to ask. `tried`: those that failed this request, as often as they did."""
        counts = list(tried)
        candidates = [
            Candidate(
                name=name,
                outstanding=self._record(name).outstanding,
                ready=is_ready(name),
                resting=self.rests(name),
                tried=counts.count(name),
            )
            for name in names
        ]
        return choose(candidates, key, draw=self._draw).name

    def began(self, name: str, tokens: int) -> None:
        record = self._record(name)
        record.outstanding += tokens
        if record.failures >= FAILURES:
            record.trial = True

    def ended(self, name: str, tokens: int, *, failed: bool) -> None:
        """`failed`: it did not answer, or said that it cannot now."""
        record = self._record(name)
        record.outstanding -= tokens
        record.trial = False
        if not failed:
            record.failures = 0
        else:
            record.failures += 1
            if record.failures >= FAILURES:
                record.rests_until = self._clock() + REST_SECONDS

    def rests(self, name: str) -> bool:
        record = self._records.get(name)
        if record is None or record.failures < FAILURES:
            return False
        return record.trial or record.rests_until > self._clock()

    def outstanding(self, name: str) -> int:
        record = self._records.get(name)
        return record.outstanding if record is not None else 0

    def _record(self, name: str) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
        return record


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


class _Prompt(msgspec.Struct):
    messages: list[_Message] = []
    prompt: msgspec.Raw = msgspec.Raw()


_prompt = msgspec.json.Decoder(_Prompt)


def beginning(body: bytes) -> bytes:
    """What a conversation begins with, up to the first thing its user says: the same in all its turns. Of a
    completion its prompt. Whole, because a thousand conversations may begin with the same instructions."""
    try:
        said = _prompt.decode(body)
    except msgspec.DecodeError:
        return body
    parts = []
    for message in said.messages:
        parts.append(bytes(message.content))
        if message.role == "user":
            break
    return b"\n".join(parts) or bytes(said.prompt)


def weight(body: bytes, limit: int | None) -> int:
    """About how many tokens a request will take, read and made: known well enough to compare loads."""
    return len(body) // 4 + (limit if limit is not None else 256)
