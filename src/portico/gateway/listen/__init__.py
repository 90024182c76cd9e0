"""Serving an ASGI application over HTTP: limits on callers, hang-ups, an orderly stop.

listener: the life of a server. bind: sockets. gate: what connections share. connection: one caller.
exchange: one request and its answer. signals: from SIGTERM to a stop.
"""

from portico.gateway.listen.exchange import Hangup
from portico.gateway.listen.gate import Limits, Refuse
from portico.gateway.listen.listener import Listener
from portico.gateway.listen.signals import until_signal

__all__ = ["Hangup", "Limits", "Listener", "Refuse", "until_signal"]
