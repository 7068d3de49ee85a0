"""The promotion of one stream: step after step, each decided from what is seen, journalled, and safe to repeat.

What is before the point of no return holds only as long as this run's session does (its locks), so a later run takes it
again. What is behind it, the journal remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import psycopg

from embassy.model.errors import ApprovalError, EmbassyError, IntegrityError, RefusedError, StaleError, StepError
from embassy.model.record import SealedRecord
from embassy.pg import lease, progress_store, promotion_store, replica_opening
from embassy.pg.connection import connect, place_of
from embassy.pg.constraint_checks import check_constraints
from embassy.pg.lost_session import transient
from embassy.pg.progress_store import Progress
from embassy.pg.promotion_obstacles import is_frozen, obstacles
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.runtime.failpoints import failpoint
from embassy.wire.head_search import Log
from embassy.wire.promotion_plan import PlannedStream, Waivers
from failover.drain import Applying, Reach
from failover.promotion import (
    NO_RETURN,
    Action,
    Finished,
    Mode,
    Refuse,
    Seen,
    Step,
    Terms,
    Why,
    before_no_return,
    decide,
)

_APPLICATION = "embassy-promote"
_SEAL_SECONDS = 20.0
_SEAL_ATTEMPTS = 5
_FENCE_POLL_SECONDS = 0.05
CLOCK_ERROR_SECONDS = 1.0
"""How far the clocks of two sites are trusted to agree."""

_REFUSALS: Mapping[Why, type[EmbassyError]] = {
    Why.APPROVAL: ApprovalError,
    Why.STALE: StaleError,
    Why.GATE: RefusedError,
    Why.INTEGRITY: IntegrityError,
}


class Wish(NamedTuple):
    """What is to be promoted, and on whose word."""

    planned: PlannedStream
    nonce: bytes
    document: str
    """The plan with its approvals, for the journal."""
    terms: Terms
    persons: frozenset[str]
    accept_loss_seconds: int | None
    waivers: Waivers
    application_roles: tuple[str, ...]
    sequence_headroom: int
    drain_seconds: float


class Ports(NamedTuple):
    """What a promotion reaches out to."""

    dsn: str
    log: Callable[[], AbstractContextManager[Log]]
    """Opens the stream's topic in the embassy's cluster."""
    verified: Callable[[SealedRecord], int]
    applying: Callable[[], AbstractContextManager[Applying]]
    let_in: Callable[[psycopg.Connection[Any]], None]
    """Lets the application's roles log in; ten registries of one server share them."""
    tell: Callable[[Step, str], None]
    """Told of each step as it begins, and of what it found."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    pause: Callable[[float], None]


class StreamPromotion:
    """Runs a plan's part about one stream; enter it, `prepare`, `finish`."""

    def __init__(self, wish: Wish, ports: Ports) -> None:
        self.name = wish.planned.name
        self._wish = wish
        self._ports = ports
        self._stream = wish.planned.stream
        self.place = place_of(ports.dsn)
        self._done: set[Step] = set()
        self._session: psycopg.Connection[Any] | None = None
        self._sealed: Progress | None = None
        self._reached: Reach | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.close()
        if self._session is not None:
            self._session.close()  # and with it go its locks

    def prepare(self) -> bool:
        """Take every step before the point of no return; returns whether it is still to be passed.

        Raises:
            RefusedError: the plan must not be run, as things are.
            StepError: a step failed; run the plan again.
            TransientError: the replica or the cluster is unreachable.
            IntegrityError: the stream or the replica is in doubt.
        """
        return self._advance(before_no_return)

    def finish(self) -> Mapping[str, Any]:
        """Pass the point of no return and go on to the end; returns what the report says of the stream.

        Raises:
            EmbassyError: as `prepare`.
        """
        self._advance(lambda _step: True)
        return self.summary()

    def summary(self) -> Mapping[str, Any]:
        """What the journal says of a plan that has passed the point of no return."""
        journal = promotion_store.journal(self._connection, self._wish.nonce)
        results = {step: entry.result for step, entry in journal.items()}
        seconds = {
            step: round((entry.done_at - entry.intent_at).total_seconds(), 3)
            for step, entry in journal.items()
            if entry.done_at is not None
        }
        begun = promotion_store.find_plan(self._connection, self._wish.nonce)
        if begun is None:
            raise RefusedError("this plan was never begun", place=self.name, hint="embassy promote run runs it")
        ended = max(entry.done_at for entry in journal.values() if entry.done_at is not None)
        planned = self._wish.planned
        return {
            "name": planned.name,
            "stream": planned.stream.hex(),
            "from_epoch": planned.from_epoch,
            "to_epoch": planned.to_epoch,
            **_facts(results.get(Step.SEAL, {})),
            "verified": _facts(results.get(Step.VERIFY, {})),
            "opened": _facts(results.get(Step.OPEN, {})),
            "smoke_write_at": results.get(Step.SMOKE, {}).get("written_at"),
            "step_seconds": seconds,
            "seconds": round((ended - begun.begun_at).total_seconds(), 3),
        }

    @property
    def _connection(self) -> psycopg.Connection[Any]:
        if self._session is None:
            self._session = connect(
                self._ports.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS
            )
        return self._session

    def _advance(self, wanted: Callable[[Step], bool]) -> bool:
        with transient(self.place), explained(self.place):
            promotion_store.require(self._connection, self.place)
            while True:
                action = self._decide()
                if isinstance(action, Finished):
                    return False
                if isinstance(action, Refuse):
                    raise _REFUSALS[action.why](action.reason, place=self.name, hint=action.hint)
                if not wanted(action.step):
                    return True
                self._take(action.step)

    def _decide(self) -> Action:
        connection, wish = self._connection, self._wish
        progress = self._progress()
        begun = promotion_store.find_plan(connection, wish.nonce)
        journal = promotion_store.journal(connection, wish.nonce)
        raised = NO_RETURN in journal and journal[NO_RETURN].done_at is not None
        done = set(self._done)
        if raised:
            done |= {step for step in Step if before_no_return(step)}
            done |= {Step(name) for name, entry in journal.items() if entry.done_at is not None}
            if Step.LOCK not in self._done:
                done.discard(Step.LOCK)  # two runs must not open it at once
        seen = Seen(
            now=promotion_store.local_now(connection).timestamp(),
            epoch=progress.head.epoch,
            sequence=progress.head.sequence,
            persons=wish.persons,
            used_up=begun is not None and begun.outcome in ("aborted", "replaced"),
            raised_by_plan=raised,
            done=frozenset(done),
            obstacles=()
            if raised
            else tuple(
                obstacles(
                    connection,
                    self._stream,
                    roles=wish.application_roles,
                    accept_undrained=wish.waivers.undrained,
                )
            ),
        )
        return decide(wish.terms, seen)

    def _take(self, step: Step) -> None:
        nonce, connection = self._wish.nonce, self._connection
        self._ports.tell(step, "")
        window = step.name.lower()
        if step is Step.LOCK:
            self._lock()
        if step is not Step.LOCK or step not in promotion_store.journal(connection, nonce):
            promotion_store.intend(connection, nonce, step, again=before_no_return(step))
        failpoint(f"promotion.before_{window}")
        result = self._take_one(step)
        failpoint(f"promotion.after_{window}")
        if step is not NO_RETURN:  # that one is journalled in the transaction that raises the epoch
            promotion_store.note_done(connection, nonce, step, result)
        self._done.add(step)
        if "words" in result:
            self._ports.tell(step, str(result["words"]))

    def _take_one(self, step: Step) -> Mapping[str, Any]:
        takers: Mapping[Step, Callable[[], Mapping[str, Any]]] = {
            Step.FENCE_HOME: self._await_home,
            Step.DRAIN: self._drain,
            Step.SEAL: self._seal,
            Step.VERIFY: self._verify,
            Step.EPOCH: self._raise_epoch,
            Step.OPEN: self._open,
            Step.SMOKE: self._smoke,
            Step.REPORT: self._end,
        }
        # What lock and gate are about, `_lock` and `decide` have done.
        return takers[step]() if step in takers else {}

    def _end(self) -> Mapping[str, Any]:
        promotion_store.end(self._connection, self._wish.nonce, "promoted")
        return {}

    def _lock(self) -> None:
        if not promotion_store.try_lock(self._connection, self._stream):
            raise StaleError(
                "another run promotes this stream at this moment",
                place=self.name,
                hint="look at embassy promote status; run the plan again if that run has died",
            )
        planned = self._wish.planned
        promotion_store.begin(
            self._connection,
            nonce=self._wish.nonce,
            stream=self._stream,
            epochs=(planned.from_epoch, planned.to_epoch),
            document=self._wish.document,
        )

    def _drain(self) -> Mapping[str, Any]:
        if self._wish.waivers.undrained and is_frozen(self._connection, self._stream):
            return {"words": "the stream is frozen, and the plan promotes it where it stands"}
        drained = self._reach.drain()
        return {"words": drained.words, "applied_records": drained.records}

    def _seal(self) -> Mapping[str, Any]:
        """Keep every consumer out, and look once more whether something has come meanwhile."""
        wish, connection = self._wish, self._connection
        for _ in range(_SEAL_ATTEMPTS):
            if not lease.take_over(connection, self._stream, _SEAL_SECONDS):
                raise StepError(
                    f"the consumer's lease did not come within {_SEAL_SECONDS:g} s: "
                    f"{lease.holder(connection, self._stream)} has it",
                    place=self.name,
                    hint="stop the consumer, then run the plan again",
                )
            progress = self._progress()
            left = self._reach.left(progress)
            if left.level or wish.waivers.undrained:
                break
            lease.release(connection, self._stream)
            self._reach.drain()
        else:
            raise StepError(
                "records keep coming while the replica is sealed",
                place=self.name,
                hint="home still ships: cut the bridge, then run the plan again",
            )
        self._sealed = progress
        sealed_at = promotion_store.local_now(connection)
        bound = self._loss_bound(progress, sealed_at.timestamp())
        return {
            "sequence": progress.head.sequence,
            "last_lsn": str(progress.head.resume_lsn),
            "last_commit_at": _instant(progress.committed_at / 1e6) if progress.committed_at else None,
            "sealed_at": _instant(sealed_at.timestamp()),
            "loss_seconds_upper_bound": bound,
            "clock_error_seconds": CLOCK_ERROR_SECONDS if bound else 0,
            "records_left_behind": left.records,
            "transactions_incomplete": left.transactions_open,
            "record_missing": left.missing,
            "words": f"at record {progress.head.sequence}, {progress.head.resume_lsn}; "
            + (f"at most {bound:.1f} s of home's commits are lost" if bound else "nothing is lost"),
        }

    def _loss_bound(self, progress: Progress, sealed_at: float) -> float:
        """How long before the sealing home may have committed what is not here, in seconds."""
        wish = self._wish
        if wish.terms.mode is Mode.SWITCHOVER:
            return 0.0
        if not progress.committed_at:
            raise RefusedError(
                "it is not known how much would be lost: the replica has applied no transaction yet",
                place=self.name,
                hint="a replica that never followed cannot be promoted",
            )
        bound = round(max(0.0, sealed_at - progress.committed_at / 1e6) + CLOCK_ERROR_SECONDS, 3)
        if wish.accept_loss_seconds is None or bound > wish.accept_loss_seconds:
            raise RefusedError(
                f"up to {bound:.0f} s of home's commits would be lost, and the plan accepts "
                f"{wish.accept_loss_seconds or 0} s",
                place=self.name,
                hint="make a new plan with a larger --accept-loss, and have it approved",
            )
        return bound

    def _verify(self) -> Mapping[str, Any]:
        found = check_constraints(self._connection)
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
            "unchecked": list(found.unchecked),
            "words": f"{found.constraints} constraints hold"
            if not found.violations
            else f"{len(found.violations)} of {found.constraints} constraints are broken, as accepted",
        }

    def _raise_epoch(self) -> Mapping[str, Any]:
        planned = self._wish.planned
        assert self._sealed is not None, "sealing comes before"
        raised = promotion_store.raise_epoch(
            self._connection,
            nonce=self._wish.nonce,
            stream=self._stream,
            sealed=self._sealed.head,
            to_epoch=planned.to_epoch,
            step=NO_RETURN,
        )
        if not raised:
            raise StaleError(
                "the replica or the plan is no longer as it was sealed; the epoch was not raised",
                place=self.name,
                hint="look at embassy promote status, then run the plan again",
            )
        return {"words": f"{planned.from_epoch}→{planned.to_epoch}"}

    def _open(self) -> Mapping[str, Any]:
        connection = self._connection
        try:
            sequences = replica_opening.set_sequences(connection, self._wish.sequence_headroom)
            triggers = replica_opening.enable_triggers(connection)
            guards = replica_opening.drop_guards(connection)
            self._ports.let_in(connection)
        except psycopg.errors.LockNotAvailable as error:
            raise StepError(
                "a reader holds a table, so that its guard cannot be taken away",
                place=self.name,
                hint="end long sessions (pg_stat_activity), then run the plan again: it goes on here",
            ) from error
        return {
            "sequences": [sequence._asdict() for sequence in sequences],
            "triggers": triggers,
            "guards": guards,
            "roles": list(self._wish.application_roles),
            "words": f"{len(sequences)} sequences set, {triggers} triggers enabled, {guards} guards dropped",
        }

    def _smoke(self) -> Mapping[str, Any]:
        left = replica_opening.guarded(self._connection)
        if left:
            raise StepError(
                f"{len(left)} tables have their guard back",
                place=self.name,
                hint="somebody has provisioned the replica meanwhile; run the plan again",
            )
        return {"written_at": promotion_store.smoke_write(self._connection, self._wish.nonce).isoformat()}

    def _await_home(self) -> Mapping[str, Any]:
        """Wait for what home says last in the stream: that nobody writes there any more, for this very plan."""
        deadline = self._ports.clock() + self._wish.drain_seconds
        with self._ports.applying() as applying:
            while (fenced_at := promotion_store.home_fenced_at(self._connection, self._wish.nonce)) is None:
                failure = applying.failure()
                if failure is not None or self._ports.clock() > deadline:
                    raise RefusedError(
                        "home has not said in the stream that it lets nobody write for this plan"
                        + (f": {failure}" if failure is not None else ""),
                        place=self.name,
                        hint="at home: embassy home fence PLAN; then run the plan again",
                    )
                self._ports.pause(_FENCE_POLL_SECONDS)
        return {"fenced_at": fenced_at.isoformat(), "words": f"nobody writes at home since {fenced_at:%H:%M:%S}Z"}

    def _progress(self) -> Progress:
        progress = progress_store.read(self._connection, self._stream)
        if progress is None:
            raise RefusedError(
                "the replica does not know this stream", place=self.place, hint="check streams.NAME.replica.dsn"
            )
        return progress

    @property
    def _reach(self) -> Reach:
        if self._reached is None:
            log = self._closing.enter_context(self._ports.log())
            self._reached = Reach(
                self.name,
                log=log,
                verified=self._ports.verified,
                progress=self._progress,
                applying=self._ports.applying,
                stall_seconds=self._wish.drain_seconds,
                accept_undrained=self._wish.waivers.undrained,
                clock=self._ports.clock,
                pause=self._ports.pause,
            )
        return self._reached


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "words"}


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
