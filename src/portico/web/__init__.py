"""HTTP on both sides: routes and answers towards callers, pooled connections towards engines."""

from portico.web.access import Access
from portico.web.account import Account
from portico.web.request import HungUp, Request
from portico.web.routes import Route, Routes
from portico.web.upstream import Answer, Reply, Upstream

__all__ = ["Access", "Account", "Answer", "HungUp", "Reply", "Request", "Route", "Routes", "Upstream"]
