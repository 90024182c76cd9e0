"""/metrics of a real server: every figure of one request, and nothing else, as the difference of two readings."""

from __future__ import annotations

from typing import Any
from urllib.request import ProxyHandler, build_opener

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asking import HELLO, PATHS, Dialect
from live_server import LiveServer, wait_until
from portico.names import canonical

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]
TOKENS = 100
"""Enough that they do not all arrive at once: there would be no time between them."""
direct = build_opener(ProxyHandler({})).open


def figures(server: LiveServer) -> Figures:
    with direct(f"{server.url}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Difference:
    """What has been added between two readings."""

    def __init__(self, before: Figures, after: Figures) -> None:
        self._added = {key: value - before.get(key, 0.0) for key, value in after.items()}

    def of(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """By labels, only what has changed."""
        return {labels: value for (each, labels), value in self._added.items() if each == name and value}

    def one(self, name: str, **labels: str) -> float:
        """The value of the one series that has changed; it has these labels and no other."""
        ((found, value),) = self.of(name).items()
        assert dict(found) == labels
        return value


def ask(server: LiveServer, dialect: Dialect) -> tuple[int, int]:
    """A streamed chat of several tokens; (tokens in, tokens out) as its caller is told."""
    body: dict[str, Any] = {"model": server.model, "messages": HELLO, "stream": True}
    if dialect == "ollama":
        body["options"] = {"num_predict": TOKENS, "ignore_eos": True}
    else:
        body |= {"max_tokens": TOKENS, "ignore_eos": True, "stream_options": {"include_usage": True}}
    with httpx2.Client(trust_env=False, timeout=20) as client:
        reply = client.post(server.url + PATHS[dialect], json=body)
    assert reply.status_code == 200
    if dialect == "ollama":
        last = httpx2.Response(200, content=reply.content.splitlines()[-1]).json()
        return last["prompt_eval_count"], last["eval_count"]
    usage = httpx2.Response(200, content=reply.content.split(b"data: ")[-2]).json()["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize("dialect", ["ollama", "openai"])
def test_a_chat_is_counted_once_in_every_figure(server: LiveServer, dialect: Dialect) -> None:
    ask(server, dialect)  # the model is loaded
    settled(server)
    before = figures(server)
    tokens_in, tokens_out = ask(server, dialect)
    settled(server)
    added = Difference(before, figures(server))

    assert tokens_in > 0 and tokens_out == TOKENS
    model, path = canonical(server.model), PATHS[dialect]
    counted = {
        labels: value
        for labels, value in added.of("portico_requests_total").items()
        if dict(labels)["model"]  # the others are the questions of this test
    }
    ((labels, value),) = counted.items()
    assert value == 1
    assert dict(labels) == {"dialect": dialect, "route": path, "model": model, "status": "200"}
    assert added.one("portico_input_tokens_total", model=model) == tokens_in
    assert added.one("portico_output_tokens_total", model=model) == tokens_out
    seconds = {}
    for name in ("time_to_first_token", "time_per_output_token", "request_duration"):
        assert added.one(f"portico_{name}_seconds_count", model=model) == 1
        seconds[name] = added.one(f"portico_{name}_seconds_sum", model=model)
        buckets = {dict(labels)["le"]: n for labels, n in added.of(f"portico_{name}_seconds_bucket").items()}
        assert buckets == dict.fromkeys(buckets, 1)
        assert {bound for bound in bounds(server, name) if float(bound) >= seconds[name]} == set(buckets)
    first, between, whole = seconds.values()
    assert first + between * (tokens_out - 1) == pytest.approx(whole, abs=1e-6)
    assert added.of("portico_callers_left_total") == {}
    assert added.of("portico_requests_in_flight") == added.of("portico_queue_depth") == {}


def bounds(server: LiveServer, name: str) -> set[str]:
    labels = [dict(labels) for each, labels in figures(server) if each == f"portico_{name}_seconds_bucket"]
    return {each["le"] for each in labels if each["model"] == canonical(server.model)}


def settled(server: LiveServer) -> None:
    """A request is counted when it has ended, which its caller may see a moment before."""
    wait_until(lambda: server.metric("portico_requests_in_flight") == 0, seconds=5, what="nothing in flight")


def test_what_fails_is_counted_by_its_status_and_has_no_times(server: LiveServer) -> None:
    before = figures(server)
    with httpx2.Client(trust_env=False, timeout=20) as client:
        missing = client.post(
            f"{server.url}/v1/chat/completions", json={"model": "nosuch", "messages": HELLO}
        )
        refused = client.post(f"{server.url}/api/chat", json={"model": server.model, "messages": 5})
    assert (missing.status_code, refused.status_code) == (404, 400)
    added = Difference(before, figures(server))
    counted = {
        tuple(sorted(dict(labels).items())): n for labels, n in added.of("portico_requests_total").items()
    }
    failed = {
        tuple(dict(labels).values()): n for labels, n in counted.items() if dict(labels)["status"] >= "400"
    }
    assert failed == {
        ("openai", "", "/v1/chat/completions", "404"): 1,
        ("ollama", "", "/api/chat", "400"): 1,
    }
    assert added.of("portico_time_to_first_token_seconds_count") == {}
    assert added.of("portico_output_tokens_total") == {}
