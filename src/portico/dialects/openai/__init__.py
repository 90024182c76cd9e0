"""OpenAI's dialect: chats, text completions, embeddings.

reading      requests: bytes -> values         writing   requests: values -> bytes, for an engine
chunks       replies: bytes -> events          replies   replies: events -> bytes, for a caller
embeddings   both ways                         errors    both ways
relaying     looking at and editing a body that is passed on
conversation, logprobs, wire                   shapes and parts of the above
"""

from portico.dialects.openai.chunks import (
    ChunkReader,
    CompletionChunkReader,
    read_completion_result,
    read_result,
)
from portico.dialects.openai.embeddings import embedding_reply, read_embeddings
from portico.dialects.openai.errors import error_body, error_status, read_error
from portico.dialects.openai.reading import read_chat, read_completion, read_embedding
from portico.dialects.openai.relaying import peek, relay_body
from portico.dialects.openai.replies import ChatWriter, CompletionWriter
from portico.dialects.openai.wire import Peek
from portico.dialects.openai.writing import bounds, write_chat, write_completion, write_embedding
from portico.dialects.spelling import ANY, LLAMACPP, OPENAI, STRICT, VLLM, VLLM_BOUNDED, Spelling

__all__ = [
    "ANY",
    "LLAMACPP",
    "OPENAI",
    "STRICT",
    "VLLM",
    "VLLM_BOUNDED",
    "ChatWriter",
    "ChunkReader",
    "CompletionChunkReader",
    "CompletionWriter",
    "Peek",
    "Spelling",
    "bounds",
    "embedding_reply",
    "error_body",
    "error_status",
    "peek",
    "read_chat",
    "read_completion",
    "read_completion_result",
    "read_embedding",
    "read_embeddings",
    "read_error",
    "read_result",
    "relay_body",
    "write_chat",
    "write_completion",
    "write_embedding",
]
