"""``python -m benchmarks.flat``: whether a backlog's size slows its own catching up, and whether memory grows with it.

A backlog of small transactions is written while no role runs. Then all three start, and each second it is noted how far
the replica is and what each role has resident, until it is level. The changes are then cut into slices of equal size,
each with its rate. At the end every row of both sides is compared.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import click
from psycopg import sql
from rich.console import Console

from benchmarks import marks
from benchmarks.machine import busy_seconds
from benchmarks.ours import Ours
from benchmarks.results import give_up, tell
from benchmarks.stand import stand
from benchmarks.workloads import FULL, fill
from embassy.model.errors import EmbassyError, TransientError

_VERSION = "embassy.bench-flat/1"
_CHANGES_EACH = 3
_SAMPLE_SECONDS = 1.0
_STUCK_SECONDS = 300.0
_APPLIED = re.compile(rb'^embassy_events_total\{[^}]*stage="applied"[^}]*\} (\S+)$', re.MULTILINE)

# As W1: a person moves, a property is registered, another one is sold.
_BACKLOG = """
DO $$BEGIN FOR n IN {first}..{last} LOOP
    UPDATE person SET residence = 'Street ' || n, balance = n / 100.0
    WHERE personal_code = (30000000000 + (n::bigint * 7919) % {persons} + 1)::text;
    INSERT INTO property (cadastral_code, owner, area, attrs, registered_at)
    VALUES ('F:' || n, (30000000000 + n % {persons})::text, n / 100.0, jsonb_build_object('ref', md5(n::text)), now());
    UPDATE property SET owner = (30000000000 + (n::bigint * 31) % {persons})::text
    WHERE id = (n::bigint * 104729) % {properties} + 1;
    COMMIT;
END LOOP; END$$"""
_TRANSACTIONS_AT_ONCE = 50_000


class Sample(NamedTuple):
    """How far the replica was, and what the roles had resident."""

    seconds: float
    changes: float
    rss_mb: dict[str, float]
    busy_seconds: float
    """CPU time of the whole machine."""


def slices(samples: list[Sample], changes: int, count: int) -> list[dict[str, Any]]:
    """The way cut into pieces of equal size; each with its rate, and the most memory that a role had in it."""
    found: list[dict[str, Any]] = []
    before = samples[0]
    for number in range(1, count + 1):
        goal = changes * number / count
        piece = [sample for sample in samples if before.changes <= sample.changes]
        reached = next((sample for sample in piece if sample.changes >= goal), samples[-1])
        if reached.changes <= before.changes:
            continue  # a sample that spanned two pieces
        within = [sample for sample in piece if sample.changes <= reached.changes]
        seconds = reached.seconds - before.seconds
        found.append(
            {
                "until_changes": round(reached.changes),
                "seconds": round(seconds, 1),
                "changes_per_second": round((reached.changes - before.changes) / seconds),
                "machine_cores_busy": round((reached.busy_seconds - before.busy_seconds) / seconds, 2),
                "rss_mb": {role: round(max(s.rss_mb[role] for s in within)) for role in reached.rss_mb},
            }
        )
        before = reached
    return found


def _write(ours: Ours, transactions: int, said: Console) -> None:
    with ours.source() as connection:
        connection.execute("SET synchronous_commit = off")
        for first in range(1, transactions + 1, _TRANSACTIONS_AT_ONCE):
            last = min(first + _TRANSACTIONS_AT_ONCE - 1, transactions)
            connection.execute(
                sql.SQL(_BACKLOG).format(
                    first=sql.Literal(first),
                    last=sql.Literal(last),
                    persons=sql.Literal(FULL.persons),
                    properties=sql.Literal(FULL.properties),
                )
            )
            said.log(f"{last} of {transactions} transactions written")
        connection.execute("CHECKPOINT")


def _applied(address: Path) -> float:
    """How many changes the consumer says to have applied since it started."""
    try:
        with urllib.request.urlopen(
            f"http://{address.read_text(encoding='ascii').strip()}/metrics", timeout=5
        ) as answer:
            found = _APPLIED.search(answer.read())
    except (OSError, ValueError, HTTPException):
        return 0.0
    return float(found[1]) if found else 0.0


def _catch_up(ours: Ours, mark: int, changes: int) -> list[Sample]:
    """Let the roles go, and watch until the mark behind the backlog is visible."""
    begun = time.monotonic()
    ours.start()
    samples: list[Sample] = []
    moved_at, moved = begun, 0.0
    with ours.replica() as replica:
        while True:
            now, applied = time.monotonic(), min(_applied(ours.address("consumer")), float(changes))
            level = marks.arrived(replica, mark)
            samples.append(Sample(now - begun, changes if level else applied, ours.rss_mb(), busy_seconds()))
            if level:
                return samples
            if applied > moved:
                moved_at, moved = now, applied
            elif now - moved_at > _STUCK_SECONDS:
                raise TransientError(f"nothing was applied for {_STUCK_SECONDS:g} s, {applied:g} changes were")
            ours.check()
            time.sleep(_SAMPLE_SECONDS)


@contextmanager
def _stopped(ours: Ours) -> Iterator[None]:
    try:
        yield
    finally:
        ours.stop()


@click.command()
@click.option("--changes", type=click.IntRange(1000), default=10_000_000, show_default=True)
@click.option("--slices", "count", type=click.IntRange(2), default=10, show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), envvar="BENCH_JSON", help="Where results go."
)
def main(*, changes: int, count: int, json_file: Path | None) -> None:
    """Catch up with a large backlog, and tell rate and memory on the way."""
    said = Console(stderr=True, log_path=False, highlight=False)
    transactions = changes // _CHANGES_EACH
    changes = transactions * _CHANGES_EACH
    try:
        with stand(lambda subject, stage: said.log(f"{subject}: {stage}"), keep=False) as lab:
            ours = Ours(lab)
            with _stopped(ours):
                ours.start()
                with ours.source() as source:
                    fill(source, FULL)
                ours.await_level()
                ours.stop()
                ours.tidy()
                _write(ours, transactions, said)
                with ours.source() as source:
                    mark = marks.send(source)
                said.log("the roles start")
                samples = _catch_up(ours, mark, changes)
                found = {
                    "schema": _VERSION,
                    "changes": changes,
                    "transactions": transactions,
                    "seconds": round(samples[-1].seconds, 1),
                    "slices": slices(samples, changes, count),
                }
                ours.stop()
            said.log("comparing all rows")
            found["rows"] = ours.equal_rows()
    except EmbassyError as error:
        give_up(said, error)
    tell(found, json_file)


if __name__ == "__main__":
    main()
