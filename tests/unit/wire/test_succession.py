"""A stream's producer is succeeded by another: with real signatures."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embassy.model.errors import ConfigurationError, RefusedError, TransientError
from embassy.model.lsn import Lsn
from embassy.wire.enrolment import Enrolment, EnrolmentFile
from embassy.wire.key_document import PublicHalf
from embassy.wire.keyring import Identity, Operator
from embassy.wire.public_keys import PublicOperator
from embassy.wire.recipient_keys import HeldKeys
from embassy.wire.record_codec import decode_record
from embassy.wire.sealing import Sealer
from embassy.wire.signed_document import Signature
from embassy.wire.succession import Succession
from embassy.wire.verifying import RecordVerifier
from tests.harness.envelope import ANNA, BERT, HOME, OSLO, RIGA, STREAM, THIEF, Reader, Writer

NEXT = Identity.from_seeds(b"\x21" * 32, b"\x22" * 32)
LAST = Identity.from_seeds(b"\x23" * 32, b"\x24" * 32)
ROSTER = (ANNA.public, BERT.public)
PLACE = Path("test")
BASE = (
    EnrolmentFile.draft(stream=STREAM, epoch=1, producer=HOME.public, start_lsn=Lsn(0)).signed(ANNA).signed(BERT)
)
NAMED = BASE.succeeded_by(NEXT.public, PLACE)
SIGNED = NAMED.signed(ANNA).signed(BERT)


def proven(file: EnrolmentFile, roster: tuple[PublicOperator, ...] = ROSTER) -> Enrolment:
    return file.proven(roster, 2, PLACE)


def test_a_successor_counts_once_enough_persons_have_signed_it() -> None:
    assert proven(NAMED).producers == (HOME.public,)
    assert proven(NAMED.signed(ANNA)).producers == (HOME.public,)
    assert proven(SIGNED).producers == (HOME.public, NEXT.public)
    assert proven(SIGNED).hash == proven(BASE).hash, "the stream's beginning is the same"
    twice = SIGNED.succeeded_by(LAST.public, PLACE)
    assert proven(twice).generation_of(LAST.public) == 0
    assert proven(twice.signed(ANNA).signed(BERT)).generation_of(LAST.public) == 3


def test_the_file_says_the_same_after_it_was_written_and_read(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(SIGNED.render())
    assert EnrolmentFile.read(tmp_path / "e.json") == SIGNED
    assert "successions" not in BASE.render(), "a file without successors is what it always was"


def test_nobody_signs_twice_and_one_person_with_two_keys_is_one() -> None:
    with pytest.raises(RefusedError, match="signed the enrolment already"):
        SIGNED.signed(ANNA)
    second = Operator.from_seeds(b"\x31" * 32, person="Anna")
    roster = (*ROSTER, second.public)
    assert proven(NAMED.signed(ANNA).signed(second), roster).producers == (HOME.public,)


def test_a_key_that_was_succeeded_never_comes_back() -> None:
    for known in (HOME, NEXT):
        with pytest.raises(RefusedError, match="already"):
            SIGNED.succeeded_by(known.public, PLACE)


def _changed(**members: Any) -> EnrolmentFile:
    """With a succession that both operators have signed although it should not be."""
    payload = json.loads(NAMED.successions[0].payload)
    for name, value in members.items():
        if value is None:
            del payload[name]
        else:
            payload[name] = value
    succession = Succession(json.dumps(payload).encode())
    return replace(BASE, successions=(succession.signed(ANNA).signed(BERT),))


@pytest.mark.parametrize(
    "members",
    [
        {"stream": "00" * 16},
        {"epoch": 2},
        {"epoch": True},
        {"generation": 3},
        {"generation": 1},
        {"follows": "00" * 32},
        {"suite": 2},
        {"version": 2},
        {"producer": {"ed25519": "00" * 32}},
        {"producer": {"ed25519": HOME.public.ed25519.hex(), "mldsa65": HOME.public.mldsa65.hex()}},
        {"more": 1},
        {"suite": None},
    ],
)
def test_a_succession_that_does_not_follow_is_refused_whoever_signed_it(members: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        proven(_changed(**members))


def test_a_signature_for_something_else_is_none_for_a_succession() -> None:
    borrowed = tuple(Signature(s.key, s.signature) for s in BASE.signatures)
    file = replace(BASE, successions=(replace(NAMED.successions[0], signatures=borrowed),))
    assert proven(file).producers == (HOME.public,)
    as_enrolment = EnrolmentFile(SIGNED.successions[0].payload, SIGNED.successions[0].signatures)
    with pytest.raises(ConfigurationError, match="signed by 0 of the 2"):
        proven(as_enrolment)


@pytest.mark.parametrize("successions", [5, "x", [5], [{}], [{"payload": "", "signatures": 3}]])
def test_what_are_no_successions_is_refused(tmp_path: Path, successions: Any) -> None:
    document = json.loads(BASE.render()) | {"successions": successions}
    (tmp_path / "e.json").write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="damaged"):
        EnrolmentFile.read(tmp_path / "e.json")


def test_the_new_producer_takes_over_in_the_chain_and_nothing_of_the_old_counts_behind_it() -> None:
    enrolment = proven(SIGNED)
    old = Writer(enrolment=enrolment, identity=HOME)
    reader = Reader(enrolment=enrolment)
    assert reader.take(old.key())
    assert reader.take(old.data(b"one")[0])
    new = Writer(enrolment=enrolment, identity=NEXT, head=old.head)
    key = new.key()
    late = old.data(b"late")[0]
    assert reader.take(key)
    assert not reader.take(late)
    assert reader.take(new.data(b"two")[0])
    thief = Writer(enrolment=enrolment, identity=HOME, head=reader.head)
    assert not reader.take(thief.key()), "a KEY of the old identity that names the head"
    assert not reader.take(thief.data(b"three")[0])
    assert reader.head.generation == 2
    assert len(reader.batches) == 2


def test_data_by_the_old_identity_under_the_new_ones_data_key_does_not_count() -> None:
    enrolment = proven(SIGNED)
    new = Writer(enrolment=enrolment, identity=NEXT)
    reader = Reader(enrolment=enrolment)
    assert reader.take(new.key())
    new.sealer._use = new.sealer._use._replace(identity=HOME, generation=1)
    assert not reader.take(new.data(b"forged")[0])


def test_a_reader_that_does_not_know_the_successor_stays_where_it_is_until_it_does() -> None:
    old = Writer(enrolment=proven(BASE))
    verifier = RecordVerifier(proven(BASE))
    reader = Reader(enrolment=proven(BASE))
    reader.verified = verifier
    assert reader.take(old.key())
    new = Writer(enrolment=proven(SIGNED), identity=NEXT, head=old.head)
    key, data = new.key(), new.data(b"x")[0]
    assert not reader.take(key)
    assert not reader.take(data)
    assert verifier.adopt(proven(SIGNED)) == 1
    assert reader.take(key)
    assert reader.take(data)
    assert verifier.adopt(proven(SIGNED)) == 0


def test_a_reader_that_has_passed_over_the_successors_records_is_told_to_read_again() -> None:
    old = Writer(enrolment=proven(BASE))
    key = decode_record(old.key())
    successors = decode_record(Writer(enrolment=proven(SIGNED), identity=NEXT, head=old.head).key())
    early, late = RecordVerifier(proven(BASE)), RecordVerifier(proven(BASE))
    assert (early(key), late(key)) == (1, 1)
    assert early.adopt(proven(SIGNED), read_again=True) == 1
    assert early(successors) == 2, "it knew in time"
    assert late(successors) == 0
    assert late.adopt(proven(SIGNED), read_again=True) == 1
    with pytest.raises(TransientError, match="known now"):
        late(key)
    assert late(successors) == 2


def test_a_verifier_takes_back_no_successor_and_no_other_enrolment() -> None:
    verifier = RecordVerifier(proven(SIGNED))
    stranger = EnrolmentFile.draft(stream=STREAM, epoch=1, producer=THIEF.public, start_lsn=Lsn(0))
    for other in (proven(BASE), proven(stranger.signed(ANNA).signed(BERT))):
        with pytest.raises(RefusedError):
            verifier.adopt(other)
    writer = Writer(enrolment=proven(SIGNED), identity=NEXT)
    reader = Reader(enrolment=proven(SIGNED))
    reader.verified = verifier
    assert reader.take(writer.key())


def test_a_sealer_takes_other_keys_from_the_next_key_record_on() -> None:
    enrolment = proven(SIGNED)
    writer = Writer(enrolment=proven(BASE), recipients=(OSLO.public,))
    oslo, riga = Reader(OSLO, enrolment), Reader(RIGA, enrolment)
    oslo.take(writer.key())
    writer.sealer.adopt(NEXT, enrolment, (RIGA.public,))
    data = writer.data(b"still for Oslo")[0]
    assert oslo.take(data)
    riga.head = oslo.head
    key = writer.key()
    assert riga.take(key)
    assert riga.take(writer.data(b"for Riga")[0])
    assert riga.head.generation == 2
    with pytest.raises(RefusedError, match="succeeded"):
        writer.sealer.adopt(HOME, enrolment, (RIGA.public,))
    with pytest.raises(ConfigurationError, match="another producer"):
        writer.sealer.adopt(THIEF, enrolment, (RIGA.public,))
    with pytest.raises(ConfigurationError, match="no recipient"):
        Sealer(NEXT, enrolment, ())


def test_any_of_several_recipient_keys_opens() -> None:
    keys = HeldKeys([OSLO])
    reader, writer = Reader(), Writer(recipients=(RIGA.public,))
    reader.opener._keys = keys
    keys.replace([OSLO, RIGA])
    assert reader.take(writer.key())
    assert reader.take(writer.data(b"x")[0])
    assert set(keys.holds()) == {OSLO.public.id, RIGA.public.id}
    assert keys.unwrap_for(b"nobody..", b"", b"") is None


def test_the_payload_of_a_succession_never_changes() -> None:
    payload = NAMED.successions[0].payload
    assert json.loads(payload).keys() == {
        "version",
        "stream",
        "epoch",
        "suite",
        "follows",
        "generation",
        "producer",
    }
    assert payload == json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":")).encode()
    assert json.loads(SIGNED.render())["successions"][0]["payload"] == base64.b64encode(payload).decode()
    assert isinstance(ANNA.half, PublicHalf)
