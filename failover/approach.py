"""The steps of a promotion before its point of no return: everything is brought in, kept still, and looked at.

They hold only as long as their session does (its lease), so each run takes them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from embassy.model.errors import RefusedError, StepError
from embassy.pg import promotion_store, verify_store
from embassy.pg.catalog import brief
from embassy.pg.constraint_checks import check_constraints
from embassy.pg.progress_store import Progress
from embassy.pg.promotion_obstacles import is_frozen, not_whole
from embassy.pg.stream_lock import CONSUMER_LEASE
from failover.drain import Left, Reach
from failover.loss import CLOCK_ERROR_SECONDS, Loss, loss
from failover.promotion import Mode, Step
from failover.replica import Replica
from failover.sealing import seal
from failover.waiting import Waiting
from failover.wish import Ports, Wish

_SEAL_SECONDS = 20.0
_FENCE_POLL_SECONDS = 0.05


class Approach:
    """One run's way to the point of no return; `close` it."""

    def __init__(self, replica: Replica, wish: Wish, ports: Ports) -> None:
        self.name = wish.planned.name
        self._replica = replica
        self._wish = wish
        self._ports = ports
        self._reached: Reach | None = None
        self._sealed: Progress | None = None
        self._closing = ExitStack()

    @property
    def sealed(self) -> Progress:
        """Where the replica stands still, once `seal` was taken."""
        assert self._sealed is not None, "sealing comes before"
        return self._sealed

    def close(self) -> None:
        """Let go of the log."""
        self._closing.close()

    def await_home(self) -> Mapping[str, Any]:
        """Wait for what home says last in the stream: that nobody writes there any more, for this very plan."""
        deadline = self._ports.clock() + self._wish.drain_seconds
        waiting = Waiting(self._ports.clock, lambda words: self._ports.tell(Step.FENCE_HOME, words))
        with self._ports.applying() as applying:
            while (
                fenced_at := promotion_store.home_fenced_at(self._replica.connection, self._wish.nonce)
            ) is None:
                failure = applying.failure()
                if failure is not None or self._ports.clock() > deadline:
                    raise RefusedError(
                        "home has not said in the stream that it lets nobody write for this plan"
                        + (f": {failure}" if failure is not None else ""),
                        place=self.name,
                        hint="at the site that has the registry now: embassy home fence PLAN; then run this again",
                    )
                waiting.on(lambda: "waiting for home's word in the stream that nobody writes there any more")
                self._ports.pause(_FENCE_POLL_SECONDS)
        return {"fenced_at": fenced_at.isoformat(), "words": f"nobody writes at home since {fenced_at:%H:%M:%S}Z"}

    def drain(self) -> Mapping[str, Any]:
        """Apply everything that reached the foreign cluster."""
        if self._wish.waivers.undrained and is_frozen(self._replica.connection, self._replica.stream):
            return {"words": "the stream is frozen, and the plan promotes it where it stands"}
        drained = self._reach.drain()
        return {"words": drained.words, "applied_records": drained.records}

    def seal(self) -> Mapping[str, Any]:
        """Keep every consumer out, and look once more whether something has come meanwhile."""
        progress, left = seal(
            self.name,
            _ConsumerLease(self._replica, self.name),
            self._reach,
            self._replica.progress,
            accept_undrained=self._wish.waivers.undrained,
            may_leave_behind=self._wish.terms.mode is Mode.DISASTER,
            clock=self._ports.clock,
        )
        self._sealed = progress
        sealed_at = promotion_store.local_now(self._replica.connection)
        lost = self._lost(progress, sealed_at.timestamp())
        return {
            "sequence": progress.head.sequence,
            "last_lsn": str(progress.head.resume_lsn),
            "last_commit_at": _instant(progress.committed_at / 1e6) if progress.committed_at else None,
            "sealed_at": _instant(sealed_at.timestamp()),
            "loss_seconds_upper_bound": lost.seconds if lost else 0.0,
            "clock_error_seconds": CLOCK_ERROR_SECONDS if lost else 0,
            "home_clock_ahead_seconds": lost.home_ahead_seconds if lost else 0.0,
            "records_left_behind": left.records,
            "transactions_incomplete": left.transactions_open,
            "record_missing": left.missing,
            "words": f"at record {progress.head.sequence}, {progress.head.resume_lsn}; "
            + (lost.words if lost else "nothing is lost")
            + _left_behind(left),
        }

    def verify(self) -> Mapping[str, Any]:
        """Check by query what applying has bypassed."""
        found = check_constraints(self._replica.connection)
        compared = verify_store.summary(self._replica.connection, self._replica.stream)
        lacking, _ = not_whole(self._replica.connection)
        if found.violations and not self._wish.waivers.violations:
            listed = ", ".join(f"{v.constraint} of {v.table}: {v.rows} rows" for v in found.violations[:5])
            raise RefusedError(
                f"rows break constraints: {listed}",
                place=self.name,
                hint="mend them (embassy repair), or make a plan with --accept-violations",
            )
        return {
            "constraints": found.constraints,
            "violations": [violation._asdict() for violation in found.violations],
            "last_found_equal_at": None if (alike := compared.succeeded_at) is None else _instant(alike),
            "rows_known_to_differ": {kind: compared.rows.get(kind, 0) for kind in verify_store.DIFFERENCES},
            "tables_incomplete": lacking,
            "words": (
                f"{found.constraints} constraints hold"
                if not found.violations
                else f"{len(found.violations)} of {found.constraints} constraints are broken, as accepted"
            )
            + (f"; tables without all their rows, as accepted: {brief(lacking)}" if lacking else ""),
        }

    def _lost(self, progress: Progress, sealed_at: float) -> Loss | None:
        """For how long before the sealing home may have committed what is not here; None: nothing is lost."""
        wish = self._wish
        if wish.terms.mode is Mode.SWITCHOVER:
            return None
        found = loss(progress, sealed_at)
        if found is None:
            raise RefusedError(
                "it is not known how much would be lost: the replica has applied no transaction yet",
                place=self.name,
                hint="a replica that never followed cannot be promoted",
            )
        if wish.accept_loss_seconds is None or found.seconds > wish.accept_loss_seconds:
            raise RefusedError(
                f"up to {found.seconds:.0f} s of home's commits would be lost, and the plan accepts "
                f"{wish.accept_loss_seconds or 0} s",
                place=self.name,
                hint="make a new plan with a larger --accept-loss, and have it approved",
            )
        return found

    @property
    def _reach(self) -> Reach:
        if self._reached is None:
            log = self._closing.enter_context(self._ports.log())
            self._reached = Reach(
                self.name,
                log=log,
                signers=self._ports.signers,
                progress=self._replica.progress,
                applying=self._ports.applying,
                stall_seconds=self._wish.drain_seconds,
                accept_undrained=self._wish.waivers.undrained,
                clock=self._ports.clock,
                pause=self._ports.pause,
                tell=lambda words: self._ports.tell(Step.DRAIN, words),
            )
        return self._reached


class _ConsumerLease:
    """The consumer's lease of a replica, for the session that promotes it."""

    def __init__(self, replica: Replica, name: str) -> None:
        self._replica = replica
        self._name = name

    def take(self) -> None:
        connection, stream = self._replica.connection, self._replica.stream
        if not CONSUMER_LEASE.take_over(connection, stream, _SEAL_SECONDS):
            raise StepError(
                f"the consumer's lease did not come within {_SEAL_SECONDS:g} s: "
                f"{CONSUMER_LEASE.in_whose_hands(connection, stream)} has it",
                place=self._name,
                hint="stop the consumer, then run the plan again",
            )

    def release(self) -> None:
        CONSUMER_LEASE.release(self._replica.connection, self._replica.stream)


def _left_behind(left: Left) -> str:
    if left.level:
        return ""
    if left.records is None:
        return "; whatever the embassy's log has beyond that is left behind, and cannot be read"
    return f"; {left.records} records of the log are left behind"


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
