"""The variables that clients of vLLM, OpenAI and Ollama read: does what they name answer, and have the model?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from portico.cli.checks import Check, State
from portico.cli.checks.asking import shown
from portico.cli.checks.keys import Key, key_of
from portico.cli.checks.who import OLLAMA, PORTICO, Seen, look, root
from portico.names import nearest

GROUP = "clients"
ADDRESSES: dict[str, bool | None] = {
    "VLLM_BASE_URL": False,
    "VLLM_ENDPOINT": True,
    "OPENAI_BASE_URL": True,
    "OLLAMA_HOST": None,
}
"""Variable -> whether its clients want /v1 at the end; None: they take either."""
MODELS = {
    "VLLM_MODEL": ("VLLM_BASE_URL", "VLLM_ENDPOINT"),
    "VLLM_MODEL_NAME": ("VLLM_ENDPOINT", "VLLM_BASE_URL"),
}
"""Variable -> where its model should be: at the first of these that is set."""
NOBODYS = {
    "VLLM_DEBUG": (
        "vLLM has no such variable",
        "export VLLM_LOGGING_LEVEL=DEBUG for a vLLM; for Portico `portico serve --log-level debug`",
    )
}
"""Variables that guides name and nothing reads: what is so, and what to set instead."""


class Client(NamedTuple):
    """An address that a variable names, and the models that others expect there, by variable."""

    variable: str
    value: str
    key: Key
    models: dict[str, str]

    @property
    def url(self) -> str:
        """Where to ask. Raises ValueError for what is none."""
        if self.variable == "OLLAMA_HOST":
            from portico.ollama_env import read_address

            return read_address(self.value).url
        if not self.value.startswith(("http://", "https://")):
            raise ValueError("no scheme")
        return self.value

    @property
    def well_formed(self) -> bool:
        try:
            return bool(self.url)
        except ValueError:
            return False

    def look(self) -> Seen:
        return look(self.url, self.key.value, names=tuple(self.models.values()))


def clients(environ: Mapping[str, str], *, server: str | None) -> list[Client]:
    """What the environment says. `server`: the variable that names the commands' own server, which is looked at
    already."""

    def value(name: str) -> str:
        return environ.get(name, "").strip().strip("\"'").strip()

    places = {name: next((each for each in those if value(each)), "") for name, those in MODELS.items()}
    return [
        Client(
            variable,
            value(variable),
            key_of(variable, environ),
            {name: value(name) for name, place in places.items() if place == variable and value(name)},
        )
        for variable in ADDRESSES
        if value(variable) and variable != server
    ]


def client(asked: Client, seen: Seen, *, server: Seen) -> list[Check]:
    """What was found at the address of a client. `server`: the commands' own. Pure."""
    return [
        _address(asked, seen, server),
        *(_model(name, model, seen) for name, model in asked.models.items()),
    ]


def malformed(asked: Client) -> Check:
    """The value is not repeated: it may be a key in the wrong variable."""
    found = "is set, and not to the URL of a server"
    return Check(GROUP, asked.variable, "fail", found, f"export {asked.variable}={_example(asked.variable)}")


def unset(environ: Mapping[str, str], seen: Seen) -> list[Check]:
    """What is not set, and what nothing reads. `seen`: the commands' own server."""
    found = []
    named = [name for name in ADDRESSES if name != "OLLAMA_HOST"]
    url = shown(seen.url) if not seen.silence else "http://127.0.0.1:11434"
    if not any(environ.get(name, "").strip() for name in named):
        missing = (
            f"{', '.join(named[:-1])} and {named[-1]} are not set: clients of OpenAI's API need a base URL"
        )
        found.append(Check(GROUP, "base URL", "skip", missing, f"export OPENAI_BASE_URL={url}/v1"))
        for name in MODELS:
            if environ.get(name, "").strip():
                alone = f"{name} is set and no address is: its clients ask http://localhost:8000"
                found.append(Check(GROUP, name, "warn", alone, f"export {MODELS[name][0]}={url}"))
    for name, (what, do) in NOBODYS.items():
        if environ.get(name, "").strip():
            found.append(Check(GROUP, name, "warn", f"is set: {what}", do))
    return found


def _address(asked: Client, seen: Seen, server: Seen) -> Check:
    variable, url = asked.variable, shown(asked.url)

    def line(state: State, found: str, do: str = "") -> Check:
        return Check(GROUP, variable, state, found, do)

    if seen.silence is not None:
        return line("fail", seen.silence.found(url), _do(seen, asked, server))
    if seen.locked:
        return line("fail", f"{seen.called or 'the server'} at {url} {asked.key.refused}", asked.key.mended)
    if seen.names is None and not (variable == "OLLAMA_HOST" and seen.kind in (PORTICO, OLLAMA)):
        found = f"{url} answers, but not as OpenAI's API does: its /v1/models is no list of models (status {seen.status})"
        return line("fail", found, f"export {variable}={_example(variable)}")
    wants, has = ADDRESSES[variable], asked.value.rstrip("/").endswith("/v1")
    base = shown(root(asked.value))
    if wants is True and not has:
        return line(
            "warn",
            f"{seen.called} at {url}, without the /v1 that its clients need",
            f"export {variable}={base}/v1",
        )
    if wants is False and has:
        return line(
            "warn", f"{seen.called} at {url}: its clients add /v1 themselves", f"export {variable}={base}"
        )
    return line("ok", f"{seen.called} at {url}{_with(seen)}")


def _model(variable: str, model: str, seen: Seen) -> Check:
    if seen.names is None:
        return Check(GROUP, variable, "skip", f"whether it has {model!r} cannot be asked")
    if model in seen.has:
        return Check(GROUP, variable, "ok", f"{seen.kind} has {model!r}")
    near = nearest(model, seen.names) or seen.names[:1]
    there = f"it has {', '.join(seen.names[:5])}" if seen.names else "it has no model at all"
    do = f"export {variable}={near[0]}" if near else ""
    return Check(GROUP, variable, "fail", f"model {model!r} not found at {seen.url}: {there}", do)


def _do(seen: Seen, asked: Client, server: Seen) -> str:
    assert seen.silence is not None
    match seen.silence.why:
        case "refused" if server.kind == PORTICO:
            return f"export {asked.variable}={shown(server.url)}{'/v1' if ADDRESSES[asked.variable] else ''}"
        case "refused" if "127.0.0.1" in asked.url or "localhost" in asked.url:
            port = seen.url.rpartition(":")[2]
            return f"portico serve --port {port}" if port.isdigit() else "portico serve"
        case "refused":
            return "start it there, on more than its loopback: `portico serve --host 0.0.0.0`"
        case "slow":
            return "restart it; if it is only slow, give its clients a longer timeout"
        case "unreachable":
            port = seen.url.rpartition(":")[2]
            return f"on that machine: `sudo ufw allow {port if port.isdigit() else 80}/tcp`"
        case "tls":
            return f"export {asked.variable}={shown(asked.url).replace('https:', 'http:')}"
        case "no_key":
            return asked.key.mended
    return f"export {asked.variable}={_example(asked.variable)}"


def _with(seen: Seen) -> str:
    names = seen.names or ()
    return f", {len(names)} models" if len(names) > 2 else f" with {' and '.join(names)}" if names else ""


def _example(variable: str) -> str:
    return f"http://127.0.0.1:11434{'/v1' if ADDRESSES[variable] else ''}"
