"""Portico: one front for open-weight models. The map of the code is docs/house.md.

from portico import Client
print(Client().chat("Hello"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portico.background import alocal as alocal
    from portico.background import local as local
    from portico.client.async_client import AsyncClient as AsyncClient
    from portico.client.budget import Budget as Budget
    from portico.client.client import Client as Client
    from portico.client.conversation import AsyncConversation as AsyncConversation
    from portico.client.conversation import Conversation as Conversation
    from portico.client.fallback import Fallback as Fallback
    from portico.client.fallback import Place as Place
    from portico.client.growing import Parsed as Parsed
    from portico.client.mcp import McpServer as McpServer
    from portico.client.outputs import Choice as Choice
    from portico.client.outputs import Grammar as Grammar
    from portico.client.outputs import Regex as Regex
    from portico.client.prices import Price as Price
    from portico.client.rounds import Limits as Limits
    from portico.client.settings import Retry as Retry
    from portico.client.settings import Timeouts as Timeouts
    from portico.recording import record as record
    from portico.recording import replay as replay

__version__ = "0.1.0.dev0"
_FROM = {
    "alocal": "portico.background",
    "local": "portico.background",
    "AsyncClient": "portico.client.async_client",
    "Budget": "portico.client.budget",
    "Price": "portico.client.prices",
    "Client": "portico.client.client",
    "AsyncConversation": "portico.client.conversation",
    "Conversation": "portico.client.conversation",
    "Choice": "portico.client.outputs",
    "Fallback": "portico.client.fallback",
    "Place": "portico.client.fallback",
    "Grammar": "portico.client.outputs",
    "Regex": "portico.client.outputs",
    "Limits": "portico.client.rounds",
    "McpServer": "portico.client.mcp",
    "Parsed": "portico.client.growing",
    "Retry": "portico.client.settings",
    "Timeouts": "portico.client.settings",
    "record": "portico.recording",
    "replay": "portico.recording",
}
"""Loaded when they are used: `import portico` alone is for programs that want its version."""
__all__ = ["__version__", *sorted(_FROM)]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'portico' has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)
