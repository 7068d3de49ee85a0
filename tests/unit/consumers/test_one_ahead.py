"""What is made ahead comes once each, in order, with its failure in its place, and never two at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.one_ahead import one_ahead


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


class _Making:
    """Makes numbers, fails at one of them, and notes whether two were made at a time."""

    def __init__(self, upto: int, fails_at: int = -1) -> None:
        self.made = 0
        self.together = False
        self._upto, self._fails_at = upto, fails_at
        self._alone = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        for number in range(self._upto):
            self.together |= not self._alone.acquire(blocking=False)
            self.made += 1
            self._alone.release()
            if number == self._fails_at:
                raise RuntimeError(number)
            yield number


@given(upto=st.integers(0, 50), leave_at=st.integers(0, 60), fails_at=st.integers(-1, 50))
def test_all_come_in_order_until_one_fails_or_who_takes_them_leaves(
    executor: Executor, upto: int, leave_at: int, fails_at: int
) -> None:
    making = _Making(upto, fails_at)
    taken: list[int] = []
    failed = False
    with closing(one_ahead(executor, iter(making))) as numbers:
        try:
            for number in numbers:
                if number == leave_at:
                    break
                taken.append(number)
        except RuntimeError:
            failed = True
    first_fault = fails_at if 0 <= fails_at < upto else upto
    assert taken == list(range(min(upto, leave_at, first_fault)))
    assert failed == (first_fault < upto and first_fault <= leave_at)
    assert not making.together
    made = making.made
    assert made <= len(taken) + 2, "one, and the one that was in use"
    executor.submit(int).result()
    assert making.made == made, "nothing is made once it is left"


def test_what_is_made_meanwhile_is_there_when_it_is_wanted(executor: Executor) -> None:
    made = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    with closing(one_ahead(executor, numbers())) as taken:
        assert next(taken) == 1
        assert made.wait(10), "by another thread"
        assert next(taken) == 2


def test_a_busy_executor_delays_nobody() -> None:
    free = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(free.wait)
        assert list(one_ahead(threads, iter(range(5)))) == list(range(5))
        free.set()
