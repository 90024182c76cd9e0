"""Ollama's dialect: chats, generations, embeddings.

reading      requests: bytes -> values         replies   replies: events -> bytes, for a caller
options      Ollama's options, both ways       client    the reverse of both, for a client
duration     keep_alive                        errors    both ways
embeddings   replies                           conversation, wire   shapes and parts of the above
"""

from portico.dialects.ollama.client import ChunkReader, write_chat
from portico.dialects.ollama.duration import read_duration
from portico.dialects.ollama.embeddings import embed_reply, embeddings_reply
from portico.dialects.ollama.errors import error_body, read_error
from portico.dialects.ollama.options import Options, read_options, write_options
from portico.dialects.ollama.reading import (
    Generate,
    read_chat,
    read_embed,
    read_embeddings,
    read_format,
    read_generate,
)
from portico.dialects.ollama.replies import ChatWriter, GenerateWriter, Timing

__all__ = [
    "ChatWriter",
    "ChunkReader",
    "Generate",
    "GenerateWriter",
    "Options",
    "Timing",
    "embed_reply",
    "embeddings_reply",
    "error_body",
    "read_chat",
    "read_duration",
    "read_embed",
    "read_embeddings",
    "read_error",
    "read_format",
    "read_generate",
    "read_options",
    "write_chat",
    "write_options",
]
