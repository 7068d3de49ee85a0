"""``embassy provision schema``: a source's schema as a file, which the embassy's replica is made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from embassy.cli.options import Options, pass_options
from embassy.model.errors import ConfigurationError
from embassy.model.schema_file import SchemaFile, parse_schema_file
from embassy.pg.connection import place_of
from embassy.pg.schema_dump import take_schema
from embassy.pg.setup_errors import explained
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    help="The file to write; for several streams a folder, in which each has NAME.sql.",
)
@pass_options
def schema(options: Options, output: str) -> ExitCode:
    """Write the sources' schemas to files, for provision apply --schema at an embassy.

    Tables, types, functions, owners, grants and policies, without any row. Take it once home is provisioned, and
    change no table until the replica is made from it. Reads streams.NAME.source; uses this machine's pg_dump, which
    must not be older than the source.

    \b
    embassy -c home-admin.toml provision schema -o schema/
    embassy -c home-admin.toml -r land_register provision schema -o land_register.sql
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    streams = {name: stream for name, stream in options.streams(options.settings()).items() if stream.source}
    if not streams:
        raise ConfigurationError(
            "no stream has a source", place=options.place, hint="use the configuration of home's administrator"
        )
    several = len(streams) > 1 or is_folder(output)
    for name, stream in streams.items():
        source = options.need(stream.source, f"streams.{name}.source")
        with explained(place_of(source.dsn)):
            found = take_schema(source.dsn)
        file = Path(output, f"{name}.sql") if several else Path(output)
        _write(file, found.text())
        click.echo(
            f"{file}: schema of {found.database}, {len(found.script.splitlines())} lines, as of {found.lsn}"
        )
    return ExitCode.OK


def is_folder(output: str) -> bool:
    """Whether a path names a folder: one that is there, or that says so by its end, which a `Path` would lose."""
    return output.endswith(os.sep) or Path(output).is_dir()


def schema_of(name: str, stream: Stream, given: Path | None) -> Callable[[], SchemaFile] | None:
    """Where a replica's schema is from: the file that was given, or the source if the configuration names it too."""
    if given is not None:
        return partial(_read, given / f"{name}.sql" if given.is_dir() else given)
    return partial(take_schema, stream.source.dsn) if stream.source is not None else None


def _read(file: Path) -> SchemaFile:
    try:
        return parse_schema_file(file.read_bytes().decode(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read the schema: {error}", place=str(file), hint="write it with embassy provision schema"
        ) from error


def _write(file: Path, text: str) -> None:
    """Write a file that only its owner can read: definitions may hold secrets of foreign servers."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.new")
        fresh.unlink(missing_ok=True)  # of a run that was killed, or somebody else's
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(text.encode())
        fresh.replace(file)
    except OSError as error:
        raise ConfigurationError(f"cannot write: {error.strerror}", place=str(file)) from error
