"""The engines' own series among ours: each family once, each series with its replica."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from portico.engines.gpus import Gpu
from portico.gateway.engine_metrics import merged, of_gpus

ONE = b"""# HELP python_info Python
# TYPE python_info gauge
python_info{version="3.11"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
# HELP vllm:e2e_request_latency_seconds Histogram of e2e request latency in seconds.
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="m"} 1.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 3.0
vllm:e2e_request_latency_seconds_count{engine="0",model_name="m"} 3.0
vllm:e2e_request_latency_seconds_sum{engine="0",model_name="m"} 1.5
# HELP vllm:bare A series without labels
# TYPE vllm:bare gauge
vllm:bare 4.0
"""
TWO = ONE.replace(b" 2.0", b" 7.0")


def samples(text: bytes, name: str) -> dict[str, float]:
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


def test_each_series_has_its_replica_and_each_family_stands_once() -> None:
    text = merged({"m": ONE, 'odd"name#2': TWO})
    assert samples(text, "vllm:num_requests_running") == {"m": 2.0, 'odd"name#2': 7.0}
    assert samples(text, "vllm:bare") == {"m": 4.0, 'odd"name#2': 4.0}
    assert text.count(b"# TYPE vllm:num_requests_running gauge") == 1
    assert text.count(b"# HELP vllm:e2e_request_latency_seconds ") == 1
    families = [family.name for family in text_string_to_metric_families(text.decode())]
    assert len(families) == len(set(families)) == 3, "the series of a family stand together"
    assert b"python_info" not in text, "it would be taken for ours"


def test_nothing_to_tell() -> None:
    assert merged({}) == b"" and of_gpus(()) == b""


def test_gpus() -> None:
    text = of_gpus(
        (Gpu(index=0, name="H100", total=80, free=30, busy=0.5), Gpu(index=1, name="H100", total=80, free=80))
    )
    found = {
        (sample.name, sample.labels["gpu"]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert found == {
        ("portico_gpu_memory_bytes", "0"): 80.0,
        ("portico_gpu_memory_bytes", "1"): 80.0,
        ("portico_gpu_memory_free_bytes", "0"): 30.0,
        ("portico_gpu_memory_free_bytes", "1"): 80.0,
        ("portico_gpu_busy", "0"): 0.5,
    }
