"""Asking many places at a time, and none of them for ever.

A server that is stopped, or whose disk hangs, keeps its connections and answers nothing; no timeout that it keeps itself
helps. Such a question is given up and not asked again before it has come to an end; the others' answers are there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from embassy.model.errors import EmbassyError, TransientError

T = TypeVar("T")


class Questions:
    """Asked again and again, by one thread."""

    def __init__(self, *, at_once: int, seconds: float) -> None:
        """Ask nothing yet.

        Args:
            at_once: how many are asked at a time.
            seconds: how long all of them are waited for, together.
        """
        self._at_once = at_once
        self._seconds = seconds
        self._pool = self._fresh_pool()
        self._unanswered: dict[Hashable, Future[Any]] = {}

    def close(self) -> None:
        """Wait for nothing more; a question without an answer keeps its thread until the process ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, questions: Mapping[Hashable, Callable[[], T]]) -> dict[Hashable, T | EmbassyError]:
        """Ask all of them; what is not answered in time, or not with a value, is an error.

        Raises:
            Exception: whatever a question raises that is no error of the product's.
        """
        self._unanswered = {key: future for key, future in self._unanswered.items() if not future.done()}
        futures = {
            key: self._unanswered.get(key) or self._pool.submit(question) for key, question in questions.items()
        }
        asked = [future for key, future in futures.items() if key not in self._unanswered]
        late = wait(asked, self._seconds).not_done
        if late:
            hanging = {key: future for key, future in futures.items() if future in late and not future.cancel()}
            self._unanswered.update(hanging)
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = self._fresh_pool()  # those that hang do not count among those at a time
        return {key: self._answer(future, given_up=key in self._unanswered) for key, future in futures.items()}

    def _answer(self, future: Future[T], *, given_up: bool) -> T | EmbassyError:
        if given_up or future.cancelled():
            return TransientError(
                f"no answer within {self._seconds:g} s"
                if given_up
                else "not asked: others did not answer in time",
                hint="the server keeps the connection and does not answer: is it stopped, does its disk hang?",
            )
        try:
            return future.result()
        except EmbassyError as error:
            return error

    def _fresh_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._at_once, thread_name_prefix="look")
