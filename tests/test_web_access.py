"""Who may ask: keys, origins, hosts; and the table of routes."""

from __future__ import annotations

from typing import Any

import pytest

from portico.errors import ConfigError, Forbidden, MethodNotAllowed, RouteNotFound, Unauthorized
from portico.web import Access, Request, Route, Routes


def asked(method: str = "GET", path: str = "/", **headers: str) -> Request:
    async def unused(*_: Any) -> Any:
        raise AssertionError("neither receives nor sends")

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "path": path, "headers": pairs}, unused, unused)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer one"},
        {"authorization": "bearer two"},
        {"x_api_key": "two"},
        {"authorization": "Basic abc", "x_api_key": "one"},
    ],
)
def test_a_known_key_opens(headers: dict[str, str]) -> None:
    Access(keys=["one", "two"]).check(asked(**headers), open_route=False)


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}, {"x_api_key": "on"}]
)
def test_anything_else_does_not(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        Access(keys=["one", "two"]).check(asked(**headers), open_route=False)
    Access(keys=["one", "two"]).check(asked(**headers), open_route=True)


def test_without_keys_any_key_is_fine() -> None:
    Access().check(asked(authorization="Bearer whatever"), open_route=False)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:8080",
        "app://obsidian.md",
        "tauri://localhost",
        "vscode-webview://abc",
        "chrome-extension://abcdef",
    ],
)
def test_local_pages_and_applications_may_ask(origin: str) -> None:
    request = asked(origin=origin)
    Access().check(request, open_route=False)
    assert (b"access-control-allow-origin", origin.encode()) in request.extra


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1.evil.example"],
)
def test_foreign_pages_may_not(origin: str) -> None:
    with pytest.raises(Forbidden):
        Access().check(asked(origin=origin), open_route=False)


def test_named_origins_may() -> None:
    access = Access(origins=["https://*.example.org", "http://one.example"])
    access.check(asked(origin="https://a.example.org"), open_route=False)
    access.check(asked(origin="http://one.example"), open_route=False)
    with pytest.raises(Forbidden):
        access.check(asked(origin="https://example.org"), open_route=False)
    Access(origins=["*"]).check(asked(origin="https://anything.example"), open_route=False)


def test_a_page_of_this_server_may() -> None:
    request = asked(origin="http://192.168.1.5:11434", host="192.168.1.5:11434")
    Access(loopback=False).check(request, open_route=False)


@pytest.mark.parametrize("origin", ["", "a b"])
def test_an_impossible_origin_is_a_config_error(origin: str) -> None:
    with pytest.raises(ConfigError):
        Access(origins=[origin])


@pytest.mark.parametrize(
    "host",
    ["localhost:11434", "127.0.0.1", "[::1]:11434", "a.localhost", "nas.local", "10.0.0.3:80", "0.0.0.0"],
)
def test_local_hosts_pass_on_loopback(host: str) -> None:
    Access(loopback=True).check(asked(host=host), open_route=False)


def test_a_foreign_host_on_loopback_is_dns_rebinding() -> None:
    with pytest.raises(Forbidden):
        Access(loopback=True).check(asked(host="evil.example:11434"), open_route=False)
    Access(loopback=False).check(asked(host="models.example:443"), open_route=False)


async def nothing(request: Request) -> None:
    raise AssertionError("never called")


def table() -> Routes:
    return Routes(
        [
            Route("GET", "/v1/models", nothing, "openai", "list"),
            Route("GET", "/v1/models/{model:path}", nothing, "openai", "one"),
            Route("POST", "/api/blobs/{digest}", nothing, "ollama", "put"),
        ]
    )


def test_a_path_finds_its_row() -> None:
    assert table().find(asked(path="/v1/models")).summary == "list"
    request = asked(path="/v1/models/Qwen/Qwen3:latest")
    assert table().find(request).summary == "one"
    assert request.params == {"model": "Qwen/Qwen3:latest"}
    assert table().find(asked("HEAD", "/v1/models")).summary == "list"


def test_wrong_paths_and_methods() -> None:
    with pytest.raises(RouteNotFound):
        table().find(asked(path="/v2"))
    with pytest.raises(RouteNotFound):
        table().find(asked("POST", path="/api/blobs/a/b"))
    with pytest.raises(MethodNotAllowed) as caught:
        table().find(asked("DELETE", "/v1/models"))
    assert caught.value.headers == ((b"allow", b"GET"),)
