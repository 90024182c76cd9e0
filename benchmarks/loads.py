"""One run of the client in C (load.c), with what /proc says about the server in the same window."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from processes import DISTURBED, Child, ChildFailed, other_load, read, rss_kb
from targets import BUILD, Place

Window = dict[str, float | int | str | bool]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every connection asks, again and again."""

    port: int
    path: str
    events: str  # how the reply is cut: json, sse or ndjson
    key: str
    body: Mapping[str, object]


def run(
    request: Request,
    options: Mapping[str, object],
    place: Place,
    *,
    pid: int | None,
    server: int | None,
    longest: float,
) -> Window:
    """`options` are load.c's, None for those without a value. `pid`: whose family's CPU time counts; `server`: whose
    memory. `longest`: seconds after which the client is ended by force; it has limits of its own."""
    folder = place.folder("load")
    body = folder / "body.json"
    body.write_text(json.dumps(request.body, separators=(",", ":")))
    with Child(
        _command(request, options, body), cores=place.load_cores, log=folder / "load.log", capture=True
    ) as load:
        net = threading.Timer(longest, load.process.kill)
        net.start()
        try:
            opened = load.line().strip() == "begin"
            before = after = read(pid, place.cores)
            if opened:
                load.line()
                after = read(pid, place.cores)
            rss = rss_kb(server) if server else 0  # while the streams are still open
            result = load.line()
        finally:
            net.cancel()
        if not result:
            raise ChildFailed(f"the client gave no result: {load.last_words()}")
    found: Window = json.loads(result)
    cores = (after.cpu - before.cpu) / (after.at - before.at) if opened else 0.0
    other = other_load(before, after) if opened else 0.0
    return found | {
        "cpu_cores": round(cores, 4),
        "us_per_request": _per(cores, found["requests_per_s"]),
        "us_per_chunk": _per(cores, found["chunks_per_s"]),
        "rss_kb": rss,
        "other_load": round(other, 3),
        "disturbed": other > DISTURBED,
    }


def _command(request: Request, options: Mapping[str, object], body: Path) -> list[str]:
    given = {"port": request.port, "path": request.path, "events": request.events, "body": body, **options}
    command = [str(BUILD / "load"), "--header", f"Authorization: Bearer {request.key}"]
    for name, value in given.items():
        command += [f"--{name}"] if value is None else [f"--{name}", str(value)]
    return command


def _per(cores: float, rate: float | int | str | bool) -> float:
    return round(cores / float(rate) * 1e6, 2) if rate else 0.0
