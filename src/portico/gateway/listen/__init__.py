"""Serving an ASGI application over HTTP: limits on callers, hang-ups, an orderly stop.

listener: the life of a server. bind: sockets. gate: what connections share. connection: one caller.
exchange: one request and its answer.
"""

from portico.gateway.listen.exchange import Hangup
from portico.gateway.listen.gate import Limits, RenderError
from portico.gateway.listen.listener import Listener, serve

__all__ = ["Hangup", "Limits", "Listener", "RenderError", "serve"]
