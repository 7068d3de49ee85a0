"""Applies batches to the replica: fast if that works, exact if it does not.

*Fast:* wave by wave, in each wave deletes, then updates, then inserts, one statement a segment, behind a savepoint;
statements travel together, the INSERTs of a few rows too, and only COPY needs exchanges of its own. Each count must be
the segment's. *Exact:* whatever surprises there (a constraint that only the source's order satisfies, a count) rolls
back to the savepoint, and `consumers.replay` decides. Statements of DDL, first in their transaction, stand behind none:
all of it is rolled back.

The planner is told how to look for rows, segment by segment. What it would choose by itself, from statistics that are
stale or for a table that was small a moment ago, may compare each row with each. Where that leaves nothing to choose, a
plan is kept: making it takes as long as what a small transaction does with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consumers.chunk_writer import ChunkWriter
from consumers.ddl import commands, holds_ddl
from consumers.ddl_executor import DdlExecutor
from consumers.replay import Replay
from consumers.sql_builder import Access, copy, truncate
from consumers.targets import Targets
from consumers.text_rows import copy_blocks, segment_rows, text_array
from consumers.unfinished import Lacking, Unfinished, awaited
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.own_tables import HEARTBEAT
from embassy.model.relation import Relation
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed
from embassy.runtime.failpoints import CONSUMER_BEFORE_REPLAY, failpoint

_SAVEPOINT = Query("SAVEPOINT embassy_batch")
_RELEASE = Query("RELEASE SAVEPOINT embassy_batch")
_ROLLBACK_TO = Call(Query("ROLLBACK TO SAVEPOINT embassy_batch"))
_ROLLBACK = Call(Query("ROLLBACK"))

_SWITCHES = ("enable_nestloop", "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan")
_ON = {
    Access.BY_COLUMN: ("enable_nestloop",),
    Access.BY_KEY: ("enable_nestloop",),
    Access.BY_INDEX_AND_IMAGE: ("enable_nestloop", "enable_hashjoin"),
    Access.BY_SCAN: ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan"),
}
_PLANNER = {
    access: {
        **{switch: "on" if switch in switched_on else "off" for switch in _SWITCHES},
        "plan_cache_mode": "force_generic_plan" if access is Access.BY_COLUMN else "force_custom_plan",
    }
    for access, switched_on in _ON.items()
}

_FEW_ROWS = 8
"""A COPY costs two exchanges, and a row's INSERT a plan."""

SETTINGS = _PLANNER[Access.BY_KEY]
"""What the session must be opened with beside `ApplySession.settings`."""


class Surprise(Exception):  # noqa: N818 - not an error: the exact replay decides
    """The fast path did not do what it should."""


class NotAsSupposed(Exception):  # noqa: N818 - not an error: whoever supposed something asks instead
    """What was supposed about the replica is not so."""


class Applier:
    """Applies batches, in transactions that its caller ends."""

    def __init__(
        self, session: ApplySession, *, replayed: Callable[[str], None], pulse: Callable[[], None]
    ) -> None:
        """Take a session.

        Args:
            session: the replica's.
            replayed: told the reason when a batch is applied change by change.
            pulse: called now and then.
        """
        self._session = session
        self._targets = Targets(session)
        self._ddl = DdlExecutor(session)
        self._unfinished = Unfinished(session)
        self._chunks = ChunkWriter(session, self._targets, self._unfinished, self._planned_for)
        self._replayed = replayed
        self._pulse = pulse
        self._has_savepoint = False
        self._is_first = False
        self._access = Access.BY_KEY

    def begin(self) -> None:
        """Begin a transaction."""
        self._session.begin()
        self._unfinished.forget()
        self._has_savepoint = False
        self._is_first = True
        self._access = Access.BY_KEY

    def apply(self, batch: Batch) -> None:
        """Apply a batch, whole.

        Raises:
            IntegrityError: it cannot be applied.
            TransientError: the session ended, or the server asks to try later.
        """
        first, self._is_first = self._is_first, False
        if batch.chunk is not None:
            self._leave_savepoint()
            self._chunks.write(batch)
            return
        if not batch.segments:
            return
        self._leave_savepoint()
        if not (first and holds_ddl(batch)):  # behind a savepoint, a new type's new values cannot be used
            self._session.defer(_SAVEPOINT)
            self._has_savepoint = True
        access = self._access
        try:
            try:
                self._apply_fast(batch, *self._unfinished.supposed(batch))
            except NotAsSupposed:
                self._back_to_savepoint(access)
                self._apply_fast(batch, self._unfinished.at(batch))
        except (StatementFailed, Surprise) as surprise:
            reason = surprise.sqlstate if isinstance(surprise, StatementFailed) else str(surprise)
            self._back_to_savepoint(access)
            self._replayed(reason)
            failpoint(CONSUMER_BEFORE_REPLAY)
            self._targets.look_again()
            self._session.run(self._planned_for(Access.BY_KEY))
            unfinished = self._unfinished.at(batch)
            Replay(self._session, self._targets, self._ddl, batch, self._pulse, unfinished=unfinished).run()

    def at_once(self, batch: Batch) -> list[Call] | None:
        """The statements that apply a beat, as the first of a transaction, and fail unless they do what they should.

        So they can travel with what comes behind them, and need no savepoint: if they fail, nothing is done, and `apply`
        is the way. None: it is the way for this batch. No copy is waited for: none brings the product's own rows.

        Raises:
            IntegrityError: as for `apply`.
        """
        if len(batch.segments) != 1:
            return None
        (segment,) = batch.segments
        relation = batch.relations[segment.relation]
        if (relation.schema, relation.name) != HEARTBEAT or segment.operation is not Operation.UPDATE:
            return None
        found = self._targets.segment_query(relation, segment)
        if segment.superseded or found is None or found.access is not Access.BY_COLUMN:
            return None
        arrays = [text_array(column, segment.rows) for column in (*segment.values, *segment.old)]
        self.begin()
        return [*self._planned_for(found.access), Call(found.counted, [*arrays, segment.rows.to_bytes(8)])]

    def apply_exactly(self, batch: Batch, changes: range) -> None:
        """Apply some of a batch's changes, one by one in the source's order.

        Args:
            batch: the batch.
            changes: which of the entries of its ``order``.

        Raises:
            IntegrityError, TransientError: as for `apply`.
        """
        self._session.run(self._planned_for(Access.BY_KEY))
        unfinished = self._unfinished.at(batch)
        Replay(
            self._session, self._targets, self._ddl, batch, self._pulse, unfinished=unfinished, changes=changes
        ).run()

    def _back_to_savepoint(self, access: Access) -> None:
        """Undo what was done of the batch, and suppose nothing about it any more."""
        self._session.run([_ROLLBACK_TO if self._has_savepoint else _ROLLBACK])
        if not self._has_savepoint:
            self._session.begin()
        self._access = access
        self._unfinished.doubt()

    def _leave_savepoint(self) -> None:
        if self._has_savepoint:
            self._session.defer(_RELEASE)
            self._has_savepoint = False

    def _apply_fast(self, batch: Batch, unfinished: Lacking, suppositions: Sequence[Call] = ()) -> None:
        """Apply segment by segment.

        Args:
            batch: the batch.
            unfinished: tables that may lack rows.
            suppositions: must find nothing, or that is not so.

        Raises:
            StatementFailed, Surprise: it does not work like this.
            NotAsSupposed: a supposition was wrong.
        """
        together = _Together(self._session, suppositions)
        for segment in sorted(batch.segments, key=_rank):
            relation = batch.relations[segment.relation]
            if segment.superseded:
                continue
            if segment.operation is Operation.INSERT:
                self._insert(relation, segment, together)
                if relation.is_ddl:
                    unfinished = {**unfinished, **awaited(self._session)}
            elif segment.operation is Operation.TRUNCATE:
                destinations = [self._targets.of(batch.relations[index]) for index in segment.truncated]
                statement = truncate(destinations, restart_identity=bool(segment.truncate_options & 2))
                together.add(Call(Query(statement)))
            else:
                found = self._targets.segment_query(relation, segment)
                if found is None:
                    raise Surprise("casts")
                for call in self._planned_for(found.access):
                    together.add(call)
                arrays = [text_array(column, segment.rows) for column in (*segment.values, *segment.old)]
                # where rows have yet to come there may be fewer; but not if a key changes, for the new one may be there
                may_lack = (relation.schema, relation.name) in unfinished and (
                    segment.operation is Operation.DELETE or not segment.key
                )
                together.add(Call(found.query, arrays), segment.rows, may_lack=may_lack)
        together.send()

    def _insert(self, relation: Relation, segment: Segment, together: _Together) -> None:
        """Insert a segment's rows: a few among the statements that travel together, many by COPY."""
        if segment.rows <= _FEW_ROWS and segment.columns and not relation.is_ddl:
            query = self._targets.row_query(relation, segment)
            for row in segment_rows(segment):
                together.add(Call(query, row), 1)
            return
        together.send()
        statement = copy(self._targets.of(relation), segment.columns)
        if self._session.copy(statement, copy_blocks(segment)) != segment.rows:
            raise Surprise("row count")
        for command in commands(relation, segment):
            self._ddl.execute(command)
            self._targets.forget()

    def _planned_for(self, access: Access) -> list[Call]:
        """The statements that tell the planner, if it has to be told."""
        if access is self._access:
            return []
        before, after = _PLANNER[self._access], _PLANNER[access]
        self._access = access
        return [
            Call(Query(f"SET LOCAL {switch} = {value}"))
            for switch, value in after.items()
            if before[switch] != value
        ]


class _Together:
    """Statements that travel together, and how many rows each must report."""

    def __init__(self, session: ApplySession, suppositions: Sequence[Call]) -> None:
        self._session = session
        self._suppositions = len(suppositions)
        self._calls = list(suppositions)
        self._rows: list[range | None] = [range(1)] * len(suppositions)

    def add(self, call: Call, rows: int | None = None, *, may_lack: bool = False) -> None:
        self._calls.append(call)
        self._rows.append(None if rows is None else range(0 if may_lack else rows, rows + 1))

    def send(self) -> None:
        """Send what was added.

        Raises:
            StatementFailed: a statement failed.
            Surprise: a count differs.
            NotAsSupposed: what was supposed is not so.
        """
        if not self._calls:
            return
        counts = self._session.run(self._calls)
        for position, (wanted, count) in enumerate(zip(self._rows, counts, strict=True)):
            if wanted is not None and count not in wanted:
                raise NotAsSupposed if position < self._suppositions else Surprise("row count")
        self._suppositions, self._calls, self._rows = 0, [], []


def _rank(segment: Segment) -> tuple[int, int]:
    return segment.wave, segment.operation
