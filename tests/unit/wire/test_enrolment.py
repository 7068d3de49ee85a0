from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.wire.enrolment import EnrolmentFile, load_enrolment, stream_id
from embassy.wire.key_document import render_key
from embassy.wire.keyring import Operator
from embassy.wire.suite import record_message
from tests.harness.envelope import ANNA, BERT, HOME, STREAM

CARL = Operator.from_seeds(b"\x09" * 32, person="Carl")
ANNAS_SECOND = Operator.from_seeds(b"\x0a" * 32, person="Anna")
DRAFT = EnrolmentFile.draft(stream=STREAM, epoch=2, producer=HOME.public, start_lsn=Lsn.parse("1/A0"))


class Site:
    """A folder with an enrolment and the roster's public files."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "enrolment.json"
        self.folder = folder
        self.roster: list[Path] = []

    def trust(self, *operators: Operator) -> Site:
        for operator in operators:
            path = self.folder / f"{operator.half.person}{len(self.roster)}.pub.json"
            path.write_text(render_key(operator.half))
            self.roster.append(path)
        return self

    def write(self, file: EnrolmentFile) -> Site:
        self.path.write_text(file.render())
        return self

    def refusal(self, stream: bytes = STREAM, threshold: int = 2) -> str:
        with pytest.raises(ConfigurationError) as refused:
            load_enrolment(self.path, operators=self.roster, threshold=threshold, stream=stream.hex())
        assert refused.value.hint
        assert refused.value.place
        return str(refused.value)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path).trust(ANNA, BERT)


def rewritten(change: Callable[[dict[str, Any]], object]) -> EnrolmentFile:
    """An enrolment whose altered payload both operators have signed."""
    payload = json.loads(DRAFT.payload)
    change(payload)
    return EnrolmentFile(json.dumps(payload).encode(), ()).signed(ANNA).signed(BERT)


def test_an_enrolment_signed_by_enough_persons_holds(site: Site) -> None:
    site.write(DRAFT.signed(ANNA).signed(BERT))
    enrolment = load_enrolment(site.path, operators=site.roster, threshold=2, stream=STREAM.hex())
    assert (enrolment.stream, enrolment.epoch, enrolment.producer) == (STREAM, 2, HOME.public)
    payload = base64.b64decode(json.loads(site.path.read_text())["payload"])
    assert enrolment.hash == hashlib.sha256(payload).digest()
    assert enrolment.genesis() == Head(enrolment.hash, 0, 2, bytes(16), Lsn.parse("1/A0"))


def test_the_signatures_are_no_part_of_the_beginning(site: Site) -> None:
    hashes = set()
    for file in (DRAFT.signed(ANNA).signed(BERT), DRAFT.signed(BERT).signed(ANNA)):
        site.write(file)
        hashes.add(load_enrolment(site.path, operators=site.roster, threshold=2, stream=STREAM.hex()).hash)
    assert len(hashes) == 1


def test_one_person_is_too_few(site: Site) -> None:
    message = site.write(DRAFT.signed(ANNA)).refusal()
    assert "signed by 1 of the 2 persons it needs (Anna)" in message
    assert "embassy keys sign" in message


def test_nobody_is_too_few(site: Site) -> None:
    assert "signed by 0 of the 2 persons" in site.write(DRAFT).refusal()


def test_a_signature_twice_is_one_persons(site: Site) -> None:
    signed = DRAFT.signed(ANNA)
    twice = EnrolmentFile(signed.payload, signed.signatures * 2)
    assert "signed by 1 of the 2" in site.write(twice).refusal()


def test_two_keys_of_one_person_are_one_persons(site: Site) -> None:
    site.trust(ANNAS_SECOND).write(DRAFT.signed(ANNA).signed(ANNAS_SECOND))
    assert "signed by 1 of the 2" in site.refusal()


def test_a_strangers_signature_does_not_count(site: Site) -> None:
    assert "signed by 1 of the 2" in site.write(DRAFT.signed(ANNA).signed(CARL)).refusal()


def test_a_signature_under_anothers_key_does_not_count(site: Site) -> None:
    forged = DRAFT.signed(ANNA).signed(CARL)
    theirs = forged.signatures[1]._replace(key=BERT.ed25519)
    site.write(EnrolmentFile(forged.payload, (forged.signatures[0], theirs)))
    assert "signed by 1 of the 2" in site.refusal()


def test_a_signature_over_something_else_does_not_count(site: Site) -> None:
    signed = DRAFT.signed(ANNA).signed(BERT)
    for message in (DRAFT.payload, record_message(DRAFT.payload)):
        other = signed.signatures[1]._replace(signature=BERT.sign(message))
        site.write(EnrolmentFile(signed.payload, (signed.signatures[0], other)))
        assert "signed by 1 of the 2" in site.refusal()


def test_a_changed_payload_is_not_what_was_signed(site: Site) -> None:
    signed = DRAFT.signed(ANNA).signed(BERT)
    changed = signed.payload.replace(b'"epoch":2', b'"epoch":3')
    assert changed != signed.payload
    assert "signed by 0 of the 2" in site.write(EnrolmentFile(changed, signed.signatures)).refusal()


def test_another_streams_enrolment_is_refused(site: Site) -> None:
    message = site.write(DRAFT.signed(ANNA).signed(BERT)).refusal(stream=bytes(16))
    assert f"is for stream {STREAM.hex()}, not for {bytes(16).hex()}" in message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: p.update(version=2), "version 2; this program knows 1"),
        (lambda p: p.update(version=True), "version True"),
        (lambda p: p.pop("version"), "version None"),
        (lambda p: p.update(suite=2), "suite 2; this program knows 1"),
        (lambda p: p.update(epoch=0), "damaged"),
        (lambda p: p.update(epoch=1.5), "damaged"),
        (lambda p: p.update(epoch=True), "damaged"),
        (lambda p: p.update(epoch=1 << 63), "damaged"),
        (lambda p: p.update(stream="AA" * 16), "damaged"),
        (lambda p: p.update(stream="aa"), "damaged"),
        (lambda p: p.update(start_lsn="nowhere"), "damaged"),
        (lambda p: p.update(start_lsn=7), "damaged"),
        (lambda p: p.update(more=1), "damaged"),
        (lambda p: p["producer"].update(ed25519="00"), "damaged"),
        (lambda p: p["producer"].update(rsa="00"), "damaged"),
        (lambda p: p.update(producer=[]), "damaged"),
    ],
)
def test_what_operators_should_not_have_signed_is_refused(
    site: Site, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    assert complaint in site.write(rewritten(change)).refusal()


def test_a_payload_with_a_name_twice_is_refused(site: Site) -> None:
    payload = DRAFT.payload.replace(b'"epoch":2', b'"epoch":2,"epoch":9')
    assert "stands twice" in site.write(EnrolmentFile(payload, ()).signed(ANNA).signed(BERT)).refusal()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"payload": "e30=", "signatures": {}, "more": 1}',
        '{"payload": "e30=", "signatures": 7}',
        '{"payload": "e30=", "signatures": [7]}',
        '{"payload": "e30=", "signatures": [{"key": "zz", "signature": ""}]}',
        '{"payload": "*", "signatures": []}',
        '{"payload": 7, "signatures": []}',
    ],
)
def test_what_is_no_enrolment_file_is_refused(site: Site, text: str) -> None:
    site.path.write_text(text)
    site.refusal()


def test_signatures_of_any_length_are_refused_quietly(site: Site) -> None:
    document = json.loads(DRAFT.signed(ANNA).signed(BERT).render())
    document["signatures"][0]["signature"] = "00"
    document["signatures"].append({"key": "", "signature": ""})
    site.path.write_text(json.dumps(document))
    assert "signed by 1 of the 2" in site.refusal()


def test_a_missing_enrolment_is_named(site: Site) -> None:
    assert str(site.path) in site.refusal()


def test_a_roster_with_fewer_persons_than_the_threshold_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path).trust(ANNA, ANNAS_SECOND).write(DRAFT.signed(ANNA).signed(BERT))
    assert "asks for 2 persons and keys.operators names 1" in site.refusal()


def test_one_key_listed_for_two_persons_is_refused(site: Site) -> None:
    site.trust(Operator.from_seeds(b"\x07" * 32, person="Bert's brother"))
    site.write(DRAFT.signed(ANNA).signed(BERT))
    assert "one key is listed for two persons" in site.refusal()


def test_nobody_signs_twice() -> None:
    with pytest.raises(RefusedError, match="has signed the enrolment already"):
        DRAFT.signed(ANNA).signed(ANNA)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n"])
def test_a_stream_is_thirty_two_digits(text: str) -> None:
    with pytest.raises(ValueError, match="not 32 hexadecimal digits"):
        stream_id(text)
