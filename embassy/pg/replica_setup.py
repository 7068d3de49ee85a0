"""What a stream needs in its replica, step by step: the product's tables, guards, silence, and the beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.model.record import Head
from embassy.model.schema_file import SchemaFile
from embassy.model.step import Step
from embassy.pg import progress_store, replica_schema
from embassy.pg.connection import connect, place_of
from embassy.pg.schema_load import is_empty, schema_steps
from embassy.pg.setup_errors import LOCK_SETTINGS, in_turn

_APPLICATION = "embassy-provision"
_NO_TABLES = (
    "there is no table of the registry, and the first row of one would halt the stream → embassy provision schema at "
    "home, then embassy provision apply --schema FILE here"
)


class ReplicaWish(NamedTuple):
    """Which stream is set up, and where it begins."""

    dsn: str
    stream: bytes
    genesis: Head
    schema: Callable[[], SchemaFile] | None = None
    """Where the schema is from, for a replica that has none yet; None: its operators load it."""


def replica_steps(wish: ReplicaWish) -> Iterator[Step]:
    """What the stream needs in its replica; each step is to be taken before the next one is asked for, or none.

    Raises:
        ConfigurationError: the server cannot hold a replica as it is.
        RefusedError: the replica belongs to another enrolment.
    """
    place = place_of(wish.dsn)
    with connect(wish.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as connection:
        if connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone() == (True,):
            raise ConfigurationError(
                "the server is a standby", place=place, hint="provision the primary: correct replica.dsn"
            )
        there = replica_schema.is_provisioned(connection)
        progress = progress_store.read(connection, wish.stream) if there else None
        if progress is not None:
            progress_store.check(progress, wish.genesis)
        if is_empty(connection):
            if wish.schema is not None:
                yield from schema_steps(connection, place, wish.schema())
            else:
                yield Step(place, "the registry's tables", None, warning=_NO_TABLES)
        ensure = partial(replica_schema.ensure, connection)
        yield Step(place, "schema embassy", None if there else ensure, refresh=ensure)
        for found in replica_schema.firing(connection):
            silence = partial(replica_schema.silence, connection, found)
            yield Step(place, f"{found} disabled until promotion", partial(in_turn, connection, silence))
        for schema, table in replica_schema.unguarded(connection):
            guard = partial(replica_schema.guard, connection, schema, table)
            yield Step(place, f"guard of {schema}.{table}", partial(in_turn, connection, guard))
        enrol = partial(progress_store.enrol, connection, wish.stream, wish.genesis)
        yield Step(place, f"progress of stream {wish.stream.hex()}", None if progress is not None else enrol)
