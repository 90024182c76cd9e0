"""All questions of `portico doctor`, asked at once, and their answers in the order of the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from portico import config_file
from portico.cli.address import Address, find
from portico.cli.checks import Check, abilities, clients, hub, machine, ports, sandbox
from portico.cli.checks.abilities import Ability
from portico.cli.checks.asked import Asked, Broken, Late
from portico.cli.checks.asking import Asker, Heard, Silence
from portico.cli.checks.keys import NONE, Key, key_of, without_secrets
from portico.cli.checks.who import LOOK_SECONDS, OLLAMA, PORTICO, Seen, look, root
from portico.cli.failure import Failure
from portico.config import Config
from portico.errors import ConfigError
from portico.library.hubsettings import HubSettings
from portico.names import same
from portico.ollama_env import read_address

SECONDS = 5.0
"""What a question about this machine has. Whoever hangs is told by then."""
SPARE = 0.5
"""A server's own limit is heard first, because it says more: this is for what hangs before, such as a name server."""
DEFAULT = Address(url=f"http://127.0.0.1:{ports.PORT}", origin=None, key=None)


class Settings(NamedTuple):
    """What files and variables say. `wrong`: the line about a setting that cannot be read; the rest is then looked
    at with what is usual."""

    address: Address
    key: Key
    home: Path
    files: tuple[Path, ...] = ()
    wrong: str = ""

    @property
    def check(self) -> Check:
        if self.wrong:
            return Check(
                "settings", "config", "fail", self.wrong, "mend it there; portico.example.toml shows each"
            )
        names = ", ".join(map(str, self.files)) or "no file: what is usual"
        return Check("settings", "config", "ok", names)


def settings(environ: Mapping[str, str]) -> Settings:
    home = config_file.data_home(Config(), environ)
    try:
        config = config_file.load(None, environ, {})
        files = config_file.sources(None, environ)
        home = config_file.data_home(config, environ)
        address = find(None, environ)
    except (Failure, ConfigError) as error:
        return Settings(DEFAULT, key_of("PORTICO_HOST", environ), home, wrong=str(error))
    if address.origin == "OLLAMA_HOST":
        return Settings(address, key_of("OLLAMA_HOST", environ), home, files)
    key = key_of("PORTICO_HOST", environ)
    if key.value is None and address.origin != "PORTICO_HOST":
        try:  # it is where a server that is started here listens, and these are its keys
            key = key._replace(value=next(iter(config_file.callers_keys(config)), None))
        except ConfigError:
            pass  # the file of keys is the server's; whoever may not read it sets PORTICO_API_KEY
    return Settings(address, key, home, files)


class _Line(NamedTuple):
    """Lines that are asked for; the first two say what to write where there is no answer."""

    group: str
    name: str
    asked: Asked[list[Check]]

    def checks(self) -> list[Check]:
        match self.asked.answer():
            case Late(seconds=seconds):
                return [Check(self.group, self.name, "warn", f"no answer within {seconds:g} s")]
            case Broken(error=error):
                what = f"cannot be looked at: {type(error).__name__}: {error}"
                return [Check(self.group, self.name, "warn", " ".join(what.split())[:300])]
            case found:
                return found


def examine(model: str | None, environ: Mapping[str, str], *, ask: bool, within: float) -> list[Check]:
    """Takes as long as the slowest answer that is waited for. `within`: seconds for each answer of a model."""
    import httpx2  # noqa: F401  (once, and not in the time that the threads have)

    said = settings(environ)
    server = _look(said.address.url, said.key)
    vllms = (
        None if _is_at(said.address, ports.VLLM_PORT) else _look(f"http://127.0.0.1:{ports.VLLM_PORT}", NONE)
    )
    own = None if _is_at(said.address, ports.PORT) else _look(DEFAULT.url, NONE)
    holder = Asked(
        lambda: ports.holder(_port(said.address)) if said.address.here else None, within=LOOK_SECONDS
    )
    looked = _clients(environ, said)
    lines = _machine(environ, said)
    wanted = _wanted(model, environ) if model else None

    checks = [said.check, *(check for line in lines for check in line.checks())]
    seen = _seen(server, said.address.url)
    who = holder.answer()
    held_by = who if isinstance(who, ports.Holder) else None
    closed = ""
    if said.address.here and seen.silence is not None and seen.silence.why == "refused":
        closed = ports.bindable(_host(said.address), _port(said.address))
    checks.append(
        ports.address(
            seen, origin=said.address.origin, here=said.address.here, key=said.key, who=held_by, closed=closed
        )
    )
    if own is not None:
        checks.append(ports.own_port(_seen(own, DEFAULT.url)))
    at_vllms = _seen(vllms, f"http://127.0.0.1:{ports.VLLM_PORT}") if vllms is not None else None
    if at_vllms is not None:
        checks.append(ports.vllms_port(at_vllms))
    answers = []
    for each, asked in looked:
        if asked is None:
            checks.append(clients.malformed(each))
            continue
        there = _seen(asked, each.url)
        checks += clients.client(each, there, server=seen)
        answers.append((there, each.key))
    checks += clients.unset(environ, seen)
    if wanted is not None:
        checks += wanted.checks()
    places = [(seen, said.key), *answers]
    if at_vllms is not None:
        places.append((at_vllms, NONE))
    checks += _running(places, model, ask=ask, within=within)
    return without_secrets(checks, environ)


def _look(url: str, key: Key) -> Asked[Seen]:
    return Asked(lambda: look(url, key.value), within=LOOK_SECONDS + SPARE)


def _seen(asked: Asked[Seen], url: str) -> Seen:
    match asked.answer():
        case Late():
            return Seen(root(url), silence=Silence("slow", LOOK_SECONDS))
        case Broken(error=error):  # such as a proxy in the environment that needs a package more
            return Seen(root(url), silence=Silence("other", detail=f"{type(error).__name__}: {error}"))
        case seen:
            return seen


def _machine(environ: Mapping[str, str], said: Settings) -> list[_Line]:
    cache = Path(HubSettings.read(environ).cache)
    questions: list[tuple[str, str, Callable[[], list[Check]], float]] = [
        ("machine", "python", machine.look_at_python, SECONDS),
        ("machine", "memory", machine.look_at_memory, SECONDS),
        ("machine", "GPU", machine.look_at_gpus, SECONDS),
        ("machine", "disk", lambda: machine.look_at_disk("disk", said.home, "PORTICO_HOME"), SECONDS),
        ("machine", "hub cache", lambda: machine.look_at_disk("hub cache", cache, "HF_HUB_CACHE"), SECONDS),
        ("machine", "sandbox", sandbox.look, SECONDS),
        ("engines", "engines", lambda: machine.look_at_engines(said.home), SECONDS),
        ("hub", "hub", lambda: hub.look(environ, cache), hub.SECONDS + SPARE),
    ]
    return [_Line(group, name, Asked(question, within=limit)) for group, name, question, limit in questions]


def _clients(environ: Mapping[str, str], said: Settings) -> list[tuple[clients.Client, Asked[Seen] | None]]:
    """None: its variable holds no URL, so nobody is asked."""
    return [
        (each, Asked(each.look, within=LOOK_SECONDS + SPARE) if each.well_formed else None)
        for each in clients.clients(environ, server=said.address.origin)
    ]


def _wanted(model: str, environ: Mapping[str, str]) -> _Line:
    def question() -> list[Check]:
        from portico.cli.checks import wanted

        return wanted.look(model, environ)

    return _Line("model", model, Asked(question, within=SECONDS))


def _running(
    places: list[tuple[Seen, Key]], wanted: str | None, *, ask: bool, within: float
) -> Iterator[Check]:
    """The models of the first server that answers. All are asked at once, each question on its own connection."""
    seen, key = next(((seen, key) for seen, key in places if seen.names is not None), (None, NONE))
    if seen is None:
        return
    if not seen.models:
        yield _nothing_loaded(seen)
        return
    models = sorted(seen.models, key=lambda each: wanted is None or not same(each.name, wanted))
    ready = [each for each in models if each.state == "ready"][: abilities.MOST_MODELS] if ask else []
    asked = {
        each.name: [(one, _ask(one, seen.url, key, within)) for one in abilities.abilities(seen, each)]
        for each in ready
    }
    for each in models:
        yield abilities.state(each, asked=not ask or each.name in asked)
        for ability, question in asked.get(each.name, ()):
            heard = question.answer()
            if isinstance(heard, Late | Broken):
                heard = (Silence("slow", within),)
            yield ability.conclude(heard)


def _ask(ability: Ability, url: str, key: Key, within: float) -> Asked[tuple[Heard, ...]]:
    def question() -> tuple[Heard, ...]:
        with Asker(url, key.value, seconds=within) as asker:
            return ability.ask(asker)

    return Asked(question, within=within + SPARE)


def _nothing_loaded(seen: Seen) -> Check:
    if seen.kind in (PORTICO, OLLAMA):
        found = "no model is loaded: the first request loads one and waits for that; later ones do not"
        return Check("running", "models", "skip", found, "portico serve MODEL --keep-alive -1")
    return Check(
        "running", "models", "skip", "nothing is asked: this server does not tell which models are loaded"
    )


def _is_at(address: Address, port: int) -> bool:
    return address.here and _port(address) == port


def _port(address: Address) -> int:
    return read_address(address.url).port


def _host(address: Address) -> str:
    return read_address(address.url).host
