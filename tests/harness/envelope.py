"""Keys, an enrolment and a reader for tests of records: real cryptography, fixed seeds, no files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import ID_BYTES, Head, RecordKind
from embassy.wire.enrolment import Enrolment, EnrolmentFile
from embassy.wire.keyring import Identity, Operator, RecipientKey
from embassy.wire.opening import Decompressor, Opener
from embassy.wire.public_keys import PublicIdentity, PublicRecipient
from embassy.wire.record_codec import decode_record
from embassy.wire.sealing import Sealed, Sealer
from embassy.wire.verifying import RecordVerifier

HOME = Identity.from_seeds(b"\x01" * 32, b"\x02" * 32)
THIEF = Identity.from_seeds(b"\x03" * 32, b"\x04" * 32)
RIGA = RecipientKey.from_seeds(b"\x05" * 32)
OSLO = RecipientKey.from_seeds(b"\x06" * 32)
ANNA = Operator.from_seeds(b"\x07" * 32, person="Anna")
BERT = Operator.from_seeds(b"\x08" * 32, person="Bert")
STREAM = bytes(range(16))
SMALLEST_RECORD = 600


def enrolled(
    *, stream: bytes = STREAM, epoch: int = 1, producer: PublicIdentity = HOME.public, start: int = 0
) -> Enrolment:
    """What operators would have signed."""
    draft = EnrolmentFile.draft(stream=stream, epoch=epoch, producer=producer, start_lsn=Lsn(start))
    return draft.parsed(Path("test"))


ENROLMENT = enrolled()
GENESIS = ENROLMENT.genesis()


@dataclass
class Writer:
    """A producer of one stream."""

    enrolment: Enrolment = ENROLMENT
    identity: Identity = HOME
    recipients: tuple[PublicRecipient, ...] = (OSLO.public, RIGA.public)
    head: Head = GENESIS
    sealer: Sealer = field(init=False)

    def __post_init__(self) -> None:
        self.sealer = Sealer(self.identity, self.enrolment, self.recipients)

    def key(self) -> bytes:
        """Begin an incarnation."""
        return self._counted(
            self.sealer.key_record(self.head, os.urandom(ID_BYTES), system_identifier=7, timeline=1)
        )

    def data(self, encoded: bytes, record_bytes: int = 900_000) -> list[bytes]:
        """A batch that ends ten bytes further in the source's log."""
        resume = Lsn(self.head.resume_lsn + 10)
        return [self._counted(s) for s in self.sealer.data_records(self.head, encoded, resume, record_bytes)]

    def _counted(self, sealed: Sealed) -> bytes:
        self.head = sealed.head
        return sealed.value


@dataclass
class Reader:
    """A consumer of one stream: verify, link, open, put together."""

    recipient: RecipientKey = RIGA
    enrolment: Enrolment = ENROLMENT
    head: Head = GENESIS
    batches: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.verified = RecordVerifier(self.enrolment)
        self.opener = Opener(self.recipient, self.enrolment)
        self.batch = Decompressor()

    def take(self, value: bytes) -> bool:
        """Whether the record counted; what counts and does not open raises IntegrityError."""
        try:
            record = decode_record(value)
        except IntegrityError:
            return False
        generation = self.verified(record)
        head = self.head.link(record.header, record.hash, generation) if generation else None
        if head is None:
            return False
        if record.header.kind is RecordKind.KEY:
            self.opener.take_key(record)
        else:
            self.batch.add(self.opener.open(record))
            if record.header.last:
                self.batches.append(self.batch.finish())
                self.batch = Decompressor()
        self.head = head
        return True
