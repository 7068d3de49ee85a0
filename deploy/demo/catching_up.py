"""Waiting until the replicas show all that is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import psycopg

from deploy.demo.registry_run import RegistryRun
from deploy.lab.waiting import Patience

HOPELESS_SECONDS = 10.0
"""A stream that a role gave up may yet go on, if the role is started again meanwhile; waited for no longer than this."""


def await_replicas(
    runs: Iterable[RegistryRun],
    limit_seconds: float,
    patience: Patience,
    is_hopeless: Callable[[RegistryRun], bool],
) -> list[tuple[RegistryRun, str]]:
    """Wait until every replica shows all that was committed before the call; return those that do not.

    Args:
        runs: whose replicas.
        limit_seconds: how long at most.
        patience: how.
        is_hopeless: whether waiting for a registry makes no sense; then the wait is short.
    """
    moments = {run.name: _present(run) for run in runs}
    missing = [(run, embassy) for run in runs for embassy in run.embassies]
    hopeless_at: float | None = None
    for left in patience.looks(limit_seconds):
        missing = [(run, embassy) for run, embassy in missing if not _shows(run, embassy, moments[run.name])]
        if not missing:
            break
        if not all(moments[run.name] is None or is_hopeless(run) for run, _ in missing):
            hopeless_at = None
        elif hopeless_at is None:
            hopeless_at = left
        elif hopeless_at - left > HOPELESS_SECONDS:
            break
    return missing


def _present(run: RegistryRun) -> datetime | None:
    try:
        return run.now()
    except psycopg.Error:
        return None


def _shows(run: RegistryRun, embassy: str, moment: datetime | None) -> bool:
    return moment is not None and run.shows(embassy, moment)
