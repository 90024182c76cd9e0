"""How a number is written for a person. Every figure on the screen is made here; JSON carries plain numbers.

Memory counts in 1024s (MiB, GiB), files and transfers in 1000s (MB, GB); a column never mixes them.
"""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400
FOREVER = 50 * 365 * DAY  # Ollama writes "never unloads" as a date some three hundred years away

NOTHING = "-"  # a figure that is not known, or would claim more than was measured


def duration(seconds: float) -> str:
    """0.48 ms, 8.4 ms, 142 ms, 5.4 s, 28 s, 1m49s, 2h05m, 3d 4h."""
    if 0 < seconds < 0.000995:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02d}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02d}m"
    return f"{whole // DAY}d {whole % DAY // HOUR}h"


def whole(seconds: float) -> str:
    """A time to come, of which no tenth is known: 2 s, 1m02s."""
    return f"{max(1, round(seconds))} s" if seconds < 9.95 else duration(seconds)


def _scaled(amount: float, step: int, names: tuple[str, ...]) -> str:
    for name in names[:-1]:
        if amount < step * 0.9995:
            return f"{amount:.1f} {name}" if amount < 9.95 and name != names[0] else f"{amount:.0f} {name}"
        amount /= step
    return f"{amount:.1f} {names[-1]}"


def file_size(count: float | None) -> str:
    """Bytes on disk or on the wire: 812 kB, 2.6 GB."""
    return NOTHING if count is None else _scaled(count, 1000, ("B", "kB", "MB", "GB"))


def memory(count: float | None) -> str:
    """Bytes of memory: 512 MiB, 9.4 GiB."""
    return NOTHING if not count else _scaled(count, 1024, ("B", "KiB", "MiB", "GiB"))


def rate(per_second: float | None) -> str:
    """Tokens or requests a second: 8.3, 61, 1,840."""
    if per_second is None:
        return NOTHING
    return f"{per_second:.1f}" if per_second < 9.95 else f"{per_second:,.0f}"


def exact(count: int | None) -> str:
    """A count in a table: 40,960."""
    return NOTHING if count is None else f"{count:,}"


def rough(count: int) -> str:
    """A count in a summary: 318, 6.1k, 302k, 1.2M."""
    if count < 1000:
        return str(count)
    if count < 9_950:
        return f"{count / 1000:.1f}k"
    if count < 999_500:
        return f"{count / 1000:.0f}k"
    return f"{count / 1_000_000:.1f}M"


def ago(seconds: float) -> str:
    """A time in the past: just now, 5 min ago, 2 h ago, 3 days ago."""
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min ago"
    if seconds < DAY:
        return f"{seconds // HOUR:.0f} h ago"
    days = int(seconds // DAY)
    return "yesterday" if days == 1 else f"{days:,} days ago"


def until(seconds: float) -> str:
    """A time to come: in 4m50s, now, never."""
    if seconds > FOREVER:
        return "never"
    return "now" if seconds <= 0 else f"in {whole(seconds)}"


def percent(done: float, total: float) -> int:
    """Floored, so that 100 means finished."""
    if total <= 0:
        return 0
    return 100 if done >= total else min(99, int(done * 100 / total))


def bar(done: float, total: float, width: int) -> str:
    """[###...], in every mode: it needs no sign beyond ASCII."""
    filled = width * percent(done, total) // 100
    return f"[{'#' * filled}{'.' * (width - filled)}]"


def shortened(text: str, width: int) -> str:
    """`text` cut in the middle: a name's ends tell it apart."""
    if len(text) <= width or width < 5:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"
