"""Facts of a model as the hub keeps it: a folder with config.json, a tokenizer and safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from portico.engines import Facts
from portico.errors import DamagedFile
from portico.library import safetensors
from portico.library.capabilities import capabilities
from portico.messages import JSON

MAX_JSON = 32 * 1024 * 1024  # a tokenizer_config.json with thousands of added tokens has 1 MB
MAX_TEMPLATE = 1024 * 1024  # the longest have 40 KB
INDEX = "model.safetensors.index.json"

_FIM_TOKENS = ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "▁<PRE>", "[PREFIX]")
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
Number = int | float | None


class _Quantization(msgspec.Struct):
    quant_method: str | None = None
    bits: Number = None


class _Config(msgspec.Struct):
    """config.json: many families, many names for the same thing."""

    model_type: str | None = None
    architectures: list[str] | None = None
    max_position_embeddings: Number = None
    n_positions: Number = None
    n_ctx: Number = None
    max_sequence_length: Number = None
    hidden_size: Number = None
    n_embd: Number = None
    d_model: Number = None
    num_hidden_layers: Number = None
    num_attention_heads: Number = None
    num_key_value_heads: Number = None
    head_dim: Number = None
    kv_lora_rank: Number = None
    qk_rope_head_dim: Number = None
    intermediate_size: Number = None
    vocab_size: Number = None
    dtype: str | None = None
    torch_dtype: str | None = None
    quantization_config: _Quantization | None = None
    text_config: _Config | None = None
    vision_config: JSON = None

    @property
    def text(self) -> _Config:
        """The part that speaks: of a model that also sees, `text_config`."""
        return self.text_config or self


class _AddedToken(msgspec.Struct):
    content: str = ""


class _NamedTemplate(msgspec.Struct):
    name: str = ""
    template: str = ""


class _Tokenizer(msgspec.Struct):
    chat_template: str | list[_NamedTemplate] | None = None
    added_tokens_decoder: dict[str, _AddedToken] = {}


class _Index(msgspec.Struct):
    weight_map: dict[str, str] = {}


T = TypeVar("T")


def facts(folder: Path) -> Facts:
    """Facts of the folder. Raises DamagedFile where config.json or the weights are missing or broken."""
    config = _json(folder / "config.json", _Config)
    if config is None:
        raise DamagedFile(path=str(folder), reason="it has no config.json")
    tokenizer = _json(folder / "tokenizer_config.json", _Tokenizer) or _Tokenizer()
    files = weight_files(folder)
    tensors = [tensor for file in files for tensor in safetensors.read(file)]
    template = _template(folder, tokenizer)
    text, names = config.text, config.architectures or []
    family = text.model_type or config.model_type or (names[0] if names else None)
    return Facts(
        architecture=config.model_type or family,
        class_name=names[0] if names else None,
        family=family,
        parameters=_parameters(tensors, config),
        quantization=_quantization(tensors, config),
        format="safetensors",
        context=_context(text),
        embedding=_embedding(text),
        capabilities=capabilities(
            template,
            embeds=(folder / "modules.json").exists()
            or (bool(names) and all(name.endswith("Model") for name in names)),
            sees=config.vision_config is not None,
            inserts=any(token.content in _FIM_TOKENS for token in tokenizer.added_tokens_decoder.values()),
        ),
        chat_template=template,
        size=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        modified=files[0].stat().st_mtime,
        metadata=_metadata(config.model_type or family or "unknown", text),
    )


def described(config: bytes) -> Facts:
    """What a config.json alone tells. Raises DamagedFile."""
    try:
        read = msgspec.json.decode(config, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(path="config.json", reason=f"it cannot be read ({error})") from error
    names = read.architectures or []
    family = read.text.model_type or read.model_type or (names[0] if names else None)
    return Facts(
        architecture=read.model_type or family,
        class_name=names[0] if names else None,
        family=family,
        format="safetensors",
        context=_context(read.text),
        embedding=_embedding(read.text),
        metadata=_metadata(read.model_type or family or "unknown", read.text),
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that make up the model. Raises DamagedFile if one is missing."""
    index = _json(folder / INDEX, _Index)
    if index is not None and index.weight_map:
        names = sorted(set(index.weight_map.values()))
        if any("/" in name or "\\" in name for name in names):
            raise DamagedFile(path=str(folder / INDEX), reason="it names files outside its folder")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise DamagedFile(path=str(folder), reason=f"its file {missing[0]} is missing")
        return tuple(folder / name for name in names)
    found = sorted(folder.glob("*.safetensors"))
    # Mistral's repositories hold the same weights twice.
    whole = [file for file in found if not file.name.startswith("consolidated")] or found
    if not whole:
        raise DamagedFile(path=str(folder), reason="it has no safetensors files")
    return tuple(whole)


def _json(path: Path, kind: type[T]) -> T | None:
    """The file read as `kind`; None where there is no file."""
    text = _content(path, MAX_JSON)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedFile(path=str(path), reason=f"it cannot be read ({error})") from error


def _content(path: Path, limit: int) -> bytes | None:
    """The bytes of a file; None where there is none."""
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise DamagedFile(path=str(path), reason=error.strerror or str(error)) from error
    if len(content) > limit:
        raise DamagedFile(path=str(path), reason=f"it is larger than {limit} bytes")
    return content


def _template(folder: Path, tokenizer: _Tokenizer) -> str | None:
    jinja = _content(folder / "chat_template.jinja", MAX_TEMPLATE)
    if jinja:
        return jinja.decode("utf-8", "replace")
    beside = _json(folder / "chat_template.json", _Tokenizer)
    for found in (beside.chat_template if beside else None, tokenizer.chat_template):
        if isinstance(found, str):
            return found
        if found:
            named = {one.name: one.template for one in found}
            return named.get("default", found[0].template)
    return None


def _parameters(tensors: list[safetensors.Tensor], config: _Config) -> int:
    """Weights, those packed by AWQ or GPTQ counted one by one, and without their scales."""
    packed = config.quantization_config
    if packed is None or not packed.bits or not any(tensor.name.endswith(".qweight") for tensor in tensors):
        return sum(tensor.elements for tensor in tensors)
    count = 0
    for tensor in tensors:
        if tensor.name.endswith(".qweight"):
            count += int(tensor.bytes * 8 // packed.bits)
        elif not tensor.name.endswith((".qzeros", ".scales", ".g_idx")):
            count += tensor.elements
    return count


def _quantization(tensors: list[safetensors.Tensor], config: _Config) -> str | None:
    if config.quantization_config and config.quantization_config.quant_method:
        return config.quantization_config.quant_method.upper()
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    said = config.text.dtype or config.text.torch_dtype or config.dtype or config.torch_dtype or ""
    return max(sizes, key=lambda dtype: sizes[dtype], default=_DTYPES.get(said))


def _context(text: _Config) -> int | None:
    return _whole(text.max_position_embeddings, text.n_positions, text.n_ctx, text.max_sequence_length)


def _embedding(text: _Config) -> int | None:
    return _whole(text.hidden_size, text.n_embd, text.d_model)


def _whole(*numbers: Number) -> int | None:
    """The first one that is there and positive."""
    return next((int(number) for number in numbers if number and 0 < number < 1 << 53), None)


def _metadata(architecture: str, text: _Config) -> dict[str, object]:
    """The same under GGUF's names, for Ollama's model_info."""
    found = {
        "block_count": text.num_hidden_layers,
        "attention.head_count": text.num_attention_heads,
        "attention.head_count_kv": text.num_key_value_heads,
        "attention.key_length": text.head_dim,
        "attention.value_length": text.head_dim,
        "attention.kv_lora_rank": text.kv_lora_rank,
        "rope.dimension_count": text.qk_rope_head_dim,
        "feed_forward_length": text.intermediate_size,
        "vocab_size": text.vocab_size,
    }
    return {
        f"{architecture}.{key}": _whole(value) for key, value in found.items() if _whole(value) is not None
    }
