"""Sections of the configuration: frozen dataclasses, whose annotations say what a table of TOML may hold.

A field is a text, a number, a `Path`, one of a `Literal`'s words, a section, a tuple, or a dict of named sections;
`Annotated` adds rules. Numbers may be written as texts, and tuples as texts in JSON, because the environment has nothing
else. pydantic-settings did this and much more, of which nothing was used, and took ten megabytes of each service.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")


class Rule(Protocol):
    """What a value of the right type must be besides."""

    def broken(self, value: Any) -> str:
        """What is wrong with it; empty if nothing is."""


class Bounds(NamedTuple):
    """A number within bounds."""

    least: float = -math.inf
    above: float = -math.inf
    """It is larger than this."""
    most: float = math.inf

    def broken(self, value: Any) -> str:
        """See `Rule`."""
        if value < self.least:
            return f"{value} is less than {self.least}"
        if value <= self.above:
            return f"{value} is not more than {self.above}"
        return "" if value <= self.most else f"{value} is more than {self.most}"


class Form(NamedTuple):
    """A text of a certain form."""

    pattern: str
    """The whole text matches it."""
    words: str
    """What that is."""

    def broken(self, value: Any) -> str:
        """See `Rule`."""
        return "" if re.fullmatch(self.pattern, value) else f"not {self.words}"


class InvalidSectionError(ValueError):
    """A table does not hold; one sentence for each key that is at fault."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__("; ".join(complaints))


class _WrongError(ValueError):
    """A value is not of its type; the message says what it is not. Texts are never quoted: one may be a secret."""


def read(section: type[T], table: Mapping[str, Any], folder: Path) -> T:
    """A section from its table.

    Args:
        section: a frozen dataclass.
        table: names and values.
        folder: what relative paths are relative to, defaults included.

    Raises:
        InvalidSectionError: a key is unknown, missing, or its value is not as the section says.
    """
    reader = _Reader(folder)
    found = reader.section(section, table, "")
    if reader.complaints:
        raise InvalidSectionError(reader.complaints)
    assert isinstance(found, section), "nothing was wrong"
    return found


def keys_of(section: Any) -> list[str]:
    """The names that a section may hold, in alphabetical order."""
    return sorted(name for name, _, _ in _keys(section))


class _Key(NamedTuple):
    name: str
    kind: Any
    """Its annotation."""
    default: Callable[[], Any] | None
    """Makes it; None if it has to be in the table."""


@cache
def _keys(section: Any) -> tuple[_Key, ...]:
    kinds = get_type_hints(section, include_extras=True)
    return tuple(_Key(field.name, kinds[field.name], _default_of(field)) for field in fields(section))


def _default_of(field: Field[Any]) -> Callable[[], Any] | None:
    if field.default_factory is not MISSING:
        return field.default_factory
    return None if field.default is MISSING else lambda: field.default


class _Reader:
    """Reads one file's sections, and gathers what is wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.complaints: list[str] = []

    def section(self, kind: Any, table: object, place: str) -> Any:
        """The section; None if something is wrong in it."""
        if not isinstance(table, Mapping):
            raise _WrongError("not a table")
        before = len(self.complaints)
        known = keys_of(kind)
        for name in table:
            if name not in known:
                self._complain(_within(place, name), _unknown(name, known))
        values = {key.name: self._of(key, table, _within(place, key.name)) for key in _keys(kind)}
        return kind(**values) if len(self.complaints) == before else None

    def _of(self, key: _Key, table: Mapping[str, Any], place: str) -> Any:
        if key.name in table:
            try:
                return self._value(key.kind, table[key.name], place)
            except _WrongError as error:
                self._complain(place, str(error))
        elif key.default is not None:
            return self._located(key.default(), place)
        else:
            self._complain(place, "is missing")
        return None

    def _located(self, default: Any, place: str) -> Any:
        """A default; the paths in it are relative to the folder too."""
        if is_dataclass(default):
            return self.section(type(default), {}, place)
        return self._folder / default if isinstance(default, Path) else default

    def _value(self, kind: Any, value: Any, place: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            found = _ruled(self._value(arguments[0], value, place), kind.__metadata__)
        elif origin in (Union, UnionType):
            found = self._value(_alternative(arguments, value), value, place)
        elif origin is Literal:
            found = _one_of(arguments, value)
        elif origin is tuple:
            found = tuple(self._value(arguments[0], part, place) for part in _listed(value))
        elif origin is dict:
            found = self._named(arguments[1], value, place)
        elif is_dataclass(kind):
            found = self.section(kind, value, place)
        elif kind is Path:
            found = self._folder / _text(value)
        else:
            found = _SCALARS[kind](value)
        return found

    def _named(self, kind: Any, table: object, place: str) -> dict[str, Any]:
        if not isinstance(table, Mapping):
            raise _WrongError("not a table")
        return {name: self._of(_Key(name, kind, None), table, _within(place, name)) for name in table}

    def _complain(self, place: str, what: str) -> None:
        self.complaints.append(f"{place}: {what}")


def _within(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown key, did you mean {near[0]!r}?" if near else f"unknown key; known are {', '.join(known)}"


def _ruled(value: Any, rules: tuple[Rule, ...]) -> Any:
    for rule in rules:
        if broken := rule.broken(value):
            raise _WrongError(broken)
    return value


def _one_of(words: tuple[Any, ...], value: object) -> object:
    if value not in words:
        raise _WrongError(f"not one of {', '.join(map(repr, words))}")
    return value


def _alternative(kinds: tuple[Any, ...], value: object) -> Any:
    """Which of a union's types is meant: of one value and several, what the value looks like."""
    several = isinstance(value, list | tuple) or (isinstance(value, str) and value.startswith("["))
    real = [kind for kind in kinds if kind is not NoneType]
    return next((kind for kind in real if (get_origin(kind) is tuple) is several), real[0])


def _listed(value: object) -> list[Any] | tuple[Any, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise _WrongError("not a list; the environment has one as JSON") from None
    if not isinstance(value, list | tuple):
        raise _WrongError("not a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongError("not a text")
    return value


def _whole(value: object) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise _WrongError("not a whole number") from None
    number = _number(value)
    if not number.is_integer():
        raise _WrongError("not a whole number")
    return int(value) if isinstance(value, int) else int(number)


def _number(value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type] # what it has to be found out
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise _WrongError("not a number")
    return number


_SCALARS: dict[Any, Callable[[object], object]] = {str: _text, int: _whole, float: _number}
