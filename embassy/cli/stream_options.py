"""``-r`` and ``--json`` behind a command as well as before it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from embassy.cli.options import Options, complete_stream

F = TypeVar("F", bound=Callable[..., Any])


def all_or_named(options: Options) -> Options:
    """``-r all`` is every stream, as no ``-r`` is."""
    return dataclasses.replace(options, registries=()) if options.registries == ("all",) else options


def stream_options(command: F) -> F:
    """Add the two options; what they say is in the ``Options`` that the command gets. Stands under `pass_options`."""

    @click.option(
        "-r",
        "--registry",
        "own_registries",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_stream,
        help="Only this stream.",
    )
    @click.option("--json", "own_json", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def with_own(
        options: Options, *arguments: Any, own_registries: tuple[str, ...], own_json: bool, **rest: Any
    ) -> Any:
        joined = dataclasses.replace(
            options,
            registries=(*options.registries, *own_registries),
            as_json=options.as_json or own_json,
        )
        return command(joined, *arguments, **rest)

    return with_own  # type: ignore[return-value] # same parameters, seen from click
