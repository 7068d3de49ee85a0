"""The promotion of one stream: step after step, each decided from what is seen, journalled, and safe to repeat.

What is before the point of no return holds only as long as this run's session does (its locks), so a later run takes it
again. What is behind it, the journal remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from embassy.model.errors import ApprovalError, EmbassyError, IntegrityError, RefusedError, StaleError
from embassy.pg import promotion_store
from embassy.pg.connection import place_of
from embassy.pg.lost_session import transient
from embassy.pg.promotion_obstacles import obstacles
from embassy.pg.promotion_store import JournalledStep
from embassy.pg.setup_errors import explained
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.runtime.failpoints import failpoint
from failover.approach import Approach
from failover.opening import open_up, prepare_reverse, raise_epoch, set_sequences, smoke_write
from failover.promotion import (
    NO_RETURN,
    Action,
    Finished,
    Refuse,
    Seen,
    Step,
    Why,
    before_no_return,
    decide,
)
from failover.replica import Replica
from failover.wish import Ports, Wish

_REFUSALS: Mapping[Why, type[EmbassyError]] = {
    Why.APPROVAL: ApprovalError,
    Why.STALE: StaleError,
    Why.GATE: RefusedError,
    Why.INTEGRITY: IntegrityError,
}


class StreamPromotion:
    """Runs a plan's part about one stream; enter it, `go_on`, or `prepare` and `finish`."""

    def __init__(self, wish: Wish, ports: Ports) -> None:
        self.name = wish.planned.name
        self.place = place_of(ports.dsn)
        self._wish = wish
        self._ports = ports
        self._replica = Replica(ports.dsn, wish.planned.stream)
        self._approach = Approach(self._replica, wish, ports)
        self._done: set[Step] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._approach.close()
        self._replica.close()

    def go_on(self) -> Mapping[str, Any] | None:
        """Go on to the end if a run of the plan has passed the point of no return; None: it is still to be passed.

        Raises:
            EmbassyError: as `prepare`.
        """
        with transient(self.place), explained(self.place):
            promotion_store.require(self._replica.connection, self.place)
            journal = promotion_store.journal(self._replica.connection, self._wish.nonce)
        return self.finish() if has_raised(journal) else None

    def prepare(self) -> None:
        """Take every step before the point of no return.

        Raises:
            RefusedError: the plan must not be run, as things are.
            StepError: a step failed; run the plan again.
            TransientError: the replica or the cluster is unreachable.
            IntegrityError: the stream or the replica is in doubt.
        """
        self._advance(before_no_return)

    def finish(self) -> Mapping[str, Any]:
        """Pass the point of no return and go on to the end; returns what the report says of the stream.

        Raises:
            EmbassyError: as `prepare`.
        """
        self._advance(lambda _step: True)
        return self.summary()

    def summary(self) -> Mapping[str, Any]:
        """What the journal says of a plan that has passed the point of no return."""
        journal = promotion_store.journal(self._replica.connection, self._wish.nonce)
        results = {step: entry.result for step, entry in journal.items()}
        seconds = {
            step: round((entry.done_at - entry.intent_at).total_seconds(), 3)
            for step, entry in journal.items()
            if entry.done_at is not None
        }
        begun = promotion_store.find_plan(self._replica.connection, self._wish.nonce)
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
            "opened": _facts({**results.get(Step.SEQUENCES, {}), **results.get(Step.OPEN, {})}),
            "home_fenced_at": results.get(Step.FENCE_HOME, {}).get("fenced_at"),
            "reverse": _facts(results.get(Step.REVERSE, {})),
            "smoke_write_at": results.get(Step.SMOKE, {}).get("written_at"),
            "step_seconds": seconds,
            "seconds": round((ended - begun.begun_at).total_seconds(), 3),
        }

    def _advance(self, wanted: Callable[[Step], bool]) -> None:
        with transient(self.place), explained(self.place):
            promotion_store.require(self._replica.connection, self.place)
            while True:
                action = self._decide()
                if isinstance(action, Finished):
                    return
                if isinstance(action, Refuse):
                    raise _REFUSALS[action.why](action.reason, place=self.name, hint=action.hint)
                if not wanted(action.step):
                    return
                self._take(action.step)

    def _decide(self) -> Action:
        connection, wish = self._replica.connection, self._wish
        progress = self._replica.progress()
        begun = promotion_store.find_plan(connection, wish.nonce)
        journal = promotion_store.journal(connection, wish.nonce)
        raised = has_raised(journal)
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
                    self._replica.stream,
                    roles=wish.application_roles,
                    accept_undrained=wish.waivers.undrained,
                    accept_differences=wish.waivers.differences,
                    accept_incomplete=wish.waivers.incomplete,
                )
            ),
        )
        return decide(wish.terms, seen)

    def _take(self, step: Step) -> None:
        nonce, connection = self._wish.nonce, self._replica.connection
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
        approach, replica, wish = self._approach, self._replica, self._wish
        takers: Mapping[Step, Callable[[], Mapping[str, Any]]] = {
            Step.FENCE_HOME: approach.await_home,
            Step.DRAIN: approach.drain,
            Step.SEAL: approach.seal,
            Step.VERIFY: approach.verify,
            Step.EPOCH: lambda: raise_epoch(replica, wish, approach.sealed),
            Step.SEQUENCES: lambda: set_sequences(replica, wish),
            Step.REVERSE: lambda: prepare_reverse(replica, wish, self._ports),
            Step.OPEN: lambda: open_up(replica, wish, self._ports),
            Step.SMOKE: lambda: smoke_write(replica, wish),
            Step.REPORT: self._end,
        }
        # What lock and gate are about, `_lock` and `decide` have done.
        return takers[step]() if step in takers else {}

    def _end(self) -> Mapping[str, Any]:
        promotion_store.end(self._replica.connection, self._wish.nonce, "promoted")
        return {}

    def _lock(self) -> None:
        if not PROMOTION_LOCK.try_take(self._replica.connection, self._replica.stream):
            raise StaleError(
                "another run promotes this stream at this moment",
                place=self.name,
                hint="look at embassy promote status; run the plan again if that run has died",
            )
        planned = self._wish.planned
        promotion_store.begin(
            self._replica.connection,
            nonce=self._wish.nonce,
            stream=self._replica.stream,
            epochs=(planned.from_epoch, planned.to_epoch),
            document=self._wish.document,
        )


def has_raised(journal: Mapping[str, JournalledStep]) -> bool:
    """Whether the plan whose journal it is has passed its point of no return in that replica."""
    return NO_RETURN in journal and journal[NO_RETURN].done_at is not None


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "words"}
