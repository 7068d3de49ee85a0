"""The next one is made while the one before is in use: for work that waits for a server, and work that could go on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

_THREADS = 2
"""More would wait for each other: most of what they do holds the interpreter."""

_T = TypeVar("_T")


def new_executor() -> Executor:
    """The threads for all streams of a process."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="ahead")


def one_ahead(executor: Executor, made: Iterator[_T]) -> Generator[_T]:
    """Pass on what an iterator gives, of which the next one is made by a thread meanwhile.

    No two are made at the same time. What is not begun yet when it is wanted is made by whoever wants it, so a busy
    executor delays nobody. What fails to be made is told where it is wanted, and nowhere if it is not. To be closed
    where it is left early: afterwards no thread is in the iterator any more.

    Args:
        executor: has the threads.
        made: makes them; gives no None.
    """
    end: _T | None = None
    one = next(made, end)
    while one is not None:
        following: Future[_T | None] = executor.submit(next, made, end)
        try:
            yield one
        except GeneratorExit:
            if not following.cancel():
                following.exception()
            raise
        one = next(made, end) if following.cancel() else following.result()
