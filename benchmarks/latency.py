"""W4: how long after its commit a transaction is visible at the replica, while a hundred come each second."""

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
_BOUNDS_MS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, math.inf)


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
    watcher = context.Process(target=_watch, args=(replica_dsn, first, number, theirs), daemon=True)
    watcher.start()
    theirs.close()
    try:
        ours.recv()  # it looks
        committed, seconds = _write(source_dsn, sizes, run, first, number)
        seen: dict[int, int] = ours.recv()
    except EOFError as error:
        raise TransientError("the replica's watcher has died") from error
    finally:
        watcher.join(5)
        watcher.kill()
    if len(seen) != number:
        raise TransientError(f"{number - len(seen)} of {number} transactions did not arrive")
    waits = sorted((seen[mark] - committed[mark]) / 1e6 for mark in committed if mark >= first + warm)
    p50, p95, p99, most = (_quantile(waits, q) for q in (0.5, 0.95, 0.99, 1))
    return Latency(p50, p95, p99, most, number, number / seconds, histogram(waits))


def histogram(waits: list[float]) -> dict[str, int]:
    """Sorted waits, by the least bound that is not below each."""
    found, before = {}, 0
    for bound in _BOUNDS_MS:
        upto = bisect_right(waits, bound)
        found[f"{bound:g}"] = upto - before
        before = upto
    return found


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


def _watch(dsn: str, first: int, number: int, told: Pipe) -> None:
    """Note when each mark is first seen; the machine has one monotonic clock for all processes."""
    seen: dict[int, int] = {}
    complete = first
    with psycopg.connect(dsn, autocommit=True) as connection:
        told.send(None)
        heard_at = time.monotonic()
        while len(seen) < number and time.monotonic() < heard_at + _ARRIVAL_SECONDS:
            query = "SELECT id FROM mark WHERE id >= %s AND id < %s"
            rows = connection.execute(query, (complete, first + number), prepare=True).fetchall()
            now = time.monotonic_ns()
            for (mark,) in rows:
                if seen.setdefault(mark, now) == now:
                    heard_at = time.monotonic()
            while complete in seen:
                complete += 1
            time.sleep(_LOOK_SECONDS)
    told.send(seen)


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, round(q * (len(ordered) - 1)))]
