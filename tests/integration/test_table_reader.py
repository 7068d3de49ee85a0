"""How a table is read for a copy, against what the topic has of it."""

from __future__ import annotations

import threading

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.lsn import Lsn
from embassy.pg import source_schema, table_copies
from embassy.pg.connection import connect
from producers.copy_desk import CopyDesk, Fate, Offer
from producers.table_reader import TableReader
from tests.harness.lab import MakeDatabase
from tests.harness.meanwhile import meanwhile
from tests.harness.pipeline import poll_until

_EVERYWHERE = Lsn((1 << 64) - 1)


class Asked(threading.Event):
    """Tells whether somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.by_somebody = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.by_somebody.set()
        return super().wait(timeout)


def next_offer(desk: CopyDesk) -> Offer:
    """What a reader hands in next, as the loop would see it."""
    offers: list[Offer] = []

    def handed_in() -> bool:
        desk.between_transactions()
        offers.extend(filter(None, [desk.due(_EVERYWHERE)]))
        return bool(offers)

    poll_until(handed_in, "a chunk")
    return offers[0]


def test_of_large_values_less_than_a_chunk_is_read_and_not_written_down(
    lab: Lab, make_database: MakeDatabase
) -> None:
    """So that is what a kill makes to be read again."""
    dsn = lab.home.postgres.dsn(databases.ADMIN, make_database("home"))
    with connect(dsn, application_name="embassy-test", autocommit=True) as connection:
        source_schema.ensure(connection, producer_role=databases.PRODUCER)
        connection.execute("CREATE TABLE public.large (id int PRIMARY KEY, x text)")
        connection.execute("INSERT INTO public.large SELECT n, repeat('x', 8000) FROM generate_series(1, 1000) n")
        table_copies.request(connection, "public", "large", reason="test")
        desk = CopyDesk(lambda: None)
        reader = TableReader(connection, desk, table_copies.unfinished(connection), 1_000_000, lambda _: None)
        with meanwhile(lambda _: reader.run()):
            chunks: list[Offer] = []
            noted: list[Asked] = []
            while not chunks or not chunks[-1].note.done:
                offer = next_offer(desk)
                chunks.append(offer)
                noted.append(Asked())
                offer.noted = noted[-1]
                offer.fates.put(Fate.SHIPPED)
                if len(noted) > 1 and not offer.note.done:
                    poll_until(noted[-2].by_somebody.is_set, "the reader waits")
                    assert desk.due(_EVERYWHERE) is None
                    noted[-2].set()
    assert [offer.note.rows for offer in chunks][-1] == 1000
    assert len(chunks) > 4
    ends = [offer.note.bytes for offer in chunks[1:]]  # the first one is as it comes
    assert all(later - before <= 1_000_000 for before, later in zip(ends, ends[2:], strict=False))
