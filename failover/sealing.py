"""Keeping a replica still, with all that had arrived when that was begun.

A home that is not lost writes on, and nobody abroad can stop it: while the replica is sealed, more arrives. So the log is
drained again for a while, which takes in what was under way; then a line is drawn. What comes behind it is what home may
commit at any moment after a sealing: it counts as lost, within the bound that the plan accepts, and home has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from embassy.model.errors import StepError
from embassy.pg.progress_store import Progress
from failover.drain import PATIENCE_SECONDS, Left, Reach


class Lease(Protocol):
    """What whoever applies to the replica must have."""

    def take(self) -> None:
        """Take it from whoever has it.

        Raises:
            StepError: it did not come.
        """

    def release(self) -> None:
        """Give it back."""


class Sealed(NamedTuple):
    """A replica to which nobody applies any more."""

    progress: Progress
    left: Left
    """What stood in the log then and is not in the replica."""


def seal(
    name: str,
    lease: Lease,
    reach: Reach,
    progress: Callable[[], Progress],
    *,
    accept_undrained: bool,
    may_leave_behind: bool,
    clock: Callable[[], float],
) -> Sealed:
    """Take the lease for good, with a replica that was drained before.

    What comes without end is left behind where that is allowed; else it is an error.

    Raises:
        StepError: records keep coming, and none may be left behind.
        RefusedError: what came meanwhile cannot be applied, and the plan does not accept that.
        TransientError: the cluster is unreachable.
    """
    began, drawn = clock(), False
    while True:
        lease.take()
        reached = progress()
        left = reach.left(reached)
        if left.level or accept_undrained or (drawn and may_leave_behind):
            return Sealed(reached, left)
        if drawn:
            break
        lease.release()
        drawn = clock() - began >= PATIENCE_SECONDS
        reach.drain()
    raise StepError(
        "records keep coming, although home has said that nobody writes there any more",
        place=name,
        hint="find out who does: embassy status at home, and embassy events tail; then run the plan again",
    )
