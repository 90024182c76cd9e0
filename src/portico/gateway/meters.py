"""Counting: an Account is settled once, at the end of its request, on every path; Meters add them up.

The sums are plain numbers in dictionaries, because a counter of prometheus-client costs over a microsecond
and a request has ten of them; prometheus-client renders them when somebody asks for /metrics.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from portico.web import Account

if TYPE_CHECKING:
    from prometheus_client import Metric

FIRST_TOKEN_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
PER_TOKEN_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
DURATION_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Histogram:
    """Counts in buckets, cumulated only when read."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> Iterator[tuple[str, float]]:
        """(upper bound as text, how many values are at most that), the last bound being +Inf."""
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            yield ("+Inf" if bound == float("inf") else repr(bound)), float(running)


class ModelSums:
    """What the requests of one model add up to."""

    __slots__ = ("duration", "first", "input_tokens", "output_tokens", "per_token")

    def __init__(self) -> None:
        self.input_tokens = 0
        self.output_tokens = 0
        self.first = Histogram(FIRST_TOKEN_BUCKETS)
        self.per_token = Histogram(PER_TOKEN_BUCKETS)
        self.duration = Histogram(DURATION_BUCKETS)

    def add(self, account: Account) -> None:
        usage, started, first = account.usage, account.started, account.first
        tokens = account.chunks
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            tokens = usage.output_tokens
        ended = account.last
        if first:
            self.first.add((first - started) * 1e-9)
            if tokens > 1 and ended > first:
                self.per_token.add((ended - first) * 1e-9 / (tokens - 1))
        self.duration.add(((ended or time.perf_counter_ns()) - started) * 1e-9)


class Meters:
    """Owns all sums of the server. Belongs to its event loop; nothing here waits or locks."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.requests: dict[tuple[str, str, str, int], int] = {}
        self.models: dict[str, ModelSums] = {}
        self.hung_up = 0

    def settle(self, account: Account, status: int, *, gone: bool) -> None:
        """Counts a request that has ended. `status` 499 stands for a caller who left."""
        if gone:
            self.hung_up += 1
            status = 499
        model = account.model
        key = (account.dialect, account.route, model, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        if model:
            sums = self.models.get(model)
            if sums is None:
                sums = self.models[model] = ModelSums()
            sums.add(account)

    def metrics(self, queued: Iterable[tuple[str, int]], up: Iterable[tuple[str, str, int]]) -> list[Metric]:
        """Everything as prometheus-client's metrics. `queued` gives requests waiting by model, `up` each
        replica as (model, state, in flight)."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        requests = CounterMetricFamily(
            "portico_requests",
            "Requests answered, by status (of a stream that broke, its error's; 499: the caller left)",
            labels=["dialect", "route", "model", "status"],
        )
        for (dialect, route, model, status), count in self.requests.items():
            requests.add_metric([dialect, route, model, str(status)], count)
        flight = GaugeMetricFamily("portico_requests_in_flight", "Requests being answered now")
        flight.add_metric([], self.in_flight - 1)  # without the one that asks
        depth = GaugeMetricFamily("portico_queue_depth", "Requests waiting for a model", labels=["model"])
        for model, count in queued:
            depth.add_metric([model], count)
        left = CounterMetricFamily("portico_callers_left", "Callers who left before their answer was whole")
        left.add_metric([], self.hung_up)
        states = GaugeMetricFamily(
            "portico_replica_in_flight", "Requests in an engine", labels=["model", "state"]
        )
        for model, state, count in up:
            states.add_metric([model, state], count)
        return [
            requests,
            flight,
            depth,
            left,
            states,
            self._tokens("input"),
            self._tokens("output"),
            self._times("time_to_first_token", "From the request to the first token", lambda it: it.first),
            self._times("time_per_output_token", "Between two tokens", lambda it: it.per_token),
            self._times("request_duration", "From the request to the end", lambda it: it.duration),
        ]

    def _tokens(self, direction: str) -> Metric:
        from prometheus_client.core import CounterMetricFamily

        what = {"input": "Tokens of prompts", "output": "Tokens generated"}[direction]
        family = CounterMetricFamily(f"portico_{direction}_tokens", what, labels=["model"])
        for model, sums in self.models.items():
            family.add_metric([model], sums.input_tokens if direction == "input" else sums.output_tokens)
        return family

    def _times(self, name: str, text: str, which: Callable[[ModelSums], Histogram]) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(f"portico_{name}_seconds", text, labels=["model"])
        for model, sums in self.models.items():
            histogram = which(sums)
            family.add_metric([model], list(histogram.buckets()), histogram.total)
        return family


def exposition(metrics: Callable[[], list[Metric]]) -> bytes:
    """The text that Prometheus reads (its exposition format 0.0.4)."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Sums(Collector):
        def collect(self) -> list[Metric]:
            return metrics()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Sums())
    return generate_latest(registry)
