"""Marks: rows that are written behind everything else, and whose arrival at the replica is timed."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import psycopg

from embassy.model.errors import TransientError

_POLL_SECONDS = 0.005
_numbers = count(1)


def send(source: psycopg.Connection[Any]) -> int:
    """Write a mark; returns its number."""
    number = next(_numbers)
    source.execute("INSERT INTO public.mark VALUES (%s, clock_timestamp())", (number,))
    return number


def arrived(replica: psycopg.Connection[Any], number: int) -> bool:
    """Whether a mark is visible."""
    row = replica.execute("SELECT 1 FROM public.mark WHERE id = %s", (number,), prepare=True).fetchone()
    return row is not None


def await_arrival(replica: psycopg.Connection[Any], number: int, limit_seconds: float) -> float:
    """Wait until a mark is visible; returns when it was, as `time.perf_counter` counts.

    Raises:
        TransientError: it is not within the limit.
    """
    end = time.perf_counter() + limit_seconds
    while True:
        there = arrived(replica, number)
        now = time.perf_counter()
        if there:
            return now
        if now > end:
            raise TransientError(f"mark {number} is not in the replica after {limit_seconds:g} s")
        time.sleep(_POLL_SECONDS)
