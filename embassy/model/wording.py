"""Sizes, spans of time and instants as people read them; machines get base units."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DAY_SECONDS = 86_400


def size(count: int) -> str:
    """Bytes: ``0B``, ``12KiB``, ``1.2MiB``."""
    if count < 1024:
        return f"{count}B"
    scaled, unit = float(count), ""
    for name in _UNITS:
        scaled, unit = scaled / 1024, name
        if scaled < 1023.5:
            break
    return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"


def counted(count: int, what: str) -> str:
    """``1 row``, ``2 rows``; of words whose plural is an s."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """A text of somebody else's for a terminal: what is no letter there, as what moves the cursor, is spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    """The same where lines are welcome: those of an error of PostgreSQL's, say."""
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))


def span(seconds: float) -> str:
    """A span of time: ``40ms``, ``1.4s``, ``38s``, ``19m04s``, ``3h02m``, ``2d04h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < _DAY_SECONDS:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // _DAY_SECONDS}d{whole % _DAY_SECONDS // 3600:02}h"


def instant(seconds: float, *, now: float) -> str:
    """An instant, UTC: ``08:53:00Z``; with its date unless that is today's."""
    then = datetime.fromtimestamp(seconds, UTC)
    same_day = then.date() == datetime.fromtimestamp(now, UTC).date()
    return f"{then:%H:%M:%SZ}" if same_day else f"{then:%Y-%m-%dT%H:%M:%SZ}"


def iso(seconds: float) -> str:
    """An instant for machines: ISO 8601, UTC, milliseconds."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{int(seconds % 1 * 1000):03}Z"
