"""Where each effective value of the configuration is from, and whether the files it names can be read."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from embassy.runtime.config import Settings

_PREFIX = "EMBASSY_"
_REDACTED = "***"
# libpq's two forms of a connection string: key=value pairs, the value perhaps quoted, and URIs.
_PAIR = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|'.*|[^\s&]+)")
_URI = re.compile(r"^(\w+://[^:/@\s]*:).*(?=@)")

SECRET_KEYS = ("identity", "recipient", "key")
"""Names of keys whose files only their owner may read."""
_MADE_WHEN_NEEDED = (("audit", "file"), ("keyd", "socket"))


class Origin(Enum):
    """Where a value is from."""

    ENVIRONMENT = "env"
    FILE = "file"
    DEFAULT = "default"


class Effective(NamedTuple):
    """One value as it counts."""

    key: str
    value: Any
    """As JSON has it; passwords replaced."""
    origin: Origin
    variable: str
    """The environment variable that overrides it."""


def effective(settings: Settings, file: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Effective]:
    """Every value, in the order of the file's sections."""
    written = tomllib.loads(file.read_text(encoding="utf-8"))
    present = {name.upper() for name in environment}
    for path, value in _leaves(settings, ()):
        variables = [_PREFIX + "__".join(path[: i + 1]).upper() for i in range(len(path))]
        overriding = next((name for name in reversed(variables) if name in present), "")
        own = Origin.FILE if _holds(written, path) else Origin.DEFAULT
        origin = Origin.ENVIRONMENT if overriding else own
        yield Effective(".".join(path), _shown(value), origin, overriding or variables[-1])


def complaints(settings: Settings) -> Iterator[str]:
    """What is wrong with the files that the configuration names; one sentence for each."""
    for path, value in _leaves(settings, ()):
        files = value if isinstance(value, tuple) else (value,)
        for file in files:
            if isinstance(file, Path) and (path not in _MADE_WHEN_NEEDED or file.exists()):
                complaint = _complaint(file, secret=path[-1] in SECRET_KEYS or path in _MADE_WHEN_NEEDED)
                if complaint:
                    yield f"{'.'.join(path)}: {file}: {complaint}"


def redacted(text: str) -> str:
    """A connection string without its passwords."""
    return _PAIR.sub(rf"\1{_REDACTED}", _URI.sub(rf"\1{_REDACTED}", text))


def _leaves(model: BaseModel, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*path, name))
        elif isinstance(value, dict):
            for key, section in value.items():
                yield from _leaves(section, (*path, name, key))
        elif value is not None:
            yield (*path, name), value


def _holds(written: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    found: Any = written
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown(element) for element in value]
    if isinstance(value, Path):
        return str(value)
    return redacted(value) if isinstance(value, str) else value


def _complaint(file: Path, *, secret: bool) -> str:
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):  # of key files, each of which is looked at when it is read
            return "others may write to it" if mode & stat.S_IWOTH else ""
        with file.open("rb"):
            pass
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if secret and mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"others may read it (mode {stat.S_IMODE(mode):04o}); chmod 600"
    if mode & stat.S_IWOTH:  # whom the role trusts, and for whom it wraps data keys
        return f"others may write to it (mode {stat.S_IMODE(mode):04o}); chmod o-w"
    return ""
