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


class Meters:
    """Owns all sums of the server. Belongs to its event loop; nothing here waits or locks."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.requests: dict[tuple[str, str, str, int], int] = {}
        self.input_tokens: dict[str, int] = {}
        self.output_tokens: dict[str, int] = {}
        self.hung_up = 0
        self._first: dict[str, Histogram] = {}
        self._per_token: dict[str, Histogram] = {}
        self._duration: dict[str, Histogram] = {}

    def settle(self, account: Account, status: int, *, gone: bool) -> None:
        """Counts a request that has ended. `status` 499 stands for a caller who left."""
        if gone:
            self.hung_up += 1
            status = 499
        model = account.model
        key = (account.dialect, account.route, model, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        usage = account.usage
        if usage is not None:
            self.input_tokens[model] = self.input_tokens.get(model, 0) + usage.input_tokens
            self.output_tokens[model] = self.output_tokens.get(model, 0) + usage.output_tokens
        if account.first:
            _histogram(self._first, model, FIRST_TOKEN_BUCKETS).add((account.first - account.started) / 1e9)
            tokens = usage.output_tokens if usage is not None else account.chunks
            if tokens > 1 and account.last > account.first:
                seconds = (account.last - account.first) / 1e9 / (tokens - 1)
                _histogram(self._per_token, model, PER_TOKEN_BUCKETS).add(seconds)
        if model:
            seconds = (time.perf_counter_ns() - account.started) / 1e9
            _histogram(self._duration, model, DURATION_BUCKETS).add(seconds)

    def metrics(self, queued: Iterable[tuple[str, int]], up: Iterable[tuple[str, str, int]]) -> list[Metric]:
        """Everything as prometheus-client's metrics. `queued` gives requests waiting by model, `up` each
        replica as (model, state, in flight)."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        requests = CounterMetricFamily(
            "portico_requests",
            "Requests answered, by what was answered (499: the caller left)",
            labels=["dialect", "route", "model", "status"],
        )
        for (dialect, route, model, status), count in self.requests.items():
            requests.add_metric([dialect, route, model, str(status)], count)
        flight = GaugeMetricFamily("portico_requests_in_flight", "Requests being answered now")
        flight.add_metric([], self.in_flight)
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
            self._tokens("portico_input_tokens", "Prompt tokens", self.input_tokens),
            self._tokens("portico_output_tokens", "Generated tokens", self.output_tokens),
            _family(
                "portico_time_to_first_token_seconds", "From the request to the first token", self._first
            ),
            _family("portico_time_per_output_token_seconds", "Between two tokens", self._per_token),
            _family("portico_request_duration_seconds", "From the request to the end", self._duration),
        ]

    def _tokens(self, name: str, text: str, sums: dict[str, int]) -> Metric:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(name, text, labels=["model"])
        for model, count in sums.items():
            family.add_metric([model], count)
        return family


def _histogram(histograms: dict[str, Histogram], model: str, bounds: tuple[float, ...]) -> Histogram:
    histogram = histograms.get(model)
    if histogram is None:
        histogram = histograms[model] = Histogram(bounds)
    return histogram


def _family(name: str, text: str, histograms: dict[str, Histogram]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, text, labels=["model"])
    for model, histogram in histograms.items():
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
