"""Where settings come from: flags, environment, files, in that order, read once into a Config.

    flag > PORTICO_* > OLLAMA_* > nearest portico.toml > $XDG_CONFIG_HOME/portico/config.toml > default

The nearest portico.toml is looked for from the working folder up to the root of its repository; a file named
with --config replaces both files. Each setting is decided by itself: a file may give the port and a variable
the host. An empty variable is an unset one. A wrong value is an error that names where it stands; so is a
key nobody knows, because a setting with a typo in it would otherwise be silently ignored.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from portico.config import Config, ModelEntry
from portico.dialects.ollama.duration import read_duration
from portico.errors import ConfigError, InvalidRequest, near
from portico.ollama_env import OLLAMA, Address, read_address

NAME = "portico.toml"
_FIELDS = {field.name: field.type for field in msgspec.structs.fields(Config)}
_ENTRY_FIELDS = {field.name: field.type for field in msgspec.structs.fields(ModelEntry)}
_FILE_KEYS = {"model" if name == "models" else name: name for name in _FIELDS}
_DURATIONS = (_FIELDS["keep_alive"], _ENTRY_FIELDS["keep_alive"])
_VARIABLES = {
    "PORTICO_API_KEY" if name == "api_keys" else f"PORTICO_{name.upper()}": name
    for name in _FIELDS
    if name not in ("host", "models")  # host is an address; [[model]] tables do not fit into a variable
}

__all__ = ["Address", "callers_keys", "data_home", "load", "places", "read_address", "sources"]


class _Setting(NamedTuple):
    """A value with the place it was read from. `folder` is what its relative paths are relative to."""

    value: object
    origin: str
    folder: Path
    text: bool = False  # from a variable: "8" may stand for 8


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """The settings of this run. `flags` are Config's fields by name; None is a flag that was not given.

    Raises ConfigError, naming file, variable or flag, and the nearest known key.
    """
    settings: dict[str, _Setting] = {}
    for path in reversed(sources(file, environ)):
        settings |= _from_file(path)
    here = Path.cwd()
    settings |= _from_ollama(environ, here)
    settings |= _from_variables(environ, here)
    settings |= {
        name: _Setting(value, f"--{name.replace('_', '-')}", here)
        for name, value in flags.items()
        if value is not None
    }
    values: dict[str, Any] = {name: _converted(name, setting) for name, setting in settings.items()}
    return Config(**values)


def places(environ: Mapping[str, str]) -> Config:
    """`home` and `ollama_models` as `load` decides them, and nothing else: a client needs to know where things
    are kept, and a server's settings that are wrong must not keep it from talking to another server.

    Raises ConfigError if a file cannot be read or these two are wrong.
    """
    here, named = Path.cwd(), ("home", "ollama_models")
    settings: dict[str, _Setting] = {}
    for path in reversed(sources(None, environ)):
        settings |= _from_file(path)
    for variable in ("OLLAMA_MODELS", "PORTICO_OLLAMA_MODELS", "PORTICO_HOME"):
        if value := _stripped(environ, variable):
            settings[variable.removeprefix("PORTICO_").lower()] = _Setting(value, variable, here, text=True)
    values: dict[str, Any] = {name: _converted(name, settings[name]) for name in named if name in settings}
    return Config(**values)


def sources(file: Path | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The files that `load` reads, the strongest first. Raises ConfigError if `file` does not exist; the null device is an
    empty one."""
    if file is not None:
        if not file.is_file() and str(file) != os.devnull:
            raise ConfigError(f"{file}: there is no such file (--config)")
        return (file,)
    home = Path(environ.get("XDG_CONFIG_HOME", "").strip() or _home(environ) / ".config")
    found = (_nearest(Path.cwd()), home / "portico" / "config.toml")
    return tuple(path for path in found if path is not None and path.is_file())


def data_home(config: Config, environ: Mapping[str, str]) -> Path:
    """The one folder for models, databases, logs and engines; it need not exist yet."""
    named = config.home or environ.get("PORTICO_HOME", "").strip()
    if named:
        return Path(named).expanduser()
    if environ.get("XDG_DATA_HOME", "").strip():
        return Path(environ["XDG_DATA_HOME"].strip()) / "portico"
    if os.name == "nt" and environ.get("LOCALAPPDATA"):
        return Path(environ["LOCALAPPDATA"]) / "portico"
    return _home(environ) / ".local" / "share" / "portico"


def callers_keys(config: Config) -> tuple[str, ...]:
    """Every key that callers may send: `api_keys`, then those in `api_key_file`, each once.

    The file is read here and not into Config, so that what is printed or logged of it holds none.
    """
    keys = list(config.api_keys)
    if config.api_key_file is not None:
        try:
            lines = config.api_key_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigError(f"{config.api_key_file}: cannot be read: {reason} (api_key_file)") from error
        keys += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            # An empty file is a mistake: without any key the server would let everybody in.
            raise ConfigError(f"{config.api_key_file}: holds no key (api_key_file)")
    return tuple(dict.fromkeys(keys))


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def _nearest(folder: Path) -> Path | None:
    """portico.toml in this folder or the next one above, not beyond a repository's root; outside a
    repository only this folder counts, so that nobody's file in / or /tmp decides."""
    above: list[Path] = []
    for place in (folder, *folder.parents):
        above.append(place)
        if (place / ".git").exists():
            break
    else:
        above = [folder]
    return next((place / NAME for place in above if (place / NAME).is_file()), None)


# ---- the places


def _from_file(path: Path) -> dict[str, _Setting]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    _refuse_unknown(table, _FILE_KEYS, where=str(path))
    return {
        _FILE_KEYS[key]: _Setting(value, f"{path}:{key}", path.parent.absolute())
        for key, value in table.items()
    }


def _from_variables(environ: Mapping[str, str], here: Path) -> dict[str, _Setting]:
    found = {}
    if address := _stripped(environ, "PORTICO_HOST"):
        try:
            settings = OLLAMA["OLLAMA_HOST"](address)
        except ValueError as error:
            raise ConfigError(f"PORTICO_HOST: {error}") from error
        found.update({name: _Setting(value, "PORTICO_HOST", here) for name, value in settings.items()})
    for variable, name in _VARIABLES.items():
        if value := _stripped(environ, variable):
            found[name] = _Setting(_split(name, value, variable), variable, here, text=True)
    return found


def _from_ollama(environ: Mapping[str, str], here: Path) -> dict[str, _Setting]:
    found = {}
    for variable, read in OLLAMA.items():
        if value := _stripped(environ, variable):
            try:
                settings = read(value)
            except (ValueError, InvalidRequest) as error:
                raise ConfigError(f"{variable}: {error}") from error
            found.update({name: _Setting(each, variable, here, text=True) for name, each in settings.items()})
    return found


def _stripped(environ: Mapping[str, str], variable: str) -> str:
    """Without the quotes and spaces that service files and Docker leave around values."""
    return environ.get(variable, "").strip().strip("\"'").strip()


def _split(name: str, value: str, variable: str) -> object:
    """Lists are comma-separated in a variable; aliases are name=model pairs."""
    if name == "aliases":
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if any(not sign for _, sign, _ in pairs):
            raise ConfigError(f"{variable}: expected name=model,name=model, got {value!r}")
        return {key.strip(): model.strip() for key, _, model in pairs}
    if str(_FIELDS[name]).startswith("tuple"):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    return value


# ---- from what was written to what Config holds


def _converted(name: str, setting: _Setting) -> object:
    if name == "models":
        return _entries(setting)
    value = setting.value
    if name == "keep_alive" and setting.text:
        value = _number(value)
    return _convert(value, _FIELDS[name], setting.origin, setting)


def _entries(setting: _Setting) -> tuple[ModelEntry, ...]:
    tables = setting.value
    if not isinstance(tables, Iterable) or isinstance(tables, (str, Mapping)):
        raise ConfigError(f"{setting.origin}: expected [[model]] tables, got {type(tables).__name__}")
    entries = []
    for number, table in enumerate(tables):
        if isinstance(table, ModelEntry):
            entries.append(table)
            continue
        where = f"{setting.origin}[{number}]"
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: expected a [[model]] table, got {type(table).__name__}")
        _refuse_unknown(table, _ENTRY_FIELDS, where=where)
        if "name" not in table:
            raise ConfigError(f"{where}: `name` is missing")
        entries.append(
            ModelEntry(
                **{
                    key: _convert(value, _ENTRY_FIELDS[key], f"{where}.{key}", setting)
                    for key, value in table.items()
                }
            )
        )
    return tuple(entries)


def _convert(value: object, kind: Any, origin: str, setting: _Setting) -> Any:
    def path(wanted: type, given: object) -> object:
        if wanted is not Path or not isinstance(given, str | Path):
            raise NotImplementedError
        return setting.folder / Path(given).expanduser()

    try:
        converted = msgspec.convert(value, kind, strict=not setting.text, dec_hook=path)
    except (msgspec.ValidationError, NotImplementedError) as error:
        # The value itself is not repeated: it may be a key that slipped into the wrong place.
        raise ConfigError(f"{origin}: {_plain(str(error)) or 'expected a path'}") from error
    if isinstance(converted, float) and math.isnan(converted):
        raise ConfigError(f"{origin}: expected a number, got nan")
    if kind in _DURATIONS:
        _check_duration(converted, origin)
    return converted


def _check_duration(value: object, origin: str) -> None:
    """Read when a model is loaded; wrong, it would be an error of whoever asks first."""
    try:
        read_duration(value)
    except InvalidRequest as error:
        raise ConfigError(f"{origin}: expected seconds or a duration such as 5m, got {value!r}") from error


def _plain(message: str) -> str:
    return message.replace("`", "").replace(" | null", "").replace("Expected", "expected")


def _number(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return value


def _refuse_unknown(table: Mapping[str, object], known: Mapping[str, object], *, where: str) -> None:
    for key in table:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
            raise ConfigError(f"{where}: unknown key {key!r}{near(nearest)}")
