"""The OpenAPI description: true to the table of routes, and no input it allows brings the server down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error

from live_server import LiveServer, serve
from portico.config import Config
from portico.inprocess import Portico

RUNS_A_MODEL = {
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/tokenize",
    "/detokenize",
}
WITHOUT_BODY = ("/api/blobs/", "/api/me", "/api/signout", "/api/experimental/")
MAY_FAIL = {"/api/pull", "/api/push"}  # with the hub's own failure, which is not the server's


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Not the shared one: what is sent here deletes, copies and creates."""
    with serve(tmp_path_factory.mktemp("fuzzed"), environ={"PORTICO_MAX_BODY_BYTES": "1000000"}) as running:
        yield running


def described(server: LiveServer) -> Any:
    return server.ask("GET", "/openapi.json")


def shape(path: str) -> str:
    """`/v1/models/{model:path}` and `/v1/models/{model}` are the same path to OpenAPI."""
    return re.sub(r"\{(\w+):path\}", r"{\1}", path)


async def test_every_served_route_is_described_and_nothing_else(
    server: LiveServer, tmp_path: Any, unused_tcp_port_factory: Any
) -> None:
    portico = Portico(Config(home=tmp_path, port=unused_tcp_port_factory()), {})
    await portico.start()
    try:
        table = {(row.method.lower(), shape(row.path)) for row in portico.gateway.routes.rows}
    finally:
        await portico.stop(grace=0)
    paths = described(server)["paths"]
    assert {(method, path) for path, methods in paths.items() for method in methods} == table
    assert {"/api/chat", "/v1/chat/completions", "/health", "/openapi.json"} <= set(paths)


def test_every_body_has_a_type(server: LiveServer) -> None:
    document = described(server)
    assert document["openapi"].startswith("3.")
    untyped = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method} {path}"
            assert operation["summary"] and operation["operationId"], name
            if method == "post" and not path.startswith(WITHOUT_BODY):
                bodies = operation.get("requestBody", {}).get("content", {})
                if not any(_is_typed(body.get("schema"), document) for body in bodies.values()):
                    untyped.append(name)
    assert untyped == []


def _is_typed(schema: Any, document: Any) -> bool:
    if not schema:
        return False
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return bool(document["components"]["schemas"][name].get("properties"))
    return "properties" in schema or "anyOf" in schema


def test_the_references_lead_somewhere(server: LiveServer) -> None:
    document = described(server)
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert references
    for reference in set(references):
        place = document
        for key in reference.split("/"):
            place = place[key]


# ---- any input


FEW = hypothesis.settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(180)
def test_no_input_is_an_error_of_the_server(own_server: LiveServer) -> None:
    """Every operation gets inputs made from its description. schemathesis is used without its pytest plugin,
    which does not know the newest pytest."""
    schema = schemathesis.openapi.from_url(f"{own_server.url}/openapi.json")
    failures = []
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:

        @FEW
        @hypothesis.given(case=operation.as_strategy())
        def answers(case: schemathesis.Case) -> None:
            ask_for_little(case)
            response = case.call(timeout=30)
            if case.path in MAY_FAIL and response.status_code >= 500:
                assert response.json()["error"]
            else:
                case.validate_response(response, checks=(not_a_server_error,))

        try:
            answers()
        except (Exception, BaseExceptionGroup) as error:  # whatever it is, the others are tried too
            causes = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
            failures += [f"{operation.method} {operation.path}: {cause!r}\n{error}" for cause in causes]
    assert not failures, "\n\n".join(failures)


def ask_for_little(case: schemathesis.Case) -> None:
    """Where a model runs, every second input names one that is there, and wants few tokens."""
    if case.path in RUNS_A_MODEL and isinstance(case.body, dict) and len(repr(case.body)) % 2:
        options = case.body.get("options")
        limits = {"max_tokens": 3, "max_completion_tokens": 3, "n": 1, "best_of": 1}
        case.body |= limits | {"model": "default"}
        case.body["options"] = (options if isinstance(options, dict) else {}) | {"num_predict": 3}


def test_it_is_well_after_all_that(own_server: LiveServer) -> None:
    assert own_server.health()["status"] == "ok"
    assert "Traceback" not in own_server.log_text()
    body = {"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    assert own_server.ask("POST", "/v1/chat/completions", body)["choices"]
