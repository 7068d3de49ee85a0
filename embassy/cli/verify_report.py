"""What verifications have found of a replica, for people and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

from rich.text import Text

from embassy.cli.options import Options
from embassy.model.errors import RefusedError
from embassy.model.wording import iso, span
from embassy.pg import verify_store
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.verify_store import FoundTable, Run
from embassy.runtime.config import Stream

_KEYS_SHOWN = 50


class Report(NamedTuple):
    """One stream's replica."""

    registry: str
    now: float
    run: Run | None
    """The verification asked for, or the newest; None: there is none."""
    tables: list[FoundTable]
    """Each table as it was compared last."""
    keys: bool

    @property
    def ended(self) -> bool:
        """Whether the verification has ended."""
        return self.run is not None and self.run.ended_at is not None

    @property
    def alike(self) -> bool:
        """Whether all that it compared is known to be alike, and nothing is known to differ."""
        return (
            self.run is not None
            and self.run.outcome == "match"
            and not any(table.result.differing for table in self.tables)
        )

    def as_json(self) -> dict[str, Any]:
        """Base units; null is not known."""
        run = self.run
        return {
            "run": None
            if run is None
            else {
                "id": str(run.run),
                "whole": run.whole,
                "began_at": iso(run.began_at),
                "ended_at": None if run.ended_at is None else iso(run.ended_at),
                "tables": run.tables,
                "outcome": run.outcome,
            },
            "ok": self.alike,
            "tables": [self._table(table) for table in self.tables],
        }

    def lines(self) -> Iterator[Text]:
        """For people."""
        run = self.run
        if run is None:
            yield Text(f"{self.registry}: never verified", style="yellow")
        elif run.ended_at is None:
            yield Text(f"{self.registry}: verification {run.run} goes on since {span(self.now - run.began_at)}")
        else:
            style = {"match": "green", "differs": "bold red"}.get(run.outcome or "", "yellow")
            whole = "everything" if run.whole else "a part"
            words = f"verification {run.run} of {whole} ended {span(self.now - run.ended_at)} ago"
            yield Text(f"{self.registry}: {run.outcome}; {words}", style=style)
        for table in self.tables:
            result = table.result
            words = (
                f"{result.matched:,} match, {result.in_flight:,} in flight, {result.mismatched:,} mismatched, "
                f"{result.missing:,} missing, {result.extra:,} extra; {span(self.now - table.verified_at)} ago"
            )
            style = "bold red" if result.differing else "yellow" if result.in_flight or result.undecided else ""
            yield Text(f"  {result.table}  {words}", style=style)
            if result.undecided:
                yield Text(f"    undecided: {result.undecided}", style="yellow")
            for found in table.findings[:_KEYS_SHOWN]:
                columns = ", ".join(found.key_columns) or "digest"
                yield Text(f"    {found.kind}: ({columns}) = ({', '.join(found.key)})", style="red")
            if len(table.findings) > _KEYS_SHOWN:
                yield Text(f"    and {len(table.findings) - _KEYS_SHOWN} more: --json shows them")

    def _table(self, table: FoundTable) -> dict[str, Any]:
        result = table.result
        counted = {**result._asdict(), "matched": result.matched}
        del counted["table"]
        found: dict[str, Any] = {
            "schema": result.table.schema,
            "table": result.table.name,
            "run": str(table.run),
            "verified_at": iso(table.verified_at),
            **counted,
            "undecided": result.undecided or None,
        }
        if self.keys:
            found["findings"] = [
                {"kind": f.kind, "key_columns": list(f.key_columns), "key": list(f.key)} for f in table.findings
            ]
        return found


def reports(options: Options, streams: dict[str, Stream], run: UUID | None, *, keys: bool) -> Iterator[Report]:
    """What each stream's replica knows.

    Raises:
        ConfigurationError: a stream has no replica here.
        RefusedError: a replica was provisioned by a version that could not verify.
        TransientError: a replica does not answer.
    """
    for name, stream in streams.items():
        dsn = options.need(stream.replica, f"streams.{name}.replica").dsn
        place = place_of(dsn)
        with transient(place), connect(dsn, application_name="embassy-verify", autocommit=True) as connection:
            if not verify_store.is_provisioned(connection):
                raise RefusedError(
                    "the replica has no table embassy.verification", place=place, hint="embassy provision apply"
                )
            identity = bytes.fromhex(stream.stream)
            yield Report(
                name,
                time.time(),
                verify_store.find_run(connection, identity, run),
                verify_store.tables(connection, identity, with_findings=keys),
                keys,
            )
