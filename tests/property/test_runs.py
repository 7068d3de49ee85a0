"""One signature for a run of records: what counts is what counts record by record, whatever was done to the records.

With real keys and signatures. A producer, its successor, a stranger and a thief of the old identity write; what they have
written is damaged, dropped, repeated, put elsewhere, and read in pieces.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embassy.model.chain import Follower, Signers, Standing, proven
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import SealedRecord
from embassy.wire.enrolment import EnrolmentFile
from embassy.wire.judging import Judge
from embassy.wire.kafka_reader import Fetched
from embassy.wire.keyring import Identity
from embassy.wire.record_codec import decode_record
from embassy.wire.verifying import RecordVerifier
from tests.harness.envelope import ANNA, BERT, HOME, STREAM, THIEF, Writer, enrolled

NEXT = Identity.from_seeds(b"\x21" * 32, b"\x22" * 32)
_PLACE = Path("test")
_FILE = (
    EnrolmentFile.draft(stream=STREAM, epoch=1, producer=HOME.public, start_lsn=Lsn(0)).signed(ANNA).signed(BERT)
)
ENROLMENT = (
    _FILE.succeeded_by(NEXT.public, _PLACE).signed(ANNA).signed(BERT).proven((ANNA.public, BERT.public), 2, _PLACE)
)


class RecordByRecord:
    """Each by its own signature; counts how many it looks at."""

    def __init__(self) -> None:
        self._verifier = RecordVerifier(ENROLMENT)
        self.looks = 0

    def __call__(self, record: SealedRecord) -> int:
        self.looks += 1
        return self._verifier(record)

    def of_run(self, records: Sequence[SealedRecord]) -> list[int]:
        return [self(record) for record in records]


class Counted:
    """What counts of some pieces, and how it ended."""

    def __init__(self, signers: Signers, pieces: list[list[Fetched]]) -> None:
        self.ignored: list[Standing] = []
        self.error = ""
        follower = Follower(ENROLMENT.genesis(), topic="s-x", signers=signers, clock=lambda: 0.0, hold_seconds=9)
        judge = Judge(follower, self.ignored.append, lambda _sequence: None)
        self.contents: list[tuple[bytes, bytes]] = []
        try:
            for piece in pieces:
                for _, record in judge.counting(piece):
                    self.contents.append((record.header_bytes, record.body))
        except IntegrityError as error:
            self.error = str(error)


@cache
def written() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """A stream with two incarnations of a producer and one of its successor; and what strangers add to it."""
    writer = Writer(enrolment=ENROLMENT, identity=HOME)
    genuine, foreign = [], []
    for identity, count in ((HOME, 3), (HOME, 4), (NEXT, 8)):
        writer = Writer(enrolment=ENROLMENT, identity=identity, head=writer.head)
        genuine.append(writer.key())
        for number in range(count):
            stranger = Writer(enrolment=enrolled(producer=THIEF.public), identity=THIEF, head=writer.head)
            foreign += [stranger.key(), *stranger.data(b"foreign")]
            stale = Writer(enrolment=enrolled(epoch=2), identity=HOME, head=writer.head)
            foreign += [stale.key(), *stale.data(b"stale")]
            if identity is NEXT:
                foreign += _of_the_old_key(writer)
            genuine += writer.data(b"%d" % number * 40)
    return tuple(genuine), tuple(foreign)


def _of_the_old_key(writer: Writer) -> list[bytes]:
    """Records of the successor's incarnation, signed by whoever has its predecessor's key."""
    thief = copy(writer)
    thief.sealer = copy(writer.sealer)
    thief.sealer._use = thief.sealer._use._replace(identity=HOME, generation=1)
    return [*thief.data(b"a"), *thief.data(b"b")]


def mixed(rng: random.Random, *, signatures: bool) -> list[bytes]:
    """What a carrier could make of it all; ``signatures``: of signatures as well."""
    genuine, foreign = written()
    values = list(genuine)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.randrange(len(values))
        match rng.randrange(6):
            case 0:
                values[at] = _damaged(rng, values[at], signatures=signatures)
            case 1:
                del values[at]
            case 2:
                values.insert(rng.randrange(len(values)), values.pop(at))
            case 3:
                values[at:at] = values[rng.randrange(len(values)) :][: rng.randrange(6)]
            case 4:
                values.insert(at, rng.choice(foreign))
            case _:
                # What names a record of the stream comes right behind it.
                named = decode_record(rng.choice(foreign)).header.previous
                names = [value for value in foreign if decode_record(value).header.previous == named]
                where = [n for n, value in enumerate(values) if _hash(value) == named]
                if where:
                    values.insert(where[0] + 1, rng.choice(names))
    return values


def _hash(value: bytes) -> bytes:
    try:
        return decode_record(value).hash
    except IntegrityError:
        return b""


def _damaged(rng: random.Random, value: bytes, *, signatures: bool) -> bytes:
    """Some bit of it is another one."""
    try:
        end = len(value) if signatures else len(value) - len(decode_record(value).signature)
    except IntegrityError:
        end = len(value)
    at = rng.randrange(end)
    return _flipped(value, at, rng.randrange(8))


def _flipped(value: bytes, at: int, bit: int = 0) -> bytes:
    return value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]


def pieces(rng: random.Random, values: list[bytes]) -> Iterator[list[Fetched]]:
    """As a client may hand them out."""
    fetched = [Fetched(offset, 0, value) for offset, value in enumerate(values)]
    while fetched:
        count = rng.choice((1, 2, 5, 100))
        yield fetched[:count]
        fetched = fetched[count:]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_what_counts_in_runs_is_what_counts_record_by_record(seed: int) -> None:
    rng = random.Random(seed)
    fetched = list(pieces(rng, mixed(rng, signatures=False)))
    runs = Counted(RecordVerifier(ENROLMENT), fetched)
    single = Counted(RecordByRecord(), fetched)
    assert runs.contents == single.contents
    assert runs.ignored == single.ignored
    assert runs.error == single.error


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_with_damaged_signatures_too_nothing_counts_that_no_producer_made(seed: int) -> None:
    """A signature that a later record makes up for is not looked at: then more may count, but nothing else."""
    rng = random.Random(seed)
    fetched = list(pieces(rng, mixed(rng, signatures=True)))
    runs = Counted(RecordVerifier(ENROLMENT), fetched).contents
    single = Counted(RecordByRecord(), fetched).contents
    made = [(record.header_bytes, record.body) for record in map(decode_record, written()[0])]
    assert runs == made[: len(runs)]
    assert runs[: len(single)] == single


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_where_a_fetch_ends_makes_no_difference_to_a_signature_that_is_made_up_for(at_once: int) -> None:
    genuine = written()[0]
    for at in range(len(genuine) - 8, len(genuine)):
        values = [*genuine[:at], _flipped(genuine[at], len(genuine[at]) - 5), *genuine[at + 1 :], genuine[at]]
        fetched = [Fetched(offset, 0, value) for offset, value in enumerate(values)]
        cut = [fetched[start : start + at_once] for start in range(0, len(fetched), at_once)]
        assert len(Counted(RecordVerifier(ENROLMENT), cut).contents) == len(genuine), at
        reached = len(Counted(RecordVerifier(ENROLMENT), [fetched[: len(genuine)]]).contents)
        assert reached == len(genuine) - (at == len(genuine) - 1), "the last one has nothing behind it"


class InRuns(RecordByRecord):
    """As the verifier does it."""

    def of_run(self, records: Sequence[SealedRecord]) -> list[int]:
        return proven(records, self, newest=2)


def test_a_run_of_the_newest_producer_takes_one_signature() -> None:
    genuine, _ = written()
    signers = InRuns()
    fetched = [Fetched(offset, 0, value) for offset, value in enumerate(genuine)]
    assert len(Counted(signers, [fetched]).contents) == len(genuine) == 18
    assert signers.looks == 9 + 2, "each of the old producer's, the successor's KEY, the last of what follows it"
