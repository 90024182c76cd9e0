"""The Hugging Face hub: may it be asked, does it answer, and as whom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from portico.cli.checks import Check
from portico.cli.checks.asking import Asker, Heard, Silence, shown

GROUP = "hub"
SECONDS = 3.0
ENDPOINT = "https://huggingface.co"
_TRUE = ("1", "ON", "YES", "TRUE")


class _Somebody(msgspec.Struct):
    name: str = ""


def hub(endpoint: str, heard: Heard, *, token: str) -> list[Check]:
    """`token`: where one was found (a variable or a file); empty: nowhere. Pure."""
    where = shown(endpoint)
    if isinstance(heard, Silence):
        do = "check the network, HTTPS_PROXY and HF_ENDPOINT; models that are here work without it"
        reach = Check(GROUP, "hub", "warn", heard.found(where), do)
    elif heard.status >= 500 or heard.status == 429:
        reach = Check(
            GROUP, "hub", "warn", f"{where} answers with {heard.status}", "pull again in some minutes"
        )
    else:
        reach = Check(GROUP, "hub", "ok", f"{where} answers in {heard.seconds * 1000:.0f} ms")
    return [reach, _token(heard, token)]


def _token(heard: Heard, token: str) -> Check:
    if not token:
        found = "no HF_TOKEN (https://huggingface.co/settings/tokens): gated models cannot be pulled"
        return Check(
            GROUP,
            "token",
            "skip",
            found,
            "export HF_TOKEN=TOKEN",
        )
    if isinstance(heard, Silence):
        return Check(GROUP, "token", "skip", f"set ({token}); whether it is good cannot be asked")
    if heard.status in (401, 403):
        undo = f"unset {token}" if token.isupper() else f"rm {token}"
        return Check(
            GROUP,
            "token",
            "fail",
            f"the hub does not know the token in {token}",
            f"{undo}; or set a valid one",
        )
    somebody = heard.read(_Somebody)
    name = f", of {somebody.name}" if somebody is not None and somebody.name else ""
    return Check(GROUP, "token", "ok", f"set ({token}){name}")


def offline(variable: str, *, token: str) -> list[Check]:
    """Neither the hub nor what it makes of the token is asked for."""
    reach = Check(GROUP, "hub", "skip", f"not asked: {variable} is set", f"unset {variable}")
    return [reach, Check(GROUP, "token", "skip", f"set ({token})" if token else "no HF_TOKEN")]


def look(environ: Mapping[str, str], cache: Path) -> list[Check]:
    """`cache`: the hub's, whose folder above holds the token of `hf auth login`."""
    token, where = _found(environ, cache)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environ.get(variable, "").upper() in _TRUE:
            return offline(variable, token=where)
    endpoint = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or ENDPOINT
    with Asker(endpoint, token or None, seconds=SECONDS) as asker:
        heard = asker.get("/api/whoami-v2" if token else "/api/models?limit=1")
    return hub(endpoint, heard, token=where)


def _found(environ: Mapping[str, str], cache: Path) -> tuple[str, str]:
    """The token and where it stands, as huggingface_hub finds it."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := environ.get(variable, "").strip():
            return value, variable
    named = environ.get("HF_TOKEN_PATH", "").strip()
    home = environ.get("HF_HOME", "").strip()
    file = Path(
        os.path.expanduser(named or (os.path.join(home, "token") if home else str(cache.parent / "token")))
    )
    try:
        return file.read_text(encoding="utf-8").strip(), str(file)
    except (OSError, UnicodeDecodeError):
        return "", ""
