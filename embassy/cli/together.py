"""The same work for several registries at a time: one that fails does not keep the others from going on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

import click

from embassy.model.errors import EmbassyError
from embassy.runtime.exit_codes import ExitCode, exit_code, worst


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


class Failure(NamedTuple):
    """A registry that could not go on, and why."""

    name: str
    error: EmbassyError


def words_of(failures: Iterable[Failure]) -> dict[str, str]:
    """For scripts: why each registry that failed did."""
    return {failure.name: str(failure.error) for failure in failures}


def reasons_of(failures: Iterable[Failure]) -> dict[str, str]:
    """For the audit log: the same without the place and the way out."""
    return {failure.name: str(failure.error.args[0]) for failure in failures}


def worst_of(failures: Iterable[Failure]) -> ExitCode:
    """What a command ends with whose registries failed like this; OK if none did."""
    return worst(frozenset(exit_code(failure.error) for failure in failures))


def tell_failures(failures: Iterable[Failure]) -> None:
    """Say on standard error which failed, and why, a line each."""
    for failure in failures:
        click.echo(f"error: {failure.name}: {failure.error}", err=True)


@contextmanager
def goes_on() -> Iterator[None]:
    """Say, if Ctrl-C ends what is inside, that the same command goes on where it was."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("hint: the same command goes on where it was", err=True)
        raise


def each(items: Iterable[T], work: Callable[[T], None], *, at_once: int, what: str) -> list[Failure]:
    """Do the work for each, so many at once; returns those that failed, by their names.

    Args:
        items: one for each registry.
        work: for one of them; called in a thread.
        at_once: how many threads.
        what: names the threads.
    """
    failures: list[Failure] = []

    def guarded(item: T) -> None:
        try:
            work(item)
        except EmbassyError as error:
            failures.append(Failure(item.name, error))

    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=what) as pool:
        try:
            for future in [pool.submit(guarded, item) for item in items]:
                future.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            click.echo("waiting for what is under way to end; Ctrl-C once more does not wait", err=True)
            raise
    return sorted(failures, key=lambda failure: failure.name)
