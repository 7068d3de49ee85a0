"""Whatever a history does, however it is cut into batches: the first transaction that exceeds a threshold is named."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from consumers.admission import Admission, Violation
from consumers.gate import Gate
from embassy.model.batch import Batch, Chunk, Operation, Segment, Transaction
from embassy.model.control import Control, Cut, Point, Suspect
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.runtime.config import Protection

_TABLES = tuple(
    Relation(schema, name, ReplicaIdentity.DEFAULT, ())
    for schema, name in (("s", "a"), ("s", "b"), ("embassy", "heartbeat"), ("embassy", "ddl"))
)


class Change(NamedTuple):
    """One change, as far as counts go."""

    operation: Operation
    table: int


changes = st.builds(
    Change,
    st.sampled_from(
        [Operation.DELETE] * 4 + [Operation.UPDATE] * 3 + [Operation.INSERT] * 3 + [Operation.TRUNCATE]
    ),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
)
histories = st.lists(st.lists(changes, min_size=1, max_size=12), min_size=1, max_size=8)
protections = st.builds(
    Protection,
    max_deletes_per_transaction=st.none() | st.integers(0, 6),
    max_changed_share=st.none() | st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    share_from_rows=st.integers(1, 4),
    truncate=st.sampled_from(["allow", "allow", "freeze"]),
    ddl=st.sampled_from(["allow", "allow", "freeze"]),
)
sizes = st.lists(st.integers(0, 40), min_size=4, max_size=4)


def transaction(number: int, count: int) -> Transaction:
    return Transaction(number, Lsn(1000 * number), Lsn(1000 * number + 8), 1_000_000 * number, count)


def batch(numbered: list[tuple[int, list[Change]]], *, part: int = 0, complete: bool = True) -> Batch:
    """A batch of transactions, in which segments hold what is of one shape."""
    shapes: dict[Change, int] = {}
    order = array("H")
    for _, some in numbered:
        for change in some:
            order.append(shapes.setdefault(change, len(shapes)))
    rows = Counter(order)
    segments = tuple(
        Segment(
            shape.table, shape.operation, 1, False, rows[index], (), (), (), (), (),  # noqa: FBT003
            truncated=(shape.table,) if shape.operation is Operation.TRUNCATE else (),
        )
        for shape, index in shapes.items()
    )  # fmt: skip
    transactions = tuple(transaction(number, len(some)) for number, some in numbered)
    return Batch(_TABLES, segments, order.tobytes(), transactions, part, complete)


def apply(held: list[int], some: list[Change]) -> None:
    """Sizes of tables after changes; a truncated table is not followed, so these tests do without its share."""
    for change in some:
        held[change.table] += (change.operation is Operation.INSERT) - (change.operation is Operation.DELETE)


def exceeds(protection: Protection, held: list[int], some: list[Change]) -> bool:
    """One transaction judged by itself, in the plainest way."""
    own = [change for change in some if _TABLES[change.table].schema != "embassy"]
    if protection.truncate == "freeze" and any(change.operation is Operation.TRUNCATE for change in own):
        return True
    if protection.ddl == "freeze" and Change(Operation.INSERT, 3) in some:
        return True
    deletes = sum(change.operation is Operation.DELETE for change in own)
    if protection.max_deletes_per_transaction is not None and deletes > protection.max_deletes_per_transaction:
        return True
    changed = Counter(change.table for change in own if change.operation in (Operation.DELETE, Operation.UPDATE))
    share = protection.max_changed_share
    return share is not None and any(
        rows >= protection.share_from_rows and rows > held[table] * share + 1e-9 for table, rows in changed.items()
    )


@given(histories, protections, sizes, st.data())
def test_the_first_transaction_that_exceeds_is_named_however_batches_are_cut(
    history: list[list[Change]], protection: Protection, before: list[int], data: st.DataObject
) -> None:
    held, wanted = list(before), None
    for number, some in enumerate(history, 1):
        if exceeds(protection, held, some):
            wanted = number
            break
        apply(held, some)

    table = list(before)
    admission = Admission(protection, lambda relation, least: table[_TABLES.index(relation)] >= least, lambda _: 0)
    found: Violation | None = None
    rest = list(enumerate(history, 1))
    while rest and found is None:
        count = data.draw(st.integers(1, len(rest)))
        if count == 1 and data.draw(st.booleans()):
            number, some = rest[0]
            cut = data.draw(st.integers(0, len(some)))
            pieces = [some[:cut], some[cut:]]
            for part, piece in enumerate(pieces):
                found = found or admission.judge(batch([(number, piece)], part=part, complete=part == 1))
                apply(table, piece)
        else:
            found = admission.judge(batch(rest[:count]))
            for _, some in rest[:count]:
                apply(table, some)
        rest = rest[count:]
    assert (found.suspect.xid if found is not None else None) == wanted
    if found is not None and wanted is not None:
        assert found.suspect == Suspect(wanted, Lsn(1000 * wanted))
        assert found.reason


@given(histories, protections, sizes)
@example(
    [[Change(Operation.DELETE, 0)], [Change(Operation.DELETE, 0)] * 7],
    Protection(max_changed_share=0.25, share_from_rows=1),
    [28, 0, 0, 0],
)
def test_an_admitted_transaction_passes_and_no_other(
    history: list[list[Change]], protection: Protection, before: list[int]
) -> None:
    def judged(admitted: Suspect | None, first: int = 0) -> Violation | None:
        table = list(before)
        for some in history[:first]:  # these are in the replica
            apply(table, some)
        admission = Admission(protection, lambda r, least: table[_TABLES.index(r)] >= least, lambda _: 0, admitted)
        return admission.judge(batch(list(enumerate(history, 1))), first)

    first = judged(None)
    if first is None:
        return
    second = judged(first.suspect)
    assert second is None or second.number > first.number
    assert judged(None, first.number) == first
    behind = judged(None, first.number + 1)
    assert behind is None or behind.number > first.number


@given(
    histories,
    st.integers(0, 9),
    st.integers(0, 8),
    st.sampled_from(["lsn", "time"]),
    st.integers(0, 3600),
)
def test_a_point_is_exact_and_a_batch_that_was_cut_goes_on_behind_the_cut(
    history: list[list[Change]], at: int, done: int, kind: str, delay: int
) -> None:
    done = min(done, len(history))
    numbered = list(enumerate(history, 1))
    point = Point(lsn=Lsn(1000 * at)) if kind == "lsn" else Point(time=1_000_000 * at)
    cut = Cut(b"head", done, Lsn(1000 * done)) if done else None
    control = Control(stop_at=point, cut=cut)
    open_gate = Gate(control, Admission(Protection(), lambda *_: True, lambda _: 0), delay_seconds=delay)
    passage = open_gate.judge(b"head", batch(numbered))
    assert passage.done == done
    assert passage.upto == max(done, min(at, len(history)))
    assert (passage.end is None) == (at >= len(history))
    if delay and passage.upto > done:
        assert passage.due == passage.upto + delay
    elsewhere = open_gate.judge(b"another", batch(numbered))
    assert elsewhere.done == 0


def test_parts_that_were_rolled_back_do_not_count() -> None:
    admission = Admission(Protection(max_deletes_per_transaction=3), lambda *_: True, lambda _: 0)
    deletes = [Change(Operation.DELETE, 0)] * 2
    assert admission.judge(batch([(1, deletes)], complete=False)) is None
    admission.forget()
    assert admission.judge(batch([(1, deletes)], complete=False)) is None
    found = admission.judge(batch([(1, deletes)], part=1))
    assert found is not None
    assert "4 rows" in found.reason


@given(
    protections,
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.sampled_from([0, 0, 0, 2]),
    st.sampled_from(["range", "range", "keys"]),
)
def test_a_copy_is_judged_by_what_the_table_loses_and_only_what_was_let_pass_passes(
    protection: Protection, holds: tuple[int, int], brought: list[int], table: int, kind: str
) -> None:
    """A chunk, or the parts of one, over a range that holds so many rows of a table that holds some more."""
    parts = [
        Batch(
            _TABLES, (), b"", (transaction(0, 0),) if len(brought) > 1 else (), part, part == len(brought) - 1,
            Chunk(table, kind == "range" and part == 0, (), (), False, (), (), rows, (), b""),  # noqa: FBT003 - a tuple
        )
        for part, rows in enumerate(brought)
    ]  # fmt: skip
    within = holds[0]
    held = within if len(parts) > 1 else sum(holds)  # what comes in parts is of the whole table

    def judged(record: bytes, admitted: Suspect | None = None) -> list[Violation | Point | None]:
        admission = Admission(protection, lambda _, least: held >= least, lambda _: within, admitted)
        gate = Gate(Control(), admission)
        return [gate.judge(b"head", part, record + bytes([part.part])).end for part in parts]

    lost = within - sum(brought) if kind == "range" else 0
    most, share = protection.max_deletes_per_transaction, protection.max_changed_share
    exceeds = (most is not None and lost > most) or (
        share is not None and lost >= protection.share_from_rows and lost > held * share + 1e-9
    )
    *before, last = judged(b"a")
    assert not any(before), "the first part takes out what the others bring"
    exceeds = exceeds or (protection.truncate == "freeze" and sum(brought) == 0)
    if not exceeds or lost <= 0 or table == 2:
        assert last is None
        return
    assert isinstance(last, Violation)
    assert last.suspect == Suspect.copied(b"a" + bytes([len(parts) - 1]))
    assert str(lost) in last.reason
    assert judged(b"a", last.suspect)[-1] is None
    assert judged(b"b", last.suspect)[-1] is not None
    assert not last.suspect.is_(Transaction(0, Lsn(0), Lsn(0), 0, 0))


def test_a_copy_that_empties_a_table_first_says_that_it_fills_it_again() -> None:
    for oid, fills in ((25, True), (23, False)):
        table = Relation("s", "t", ReplicaIdentity.DEFAULT, (Column("k", oid, "", -1, in_key=True),))
        chunk = Chunk(0, True, (0,), (), False, (), (), 10, (0,), b"k\n" * 10)  # noqa: FBT003 - a tuple
        admission = Admission(Protection(max_deletes_per_transaction=9), lambda *_: True, lambda _: 50)
        violation = admission.judge(Batch((table,), (), b"", (), 0, True, chunk))  # noqa: FBT003 - a tuple
        assert violation is not None
        assert "takes 40 rows out of s.t" in violation.reason
        assert ("fill it" in violation.reason) == fills
