"""W4: how long after its commit a transaction is visible at the replica, and whether whole, at a hundred a second."""

from __future__ import annotations

import math
import multiprocessing
import random
import time
from bisect import bisect_right
from multiprocessing.connection import Connection as Pipe
from typing import NamedTuple

import psycopg

from benchmarks.workloads import Sizes, statements
from embassy.model.errors import TransientError

_LOOK_SECONDS = 0.001
_FIRST = 10_000_000
_ARRIVAL_SECONDS = 60.0
_RUN = 1_000_000
_BOUNDS_MS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, math.inf)


class Latency(NamedTuple):
    """Milliseconds from the return of COMMIT at the source to the first look at the replica that showed the row."""

    p50: float
    p95: float
    p99: float
    most: float
    transactions: int
    tps: float
    """What was reached."""
    histogram: dict[str, int]
    """How many took up to so many milliseconds and longer than the bound before; the last bound is infinite."""
    looks: int
    """How often the replica was looked at, warming up included."""
    torn: int
    """How many of them showed one table's part of a transaction without the other's."""


class _Sightings(NamedTuple):
    """What the watcher saw."""

    seen: dict[int, int]
    """By mark, when it was first there, in nanoseconds of the monotonic clock."""
    looks: int
    torn: int


def measure(source_dsn: str, replica_dsn: str, sizes: Sizes, run: int) -> Latency:
    """Write at an even pace and watch the replica from a process of its own; what comes while it warms up is not timed.

    Raises:
        TransientError: not everything arrived.
    """
    warm = int(sizes.latency_tps * sizes.warm_up_seconds)
    number = warm + int(sizes.latency_tps * sizes.latency_seconds)
    first = _FIRST + run * _RUN
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    watcher = context.Process(target=_watch, args=(replica_dsn, first, number, f"W4.{run}", theirs), daemon=True)
    watcher.start()
    theirs.close()
    try:
        ours.recv()  # it looks
        committed, seconds = _write(source_dsn, sizes, run, first, number)
        seen, looks, torn = _Sightings(*ours.recv())
    except EOFError as error:
        raise TransientError("the replica's watcher has died") from error
    finally:
        watcher.join(5)
        watcher.kill()
    if len(seen) != number:
        raise TransientError(f"{number - len(seen)} of {number} transactions did not arrive")
    waits = sorted((seen[mark] - committed[mark]) / 1e6 for mark in committed if mark >= first + warm)
    p50, p95, p99, most = (_quantile(waits, q) for q in (0.5, 0.95, 0.99, 1))
    return Latency(p50, p95, p99, most, number, number / seconds, histogram(waits), looks, torn)


def histogram(waits: list[float]) -> dict[str, int]:
    """Sorted waits, by the least bound that is not below each."""
    found, before = {}, 0
    for bound in _BOUNDS_MS:
        upto = bisect_right(waits, bound)
        found[f"{bound:g}"] = upto - before
        before = upto
    return found


def is_torn(first: int, newest: int, code: str | None) -> bool:
    """Whether the newest mark is of another transaction than the newest property, ``W4.0:000000017``, if there is one.

    Args:
        first: the mark of the first transaction, whose property has the number 1.
        newest: the newest mark; ``first - 1`` if there is none.
        code: of the newest property.
    """
    return newest + 1 - first != (int(code.rpartition(":")[2]) if code else 0)


def _write(dsn: str, sizes: Sizes, run: int, first: int, number: int) -> tuple[dict[int, int], float]:
    rng = random.Random(7000 + run)
    committed = {}
    with psycopg.connect(dsn) as connection:
        begun = time.monotonic()
        for index in range(number):
            time.sleep(max(0.0, begun + index / sizes.latency_tps - time.monotonic()))
            for statement, values in statements(rng, f"W4.{run}", index + 1, sizes):
                connection.execute(statement, values, prepare=True)
            connection.execute("INSERT INTO mark VALUES (%s, clock_timestamp())", (first + index,), prepare=True)
            connection.commit()
            committed[first + index] = time.monotonic_ns()
        return committed, time.monotonic() - begun


def _watch(dsn: str, first: int, number: int, tag: str, told: Pipe) -> None:
    """Note when each mark is first seen; the machine has one monotonic clock for all processes.

    Each transaction also registers a property under its own number, so whoever sees the newest mark but another newest
    property sees a part of a transaction. Both are read in one statement, hence in one snapshot.
    """
    seen: dict[int, int] = {}
    complete, newest = first, first - 1
    looks = torn = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        told.send(None)
        heard_at = time.monotonic()
        while len(seen) < number and time.monotonic() < heard_at + _ARRIVAL_SECONDS:
            row = connection.execute(
                """
                SELECT ARRAY(SELECT id FROM mark WHERE id >= %s AND id < %s),
                       (SELECT max(cadastral_code) FROM property WHERE cadastral_code >= %s AND cadastral_code < %s)""",
                (complete, first + number, f"{tag}:", f"{tag};"),
                prepare=True,
            ).fetchone()
            now = time.monotonic_ns()
            assert row is not None
            marks, code = row
            for mark in marks:
                if seen.setdefault(mark, now) == now:
                    heard_at = time.monotonic()
            while complete in seen:
                complete += 1
            newest = max(newest, *marks) if marks else newest
            looks += 1
            torn += is_torn(first, newest, code)
            time.sleep(_LOOK_SECONDS)
    told.send((seen, looks, torn))


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, round(q * (len(ordered) - 1)))]
