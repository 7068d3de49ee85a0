"""From values as they were fetched to the records that count: the same for whoever carries and for whoever applies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from embassy.model.chain import Follower, Standing
from embassy.model.record import RecordKind, SealedRecord
from embassy.wire.kafka_reader import Fetched
from embassy.wire.record_codec import record_or_none

_RUN_BYTES = 1 << 20
"""How many bytes of values are proven at once, about: each is there twice meanwhile."""
_HELD_MOST = 8
"""How many records may wait for proof: whoever appends forgeries has each of these looked at once more for each fetch."""


class _Read(NamedTuple):
    fetched: Fetched
    record: SealedRecord | None
    """None: the value is no record."""


class Judge:
    """Gives out the records of one stream that count, each proven by its own signature or by a record behind it.

    So that this does not depend on where a fetch happens to end, the last records that came wait for the next ones if
    they continue the stream but for their signatures.
    """

    def __init__(
        self, follower: Follower, ignored: Callable[[Standing], None], missing: Callable[[int | None], None]
    ) -> None:
        """Take up the stream.

        Args:
            follower: stands before the first record that will come.
            ignored: told of each that does not count.
            missing: told after each look which record is missing; see `Follower.missing`.
        """
        self._follower = follower
        self._ignored = ignored
        self._missing = missing
        self._held: list[_Read] = []
        missing(follower.missing)

    def counting(self, fetched: Iterable[Fetched]) -> Iterator[tuple[Fetched, SealedRecord]]:
        """Those that count, in order; the follower's head is each one's while it is looked at.

        Args:
            fetched: what comes next in the topic.

        Raises:
            IntegrityError: the stream cannot be followed.
        """
        for come in _runs(fetched):
            run = self._held + come
            generations = self._generations(run)
            ready = self._ready(run, generations)
            self._held = run[ready:]
            for (one, record), generation in zip(run[:ready], generations, strict=False):
                if record is None:
                    self._ignored(Standing.UNSIGNED)
                    continue
                standing = self._follower.judge(record, generation, one.offset)
                if standing is Standing.COUNTS:
                    yield one, record
                else:
                    self._ignored(standing)
            self._missing(self._follower.missing)

    def _generations(self, run: list[_Read]) -> list[int]:
        found = iter(self._follower.signers.of_run([record for _, record in run if record is not None]))
        return [0 if record is None else next(found) for _, record in run]

    def _ready(self, run: list[_Read], generations: list[int]) -> int:
        """How many can be judged now; a later record may still prove the others."""
        signed = max((index for index, generation in enumerate(generations) if generation), default=-1)
        last = run[signed].record if signed >= 0 else None
        ends = {self._follower.head.hash, last.hash if last is not None else b""}
        for index in range(max(signed + 1, len(run) - _HELD_MOST), len(run)):
            record = run[index].record
            if record is not None and record.header.kind is RecordKind.DATA and record.header.previous in ends:
                return index
        return len(run)


def _runs(fetched: Iterable[Fetched]) -> Iterator[list[_Read]]:
    run: list[_Read] = []
    run_bytes = 0
    for one in fetched:
        run.append(_Read(one, record_or_none(one.value)))
        run_bytes += len(one.value)
        if run_bytes >= _RUN_BYTES:
            yield run
            run, run_bytes = [], 0
    if run:
        yield run
