from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.model.lsn import Lsn
from embassy.wire.enrolment import Enrolment
from embassy.wire.key_document import render_key
from embassy.wire.keyring import Identity, Operator
from embassy.wire.promotion_plan import Plan, PlanFile, PlannedStream, Waivers, roster_hash
from embassy.wire.promotion_report import ReportFile
from embassy.wire.signed_document import Signature
from embassy.wire.suite import SUITE, enrolment_message, report_message
from embassy.wire.supersession import refuse_if_superseded
from tests.harness.envelope import ANNA, BERT, HOME, STREAM

CARL = Operator.from_seeds(b"\x09" * 32, person="Carl")
ANNAS_SECOND = Operator.from_seeds(b"\x0a" * 32, person=ANNA.half.person)
EMBASSY = Identity.from_seeds(b"\x31" * 32, b"\x32" * 32)
ROSTER = (ANNA.public, BERT.public)
PLACE = Path("plan.json")
PLAN = Plan(
    mode="disaster",
    site="embassy-1",
    nonce=bytes(range(16)),
    made_at=1_700_000_000,
    accept_loss_seconds=600,
    waivers=Waivers(),
    roster=roster_hash(ROSTER, 2),
    identity=EMBASSY.public,
    streams=(PlannedStream("land", STREAM, 1, 2, bytes(32), 7, Lsn.parse("0/A0"), 1_700_001_800),),
)
DRAFT = PlanFile.draft(PLAN)
APPROVED = DRAFT.signed(ANNA).signed(BERT)
ENROLMENT = Enrolment(STREAM, 1, SUITE, HOME.public, Lsn(0), bytes(32))


def report(plan: PlanFile = APPROVED, signer: Identity = EMBASSY, **entry: Any) -> ReportFile:
    return ReportFile.made(plan, [{"name": "land", "stream": STREAM.hex(), **entry}], signer)


def test_a_plan_says_what_was_planned() -> None:
    assert DRAFT.parsed(PLACE) == PLAN
    assert PlanFile.parse(APPROVED.render().encode(), PLACE) == APPROVED


def test_persons_are_counted_never_signatures_or_keys() -> None:
    two_keys = (*ROSTER, ANNAS_SECOND.public)
    assert APPROVED.signers(ROSTER) == {ANNA.half.person, BERT.half.person}
    assert DRAFT.signed(ANNA).signed(ANNAS_SECOND).signers(two_keys) == {ANNA.half.person}
    twice = replace(DRAFT, signatures=DRAFT.signed(ANNA).signatures * 2)
    assert len(twice.signers(ROSTER)) == 1
    assert DRAFT.signed(CARL).signers(ROSTER) == frozenset()


@pytest.mark.parametrize(
    "message", [DRAFT.payload, enrolment_message(DRAFT.payload), report_message(DRAFT.payload)]
)
def test_a_signature_of_another_kind_approves_nothing(message: bytes) -> None:
    made = Signature(ANNA.ed25519, ANNA.sign(message))
    assert replace(DRAFT, signatures=(made,)).signers(ROSTER) == frozenset()


def test_an_approval_is_of_exact_bytes() -> None:
    altered = APPROVED.payload.replace(b'"accept_loss_seconds":600', b'"accept_loss_seconds":601')
    assert altered != APPROVED.payload
    assert replace(APPROVED, payload=altered).signers(ROSTER) == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(version=2),
        lambda p: p.update(version=True),
        lambda p: p.update(mode="coup"),
        lambda p: p.update(nonce="00"),
        lambda p: p.update(site=""),
        lambda p: p.update(streams=[]),
        lambda p: p.update(streams=p["streams"] * 2),
        lambda p: p.update(accept_undrained=1),
        lambda p: p.update(more=1),
        lambda p: p["streams"][0].update(to_epoch=-1),
        lambda p: p["streams"][0].update(to_epoch=2.0),
        lambda p: p["streams"][0].pop("expires_at"),
        lambda p: p["identity"].update(ed25519="00"),
    ],
)
def test_a_plan_of_another_form_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    payload = json.loads(DRAFT.payload)
    change(payload)
    with pytest.raises(ConfigurationError):
        PlanFile(json.dumps(payload).encode()).parsed(PLACE)


def test_another_roster_or_threshold_is_another_hash() -> None:
    hashes = {
        roster_hash(ROSTER, 2),
        roster_hash(ROSTER, 3),
        roster_hash(ROSTER[:1], 2),
        roster_hash((*ROSTER, CARL.public), 2),
    }
    assert len(hashes) == 4
    assert roster_hash(ROSTER[::-1], 2) == roster_hash(ROSTER, 2)


def test_a_report_proves_the_promotion_that_two_persons_approved() -> None:
    proven = report().proven(ROSTER, 2, PLACE)
    assert proven.plan == PLAN
    assert proven.persons == {ANNA.half.person, BERT.half.person}
    assert (proven.epoch_of(STREAM), proven.epoch_of(bytes(16))) == (2, None)


def test_a_plan_that_was_given_up_promotes_nothing() -> None:
    proven = report(aborted=True).proven(ROSTER, 2, PLACE)
    assert proven.epoch_of(STREAM) is None
    assert proven.was_given_up(STREAM)


def test_a_report_that_proves_nothing_is_refused() -> None:
    whole = report()
    other = Identity.from_seeds(b"\x41" * 32, b"\x42" * 32)
    halves = whole.signature[:64] + report(signer=other).signature[64:]
    for bad in (
        report(DRAFT.signed(ANNA)),
        report(signer=other),
        replace(whole, signature=halves),
        replace(whole, signature=whole.signature[:64]),
        replace(whole, payload=whole.payload.replace(b'"land"', b'"sea!"')),
    ):
        with pytest.raises(ConfigurationError):
            bad.proven(ROSTER, 2, PLACE)
    with pytest.raises(ConfigurationError):
        whole.proven((ANNA.public,), 1, PLACE)  # however low the threshold is, nobody promotes alone


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, operator in enumerate((ANNA, BERT)):
        (tmp_path / f"{number}.pub.json").write_text(render_key(operator.half))
    return tmp_path


def test_home_learns_from_a_report_beside_its_enrolment(home: Path) -> None:
    operators = sorted(home.glob("*.pub.json"))
    refuse_if_superseded(ENROLMENT, home, operators=operators, threshold=2)
    beside = home / "of-riga.report.json"
    beside.write_text(report().render())
    with pytest.raises(RefusedError, match="embassy-1 was promoted to epoch 2"):
        refuse_if_superseded(ENROLMENT, home, operators=operators, threshold=2)
    refuse_if_superseded(replace(ENROLMENT, epoch=2), home, operators=operators, threshold=2)
    refuse_if_superseded(replace(ENROLMENT, stream=bytes(16)), home, operators=operators, threshold=2)
    beside.write_text(report(aborted=True).render())
    refuse_if_superseded(ENROLMENT, home, operators=operators, threshold=2)
    document = json.loads(report().render())
    document["payload"] = base64.b64encode(b"{}").decode()
    beside.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError):
        refuse_if_superseded(ENROLMENT, home, operators=operators, threshold=2)
