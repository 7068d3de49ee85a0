"""The unit that Kafka carries: a signed, chained, sealed record, and its place in the chain."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from embassy.model.lsn import Lsn

VERSION = 1
HASH_BYTES = 32
ID_BYTES = 16


class RecordKind(IntEnum):
    """What a record's body holds."""

    KEY = 1
    """A new incarnation of the producer: the data key, wrapped for each recipient, and the source's identity."""
    DATA = 2
    """A sealed batch, or one numbered part of it."""


class Header(NamedTuple):
    """All that is in clear. Its Avro bytes are authenticated with the body, bit for bit."""

    version: int
    kind: RecordKind
    stream: bytes
    """16 bytes, opaque."""
    epoch: int
    """The reign of one writable primary; promotion raises it."""
    incarnation: bytes
    """16 random bytes, fresh for each KEY record; one data key lives as long."""
    sequence: int
    """One more than the record before it, across incarnations; the nonce of the body."""
    previous: bytes
    """The hash of the record before it."""
    part: int
    """Which part of a batch too large for one record, from 0."""
    last: bool
    """Whether this is the batch's last part."""
    resume_lsn: Lsn
    """The end of the last whole transaction, this record's batch included if it is whole and last."""


class SealedRecord(NamedTuple):
    """A record as read from a topic."""

    header: Header
    header_bytes: bytes
    body: bytes
    signature: bytes
    """Ed25519, 64 bytes; on KEY records followed by ML-DSA-65, 3,309 bytes."""
    hash: bytes
    """SHA-256 over the domain, the header's length and bytes, and the body."""


class Head(NamedTuple):
    """The reader's whole state about a stream: the last record that counted."""

    hash: bytes
    sequence: int
    epoch: int
    incarnation: bytes
    resume_lsn: Lsn
    generation: int = 1
    """Which of the stream's enrolled producers signed the KEY of the incarnation, counted from 1. Those before it count
    no more."""

    @classmethod
    def genesis(cls, enrolment_hash: bytes, epoch: int, start_lsn: Lsn) -> Head:
        """The head before any record: the operators' signed enrolment stands for record 0."""
        return cls(enrolment_hash, 0, epoch, bytes(ID_BYTES), start_lsn)

    @classmethod
    def at(cls, record: SealedRecord, generation: int) -> Head:
        """The head once a record has counted that a producer of this generation signed."""
        header = record.header
        return cls(record.hash, header.sequence, header.epoch, header.incarnation, header.resume_lsn, generation)

    def link(self, header: Header, record_hash: bytes, generation: int) -> Head | None:
        """The new head if the record counts, else None.

        A record counts if it names this head: its hash and the next sequence, in the same epoch, and either
        begins an incarnation (KEY) or continues the present one. The signature must have been verified, and tells
        the generation: that of a KEY is not below the head's, that of a DATA is the head's.
        """
        if header.previous != self.hash or header.sequence != self.sequence + 1 or header.epoch != self.epoch:
            return None
        if generation < self.generation:
            return None
        if header.kind is RecordKind.DATA and (header.incarnation, generation) != (
            self.incarnation,
            self.generation,
        ):
            return None
        if header.resume_lsn < self.resume_lsn:
            return None
        return Head(record_hash, header.sequence, header.epoch, header.incarnation, header.resume_lsn, generation)
