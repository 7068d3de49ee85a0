"""A person who has approved one embassy for an epoch does not approve another one for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.given_approvals import GivenApprovals, is_majority
from embassy.wire.keyring import Identity
from embassy.wire.promotion_plan import Plan, PlanFile
from embassy.wire.promotion_report import GivenUp, ReportFile
from tests.harness.envelope import ANNA, BERT, STREAM
from tests.unit.wire.test_promotion_documents import CARL, DRAFT, EMBASSY, PLAN

OTHER = Identity.from_seeds(b"\x41" * 32, b"\x42" * 32)
THERE = dataclasses.replace(PLAN, site="embassy-2", nonce=bytes(16), identity=OTHER.public)
KEPT = Path("kept.json")


NOTHING = GivenApprovals()


def given_for(plan: Plan, before: GivenApprovals = NOTHING) -> GivenApprovals:
    return before.with_plan(PlanFile.draft(plan), plan)


def refuse(before: GivenApprovals, *, given_up: tuple[GivenUp, ...] = (), lost: tuple[str, ...] = ()) -> None:
    before.refuse_second_embassy(THERE, given_up=given_up, lost=lost, place=KEPT)


def test_a_second_embassy_is_refused_and_named() -> None:
    with pytest.raises(RefusedError, match="embassy-1 becomes land in epoch 2") as caught:
        refuse(given_for(PLAN))
    assert "--site-lost embassy-1" in str(caught.value.hint)


def test_the_same_embassy_and_another_epoch_or_stream_are_not() -> None:
    given = given_for(PLAN)
    given.refuse_second_embassy(dataclasses.replace(PLAN, nonce=bytes(16)), given_up=(), lost=(), place=KEPT)
    (planned,) = PLAN.streams
    for changed in (planned._replace(to_epoch=3), planned._replace(stream=bytes(16))):
        elsewhere = dataclasses.replace(PLAN, streams=(changed,))
        refuse(given_for(elsewhere))


def proof(file: PlanFile = DRAFT, signer: Identity = EMBASSY, **entry: bool) -> GivenUp:
    return ReportFile.made(file, [{"name": "land", "stream": STREAM.hex(), **entry}], signer).given_up(KEPT)


@pytest.mark.parametrize("file", [DRAFT, DRAFT.signed(ANNA), DRAFT.signed(ANNA).signed(BERT)])
def test_the_proof_of_its_abort_frees_the_epoch_and_that_of_its_run_does_not(file: PlanFile) -> None:
    given = given_for(PLAN)
    refuse(given, given_up=(proof(file, aborted=True),))
    with pytest.raises(RefusedError):
        refuse(given, given_up=(proof(file),))


def test_no_embassy_gives_up_what_was_approved_for_another() -> None:
    given = given_for(PLAN)
    another = PlanFile.draft(dataclasses.replace(PLAN, identity=OTHER.public))
    other_plan = PlanFile.draft(dataclasses.replace(PLAN, nonce=bytes(16)))
    half = Identity.from_seeds(b"\x31" * 32, b"\x42" * 32)  # who has broken Ed25519 has one of the two keys
    halves = PlanFile.draft(dataclasses.replace(PLAN, identity=half.public))
    assert half.public.ed25519 == EMBASSY.public.ed25519
    for word in (
        proof(another, OTHER, aborted=True),
        proof(other_plan, aborted=True),
        proof(halves, half, aborted=True),
    ):
        with pytest.raises(RefusedError, match="embassy-1 becomes land"):
            refuse(given, given_up=(word,))


def test_a_site_that_is_declared_lost_does_not_stand_in_the_way() -> None:
    refuse(given_for(PLAN), lost=("embassy-1",))
    with pytest.raises(RefusedError):
        refuse(given_for(PLAN), lost=("embassy-3",))


def test_what_was_given_is_kept_for_its_owner_alone_and_a_damaged_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "anna.approvals.json"
    assert GivenApprovals.read(path) == GivenApprovals()
    given_for(PLAN).write(path)
    both = given_for(THERE, given_for(THERE, GivenApprovals.read(path)))
    both.write(path)
    assert GivenApprovals.read(path) == both
    assert len(both.given) == 2
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(path.read_text())
    document["given"][0]["to_epoch"] = "2"
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match="damaged"):
        GivenApprovals.read(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others"):
        GivenApprovals.read(path)


def test_two_of_three_is_a_majority_and_two_of_four_is_none() -> None:
    three = (ANNA.public, BERT.public, CARL.public)
    assert is_majority(three, 2)
    assert not is_majority((*three, CARL.public._replace(person="Dora")), 2)
