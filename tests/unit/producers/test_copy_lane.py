"""A chunk's way through the lane, without a database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from embassy.model.batch import Batch, Chunk
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.pg.table_copies import CopyNote
from producers.copy_desk import CopyDesk, Fate, InTopic, Noted, Offer
from producers.copy_lane import CopyLane
from producers.copy_window import Snapshot

ROWS = b"1\tone\n2\ttwo\n"


class Loop:
    """Takes batches, and says that it is idle."""

    captured_at = 0

    def __init__(self) -> None:
        self.shipped: list[Batch] = []

    def ship_chunk(self, batch: Batch) -> tuple[int, int]:
        self.shipped.append(batch)
        return 1, 10

    def breathe(self) -> None:
        """Nothing waits."""


def offered() -> Offer:
    relation = Relation(
        "public",
        "note",
        ReplicaIdentity.DEFAULT,
        (Column("id", 23, "", -1, in_key=True), Column("words", 25, "", -1, in_key=False)),
    )
    chunk = Chunk(
        relation=0,
        by_range=True,
        key=(0,),
        lower=(),
        lower_inclusive=False,
        upper=(),
        spared=(),
        rows=2,
        columns=(0, 1),
        copy_text=ROWS,
    )
    note = CopyNote((), 0, 2, len(ROWS), 2, done=True, round=1)
    return Offer((1,), frozenset(), 77, relation, Snapshot(10, 10, frozenset()), Lsn(5), frozenset(), chunk, note)


def test_a_chunk_that_was_shipped_does_not_keep_its_rows_until_it_is_in_the_topic_for_good() -> None:
    desk, loop, now = CopyDesk(lambda: None), Loop(), 100.0
    lane = CopyLane(desk, "unused", lambda: now)
    with ThreadPoolExecutor() as reader:
        opened = reader.submit(desk.open_window, 77)
        while not opened.done():
            lane.turn(loop, Lsn(0))
    offer = offered()
    desk.put(offer)

    lane.turn(loop, Lsn(5))

    assert offer.fates.get_nowait() is Fate.SHIPPED
    (batch,) = loop.shipped
    assert batch.chunk is not None
    assert batch.chunk.copy_text == ROWS
    lane.acknowledged(1)
    lane.confirmed(100.0)
    for how in (Noted.ACKNOWLEDGED, Noted.SURE):
        noted = desk.notes.get_nowait()
        assert isinstance(noted, InTopic)
        assert (noted.how, noted.sequence, noted.offer.chunk.rows) == (how, 10, 2)
        assert noted.offer.chunk.copy_text == b""


def test_a_chunk_that_others_bring_to_its_place_needs_no_commit_of_its_own() -> None:
    desk, beats = CopyDesk(lambda: None), []
    passed, alone = offered(), offered()
    passed.fates.put(Fate.SHIPPED)

    def beat() -> None:
        beats.append(alone)
        alone.fates.put(Fate.RETRY)

    assert desk.fate(passed, beat, commits_before=desk.commits) is Fate.SHIPPED
    assert not beats
    assert desk.fate(alone, beat, commits_before=desk.commits) is Fate.RETRY
    assert beats == [alone]
