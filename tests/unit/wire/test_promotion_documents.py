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
from embassy.wire.enrolment import Enrolment, load_rosters
from embassy.wire.key_document import render_key
from embassy.wire.keyring import Identity, Operator
from embassy.wire.promotion_plan import Plan, PlanFile, PlannedStream, Waivers, roster_hash
from embassy.wire.promotion_report import ReportFile
from embassy.wire.roster import Roster, RosterFile
from embassy.wire.signed_document import Signature
from embassy.wire.suite import SUITE, enrolment_message, report_message
from embassy.wire.supersession import refuse_if_superseded
from tests.harness.envelope import ANNA, BERT, HOME, STREAM

CARL = Operator.from_seeds(b"\x09" * 32, person="Carl")
ANNAS_SECOND = Operator.from_seeds(b"\x0a" * 32, person=ANNA.half.person)
EMBASSY = Identity.from_seeds(b"\x31" * 32, b"\x32" * 32)
ROSTER = (ANNA.public, BERT.public)
ROSTERS = (Roster(0, 2, ROSTER),)
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
    for waivers in (
        Waivers(undrained=True),
        Waivers(violations=True),
        Waivers(differences=True),
        Waivers(incomplete=True),
    ):
        asked = replace(PLAN, waivers=waivers)
        assert PlanFile.draft(asked).parsed(PLACE) == asked
    assert b"incomplete" not in DRAFT.payload, "earlier versions read every plan that does not ask for it"
    assert PlanFile.parse(APPROVED.render().encode(), PLACE) == APPROVED


def test_a_report_in_the_place_of_a_plan_is_called_that() -> None:
    with pytest.raises(ConfigurationError, match="a report or a proof, and no promotion plan") as refused:
        PlanFile.parse(report().render().encode(), PLACE)
    assert "name the promotion plan" in refused.value.hint


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
    proven = report().proven(ROSTERS, PLACE)
    assert proven.plan == PLAN
    assert proven.persons == {ANNA.half.person, BERT.half.person}
    assert (proven.epoch_of(STREAM), proven.epoch_of(bytes(16))) == (2, None)


def test_a_plan_that_was_given_up_promotes_nothing() -> None:
    proven = report(aborted=True).proven(ROSTERS, PLACE)
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
            bad.proven(ROSTERS, PLACE)
    with pytest.raises(ConfigurationError):
        whole.proven((Roster(0, 1, ROSTER[:1]),), PLACE)  # however low the threshold is, nobody promotes alone


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, operator in enumerate((ANNA, BERT)):
        (tmp_path / f"{number}.pub.json").write_text(render_key(operator.half))
    return tmp_path


ANNA_AND_CARL = Roster(2, 2, (ANNA.public, CARL.public))


def test_a_report_is_proven_by_who_were_the_operators_when_its_plan_was_made() -> None:
    rosters = (Roster(1, 2, ROSTER), ANNA_AND_CARL)
    proven = report().proven(rosters, PLACE)
    assert proven.persons == {"Anna", "Bert"}
    assert proven.still_operators == {"Anna"}
    assert report().proven((*rosters, Roster(3, 1, (CARL.public,))), PLACE).still_operators == frozenset()
    with pytest.raises(ConfigurationError, match="approved by 1 of the operators") as caught:
        report().proven(rosters[1:], PLACE)
    assert "keeps its earlier versions" in str(caught.value.hint)


def test_whoever_left_approves_nothing_for_those_who_are_there() -> None:
    """Bert has left: his signature counts for what the old version was asked, and for nothing else."""
    rosters = (Roster(1, 2, ROSTER), ANNA_AND_CARL)
    present = roster_hash(ANNA_AND_CARL.operators, 2)
    for named in (present, bytes(32)):
        forged = PlanFile.draft(replace(PLAN, roster=named)).signed(ANNA).signed(BERT)
        with pytest.raises(ConfigurationError, match="approved by 1 of the operators"):
            report(forged).proven(rosters, PLACE)
    alone = PlanFile.draft(PLAN).signed(BERT).signed(CARL)
    with pytest.raises(ConfigurationError):
        report(alone).proven(rosters, PLACE)


def test_the_operators_of_now_prove_a_report_of_a_list_that_has_grown_since() -> None:
    assert report().proven((Roster(0, 2, (*ROSTER, CARL.public)),), PLACE).persons == {"Anna", "Bert"}


def test_a_threshold_is_that_of_its_version() -> None:
    three = Roster(1, 3, (*ROSTER, CARL.public))
    old = PlanFile.draft(replace(PLAN, roster=roster_hash(three.operators, 3))).signed(ANNA).signed(BERT)
    rosters = (three, ANNA_AND_CARL)
    with pytest.raises(ConfigurationError):
        report(old).proven(rosters, PLACE)
    assert report(old.signed(CARL)).proven(rosters, PLACE).persons == {"Anna", "Bert", "Carl"}


def test_an_embassy_gives_up_a_plan_of_its_own_whoever_has_approved_it() -> None:
    word = report(DRAFT, aborted=True).given_up(PLACE)
    assert word.plan == DRAFT.payload_hash
    assert word.streams == {STREAM}
    assert report(DRAFT).given_up(PLACE).streams == frozenset(), "what was promoted is not given up"
    elsewhere = ReportFile.made(DRAFT, [{"stream": bytes(16).hex(), "aborted": True}], EMBASSY)
    assert elsewhere.given_up(PLACE).streams == frozenset(), "a stream that the plan is not about"
    other = Identity.from_seeds(b"\x41" * 32, b"\x42" * 32)
    with pytest.raises(ConfigurationError, match="not signed by the embassy"):
        report(DRAFT, signer=other, aborted=True).given_up(PLACE)


def test_home_learns_from_a_report_beside_its_enrolment(home: Path) -> None:
    operators = sorted(home.glob("*.pub.json"))

    def refuse(enrolment: Enrolment = ENROLMENT) -> None:
        refuse_if_superseded(enrolment, home, operators=operators, threshold=2)

    refuse()
    beside = home / "of-riga.report.json"
    beside.write_text(report().render())
    with pytest.raises(RefusedError, match="embassy-1 was promoted to epoch 2"):
        refuse()
    refuse(replace(ENROLMENT, epoch=2))
    refuse(replace(ENROLMENT, stream=bytes(16)))
    beside.write_text(report(aborted=True).render())
    refuse()
    beside.write_text(report(DRAFT).render())
    with pytest.raises(ConfigurationError, match="approved by 0"):
        refuse()
    refuse(replace(ENROLMENT, epoch=2))  # it claims nothing that is not so
    document = json.loads(report().render())
    document["payload"] = base64.b64encode(b"{}").decode()
    beside.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError):
        refuse()


def test_home_learns_it_from_persons_who_have_left_since(home: Path) -> None:
    first = RosterFile.begin(ROSTER, 2).signed(ANNA).signed(BERT)
    changed = first.changed(ANNA_AND_CARL.operators, 2, PLACE).signed(ANNA).signed(BERT)
    path = home / "roster.json"
    path.write_text(changed.render())
    assert [r.number for r in load_rosters([path], 2)] == [1], (
        "a version that nobody new has signed does not count"
    )
    path.write_text(changed.signed(CARL).render())
    assert [r.persons for r in load_rosters([path], 2)] == [("Anna", "Bert"), ("Anna", "Carl")]
    (home / "of-riga.report.json").write_text(report().render())
    with pytest.raises(RefusedError, match="approved by Anna and Bert"):
        refuse_if_superseded(ENROLMENT, home, operators=[path], threshold=2)
