"""The table of model families: which model is which, and that the installed vLLM reads what each writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from portico.engines.vllm.families import FAMILIES, Family, family

HERE = Path(__file__).parent
FILE: dict[str, Any] = json.loads((HERE / "vllm_samples.json").read_text(encoding="utf-8"))
SAMPLES: list[dict[str, Any]] = FILE["samples"]
BY_NAME = {row.name: row for row in FAMILIES}
MODES = ("whole", "by_token", "by_sixteen")

KNOWN = {
    "portico-tiny": [("Qwen3ForCausalLM", "qwen3", "portico-tiny")],
    "deepseek-r1-distill": [
        ("Qwen2ForCausalLM", "qwen2", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("LlamaForCausalLM", "llama", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
        ("Qwen3ForCausalLM", "qwen3", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"),
    ],
    "qwq": [("Qwen2ForCausalLM", "qwen2", "Qwen/QwQ-32B")],
    "qwen2.5": [
        ("Qwen2ForCausalLM", "qwen2", "Qwen/Qwen2.5-0.5B-Instruct"),
        ("Qwen2ForCausalLM", "qwen2", "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ"),
        ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("Qwen2MoeForCausalLM", "qwen2_moe", "Qwen/Qwen2-57B-A14B-Instruct"),
    ],
    "qwen3.5-small": [("Qwen3_5ForConditionalGeneration", "qwen3_5", "Qwen/Qwen3.5-0.8B")],
    "qwen3.5": [
        ("Qwen3_5ForConditionalGeneration", "qwen3_5", "Qwen/Qwen3.5-9B"),
        ("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", "Qwen/Qwen3.5-122B-A10B-FP8"),
        ("Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe", "Qwen/Qwen3.6-35B-A3B"),
    ],
    "qwen3-coder": [
        ("Qwen3MoeForCausalLM", "qwen3_moe", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
        ("Qwen3MoeForCausalLM", "qwen3_moe", "unsloth/Qwen3-Coder-480B-A35B-Instruct"),
        ("Qwen3NextForCausalLM", "qwen3_next", "Qwen/Qwen3-Coder-Next-FP8"),
    ],
    "qwen3-thinking": [
        ("Qwen3ForCausalLM", "qwen3", "Qwen/Qwen3-4B-Thinking-2507"),
        ("Qwen3NextForCausalLM", "qwen3_next", "Qwen/Qwen3-Next-80B-A3B-Thinking"),
        ("Qwen3VLForConditionalGeneration", "qwen3_vl", "Qwen/Qwen3-VL-8B-Thinking"),
    ],
    "qwen3-instruct": [
        ("Qwen3ForCausalLM", "qwen3", "Qwen/Qwen3-4B-Instruct-2507"),
        ("Qwen3MoeForCausalLM", "qwen3_moe", "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"),
        ("Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe", "Qwen/Qwen3-VL-30B-A3B-Instruct"),
    ],
    "qwen3": [
        ("Qwen3ForCausalLM", "qwen3", "Qwen/Qwen3-0.6B"),
        ("Qwen3MoeForCausalLM", "qwen3_moe", "Qwen/Qwen3-30B-A3B-GPTQ-Int4"),
        ("Qwen3ForCausalLM", "qwen3", "qwen3:8b"),
        ("Qwen3ForCausalLM", "qwen3", "/cache/hub/models--Qwen--Qwen3-8B/snapshots/b968826d"),
    ],
    "deepseek-v3.2": [
        ("DeepseekV32ForCausalLM", "deepseek_v32", "deepseek-ai/DeepSeek-V3.2"),
        ("DeepseekV32ForCausalLM", "deepseek_v32", "deepseek-ai/DeepSeek-V3.2-Speciale"),
    ],
    "deepseek-v3.1": [
        ("DeepseekV3ForCausalLM", "deepseek_v3", "deepseek-ai/DeepSeek-V3.1"),
        ("DeepseekV3ForCausalLM", "deepseek_v3", "deepseek-ai/DeepSeek-V3.1-Terminus"),
    ],
    "deepseek-r1": [
        ("DeepseekV3ForCausalLM", "deepseek_v3", "deepseek-ai/DeepSeek-R1"),
        ("DeepseekV3ForCausalLM", "deepseek_v3", "deepseek-ai/DeepSeek-R1-0528"),
    ],
    "deepseek-v3": [
        ("DeepseekV3ForCausalLM", "deepseek_v3", "deepseek-ai/DeepSeek-V3"),
        ("DeepseekV3ForCausalLM", "deepseek_v3", "deepseek-ai/DeepSeek-V3-0324"),
    ],
    "codellama-instruct": [("LlamaForCausalLM", "llama", "codellama/CodeLlama-7b-Instruct-hf")],
    "codellama": [
        ("LlamaForCausalLM", "llama", "codellama/CodeLlama-13b-hf"),
        ("LlamaForCausalLM", "llama", "meta-llama/CodeLlama-7b-Python-hf"),
    ],
    "vicuna": [
        ("LlamaForCausalLM", "llama", "lmsys/vicuna-7b-v1.5"),
        ("LlamaForCausalLM", "llama", "lmsys/vicuna-13b-v1.5-16k"),
    ],
    "llama-2-chat": [
        ("LlamaForCausalLM", "llama", "meta-llama/Llama-2-7b-chat-hf"),
        ("LlamaForCausalLM", "llama", "TheBloke/Llama-2-13B-chat-AWQ"),
    ],
    "llama-2": [
        ("LlamaForCausalLM", "llama", "meta-llama/Llama-2-7b-hf"),
        ("LlamaForCausalLM", "llama", "NousResearch/Llama-2-13b-hf"),
    ],
    "llama-3-base": [
        ("LlamaForCausalLM", "llama", "meta-llama/Meta-Llama-3-8B"),
        ("LlamaForCausalLM", "llama", "meta-llama/Llama-3.2-1B"),
    ],
    "llama-3.1": [
        ("LlamaForCausalLM", "llama", "meta-llama/Llama-3.1-8B-Instruct"),
        ("LlamaForCausalLM", "llama", "unsloth/Llama-3.2-1B-Instruct"),
        ("LlamaForCausalLM", "llama", "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"),
        ("LlamaForCausalLM", "llama", "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4"),
    ],
    "llama-3": [("LlamaForCausalLM", "llama", "meta-llama/Meta-Llama-3-8B-Instruct")],
    "llama-4": [("Llama4ForConditionalGeneration", "llama4", "meta-llama/Llama-4-Scout-17B-16E-Instruct")],
    "mistral-hybrid": [
        ("Mistral3ForConditionalGeneration", "mistral3", "mistralai/Mistral-Small-4-119B-2603"),
    ],
    "magistral": [
        ("MistralForCausalLM", "mistral", "mistralai/Magistral-Small-2507"),
        ("Mistral3ForConditionalGeneration", "mistral3", "mistralai/Ministral-3-8B-Reasoning-2512"),
    ],
    "mistral-old": [
        ("MistralForCausalLM", "mistral", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("MixtralForCausalLM", "mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    ],
    "mistral": [
        ("MistralForCausalLM", "mistral", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("MistralForCausalLM", "mistral", "mistralai/Mistral-Nemo-Instruct-2407"),
        ("MixtralForCausalLM", "mixtral", "mistralai/Mixtral-8x22B-Instruct-v0.1"),
        ("Mistral3ForConditionalGeneration", "mistral3", "mistralai/Mistral-Small-3.2-24B-Instruct-2506"),
        ("MistralForCausalLM", "mistral", "mistralai/Devstral-Small-2507"),
        ("Mistral3ForConditionalGeneration", "mistral3", "mistralai/Ministral-3-8B-Instruct-2512"),
    ],
    "glm-4": [
        ("GlmForCausalLM", "glm", "THUDM/glm-4-9b-chat-hf"),
        ("Glm4ForCausalLM", "glm4", "zai-org/GLM-4-32B-0414"),
    ],
    "glm-4.7": [
        ("Glm4MoeForCausalLM", "glm4_moe", "zai-org/GLM-4.7-FP8"),
        ("Glm4MoeLiteForCausalLM", "glm4_moe_lite", "zai-org/GLM-4.7-Flash"),
    ],
    "glm-4.5": [
        ("Glm4MoeForCausalLM", "glm4_moe", "zai-org/GLM-4.5-Air"),
        ("Glm4MoeForCausalLM", "glm4_moe", "zai-org/GLM-4.6"),
        ("Glm4vMoeForConditionalGeneration", "glm4v_moe", "zai-org/GLM-4.5V"),
    ],
    "gpt-oss": [
        ("GptOssForCausalLM", "gpt_oss", "openai/gpt-oss-20b"),
        ("GptOssForCausalLM", "gpt_oss", "unsloth/gpt-oss-120b-BF16"),
    ],
    "functiongemma": [("Gemma3ForCausalLM", "gemma3_text", "google/functiongemma-270m-it")],
    "gemma-4": [
        ("Gemma4ForConditionalGeneration", "gemma4", "google/gemma-4-26B-A4B-it"),
        ("Gemma4ForConditionalGeneration", "gemma4", "google/gemma-4-E4B-it"),
    ],
    "gemma-3": [
        ("Gemma3ForConditionalGeneration", "gemma3", "google/gemma-3-27b-it"),
        ("Gemma3ForCausalLM", "gemma3_text", "google/gemma-3-270m-it"),
        ("Gemma3nForConditionalGeneration", "gemma3n", "google/gemma-3n-E4B-it"),
    ],
    "gemma-2": [
        ("Gemma2ForCausalLM", "gemma2", "google/gemma-2-9b-it"),
        ("GemmaForCausalLM", "gemma", "google/gemma-1.1-7b-it"),
    ],
    "phi-4-mini": [
        ("Phi3ForCausalLM", "phi3", "microsoft/Phi-4-mini-instruct"),
        ("Phi4MMForCausalLM", "phi4mm", "microsoft/Phi-4-multimodal-instruct"),
    ],
    "phi-3": [
        ("Phi3ForCausalLM", "phi3", "microsoft/Phi-3-mini-4k-instruct"),
        ("Phi3ForCausalLM", "phi3", "microsoft/Phi-3.5-mini-instruct"),
        ("Phi3ForCausalLM", "phi3", "microsoft/phi-4"),
    ],
    "opt": [
        ("OPTForCausalLM", "opt", "facebook/opt-125m"),
        ("OPTForCausalLM", "opt", "facebook/opt-6.7b"),
    ],
}
REFINED = {
    ("deepseek-r1-distill", "qwen3"),
    ("deepseek-r1-distill", "deepseek-r1"),
    ("qwen3.5-small", "qwen3.5"),
    ("qwen3-coder", "qwen3-instruct"),
    ("qwen3-coder", "qwen3"),
    ("qwen3-thinking", "qwen3"),
    ("qwen3-instruct", "qwen3"),
    ("codellama-instruct", "codellama"),
    ("llama-3-base", "llama-3"),
    ("llama-3-base", "llama-3.1"),
    ("mistral-hybrid", "mistral"),
    ("magistral", "mistral"),
}
"""A special row and the general one that its models fit as well. Any other pair would be an accident."""
MODELS = [(*model, name) for name, models in KNOWN.items() for model in models]


# ---- which model is which ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "model_type", "name", "row"), MODELS, ids=[model[2] for model in MODELS]
)
def test_a_model_is_recognised(architecture: str, model_type: str, name: str, row: str) -> None:
    assert family(architecture, model_type, name) == BY_NAME[row]
    assert family(architecture, None, name) == BY_NAME[row]
    assert family(None, model_type, name) == BY_NAME[row]
    assert family(None, None, name) == BY_NAME[row], "where nothing but its name is known"


def test_every_row_has_a_model_that_is_recognised() -> None:
    assert list(KNOWN) == [row.name for row in FAMILIES]
    assert all(KNOWN.values())


@pytest.mark.parametrize(
    ("architecture", "model_type", "name"),
    [
        ("LlamaForCausalLM", "llama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
        ("LlamaForCausalLM", "llama", "NousResearch/Hermes-3-Llama-3.1-8B"),  # calls in its own form
        ("LlamaForCausalLM", "llama", "nvidia/Llama-3.1-Nemotron-Nano-8B-v1"),
        ("LlamaForCausalLM", "llama", "meta-llama/Llama-Guard-3-8B"),
        ("MistralForCausalLM", "mistral", "HuggingFaceH4/zephyr-7b-beta"),  # its tokenizer is too old
        ("Qwen3ForCausalLM", "qwen3", "somebody/a-fine-tune"),  # nobody knows whether it thinks
        ("DeepseekV3ForCausalLM", "kimi_k2", "moonshotai/Kimi-K2-Instruct"),
        ("Phi3ForCausalLM", "phi3", "microsoft/Phi-4-reasoning-plus"),
        ("Phi3ForCausalLM", "phi3", "microsoft/Phi-4-mini-reasoning"),
        ("Glm4ForCausalLM", "glm4", "zai-org/GLM-Z1-9B-0414"),
        ("MambaForCausalLM", "mamba", "state-spaces/mamba-130m-hf"),
        (None, None, "my-model"),
        (None, None, ""),
    ],
)
def test_what_is_not_known_is_nothing(architecture: str | None, model_type: str | None, name: str) -> None:
    assert family(architecture, model_type, name) is None


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("LlamaForCausalLM", "somebody/Qwen3-8B-as-llama"),
        ("SomethingNewForCausalLM", "openai/gpt-oss-20b"),
        ("Qwen2ForCausalLM", "deepseek-ai/DeepSeek-V3.2"),
    ],
)
def test_a_name_does_not_outvote_the_config(architecture: str, name: str) -> None:
    by_name = family(None, None, name)
    assert by_name is not None
    assert family(architecture, "something_new", name) != by_name


def test_any_name_will_do_where_all_models_of_an_architecture_write_alike() -> None:
    for row in (row for row in FAMILIES if row.any_name):
        found = family(row.architectures[0], None, "somebody/my-model")
        assert found == row


def test_no_name_fits_two_rows_by_accident() -> None:
    fitting = [
        [row.name for row in FAMILIES if re.search(row.names, name, re.IGNORECASE)]
        for _, _, name, _ in MODELS
    ]
    assert {(first, other) for first, *others in fitting for other in others} == REFINED


def test_no_row_contradicts_itself() -> None:
    assert len(BY_NAME) == len(FAMILIES)
    for row in FAMILIES:
        assert (row.reasoning_parser is None) == (row.thinking == "none"), row.name
        assert row.switch is None or row.thinking != "none", row.name
        assert row.thinking not in ("off_by_default", "on_by_default") or row.switch, row.name
        assert not row.lacks_chat_template or row.tool_parser is None, row.name
        assert row.streams_calls or row.tool_parser, row.name
        assert row.chat_template is None or row.lacks_chat_template, row.name
        assert row.tool_parser or row.reasoning_parser or row.note or row.name in PLAIN_CHAT, row.name


PLAIN_CHAT = {"codellama-instruct", "llama-2-chat", "phi-3"}
"""Models that chat and do nothing else; nobody needs to be told why."""


# ---- what the installed vLLM reads -------------------------------------------------------------


def asked(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample with the parsers that its row names, where it does not try another."""
    row: Family = BY_NAME[sample["family"]]
    return {"tool_parser": row.tool_parser, "reasoning_parser": row.reasoning_parser} | sample


@pytest.fixture(scope="session")
def read(vllm_python: Path) -> dict[str, Any]:
    """Everything that tests/vllm_parse.py tells about this vLLM and the samples."""
    told = FILE | {"samples": [asked(sample) for sample in SAMPLES]}
    done = subprocess.run(
        [vllm_python, HERE / "vllm_parse.py"],
        input=json.dumps(told),
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def meant(parsed: dict[str, Any]) -> dict[str, Any]:
    """Without the newlines that templates write around text and vLLM leaves there; arguments as values, or as
    text where they are not JSON."""
    calls = [{"name": call["name"], "arguments": _value(call["arguments"])} for call in parsed["calls"]]
    said = {key: (parsed[key] or "").strip() or None for key in ("reasoning", "content")}
    return said | {"calls": calls}


def _value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def of(number: int) -> str:
    return f"{SAMPLES[number]['family']}: {SAMPLES[number]['about']}"


@pytest.mark.timeout(300)  # the first of these waits until vLLM is imported
@pytest.mark.parametrize("number", range(len(SAMPLES)), ids=of)
def test_vllm_reads_what_a_family_writes(read: dict[str, Any], number: int) -> None:
    """`expected`, or what a sample says of one way to read it. `garbled`: not that, and it does not matter
    what instead; once vLLM reads it, the row can say so."""
    sample, result = SAMPLES[number], read["samples"][number]
    if "refused" in sample:
        assert sample["refused"] in result["refused"]
        return
    for mode in MODES:
        got, expected = meant(result[mode]), sample.get(mode, sample["expected"])
        if mode in sample.get("garbled", ()):
            assert got != expected, mode
        else:
            assert got == expected, mode


@pytest.mark.timeout(300)
def test_vllm_knows_every_name_of_the_table(read: dict[str, Any]) -> None:
    for row in FAMILIES:
        assert row.tool_parser is None or row.tool_parser in read["tool_parsers"], row.name
        assert row.reasoning_parser is None or row.reasoning_parser in read["reasoning_parsers"], row.name
        assert row.chat_template is None or row.chat_template in read["chat_templates"], row.name


def test_every_parser_of_the_table_has_samples() -> None:
    for row in FAMILIES:
        own = [
            sample["expected"]
            for sample in SAMPLES
            if sample["family"] == row.name
            and not {"tool_parser", "reasoning_parser", "refused"} & set(sample)
        ]
        assert not row.tool_parser or any(expected["calls"] for expected in own), row.name
        assert not row.reasoning_parser or any(expected["reasoning"] for expected in own), row.name
        silent = [expected for expected in own if not expected["reasoning"]]
        assert row.thinking not in ("off_by_default", "on_by_default") or silent, row.name


def test_calls_that_come_garbled_are_marked_in_the_table() -> None:
    garbled = {sample["family"] for sample in SAMPLES if "garbled" in sample}
    assert garbled == {row.name for row in FAMILIES if not row.streams_calls}
