from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embassy.cli import main
from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.enrolment import load_roster
from embassy.wire.key_document import render_key
from embassy.wire.keyring import Operator
from embassy.wire.public_keys import PublicOperator
from embassy.wire.roster import Roster, RosterFile, RosterVersion, without
from embassy.wire.signed_document import Signature
from tests.harness.envelope import ANNA, BERT
from tests.harness.key_files import write_operator

CARL = Operator.from_seeds(b"\x41" * 32, person="Carl")
DORA = Operator.from_seeds(b"\x42" * 32, person="Dora")
ANNAS_SECOND = Operator.from_seeds(b"\x43" * 32, person="Anna")
PLACE = Path("roster.json")


def signed(file: RosterFile, *operators: Operator) -> RosterFile:
    for operator in operators:
        file = file.signed(operator)
    return file


def public(*operators: Operator) -> list[PublicOperator]:
    return [operator.public for operator in operators]


FIRST = signed(RosterFile.begin(public(ANNA, BERT, CARL), 2), ANNA, BERT)


def number(file: RosterFile) -> int:
    return file.proven(None, PLACE).number


def test_a_version_counts_once_the_old_ones_threshold_has_signed_it_and_its_own() -> None:
    second = FIRST.changed(public(ANNA, BERT, DORA), 2, PLACE)
    assert number(FIRST) == number(second) == number(signed(second, ANNA)) == 1
    assert number(signed(second, ANNA, DORA)) == 1, "one person of the old version is too few"
    assert number(signed(second, ANNA, CARL)) == 1, "one person of the new version is too few"
    found = signed(second, ANNA, BERT).proven(None, PLACE)
    assert (found.number, found.persons) == (2, ("Anna", "Bert", "Dora"))


def test_those_who_left_cannot_bring_themselves_back() -> None:
    second = signed(FIRST.changed(public(ANNA, BERT), 2, PLACE), ANNA, BERT)
    third = signed(second.changed(public(CARL, DORA), 1, PLACE), CARL, DORA)
    assert number(third) == 2
    later = signed(third.changed(public(CARL), 1, PLACE), ANNA, BERT, CARL)
    assert number(later) == 2, "nothing counts behind a version that does not"


def test_a_raised_threshold_has_to_be_met_by_the_new_version_too() -> None:
    second = FIRST.changed(public(ANNA, BERT, CARL), 3, PLACE)
    assert number(signed(second, ANNA, BERT)) == 1
    assert signed(second, ANNA, BERT, CARL).proven(None, PLACE).threshold == 3


def test_one_person_with_two_keys_is_one_and_nobody_signs_twice() -> None:
    file = RosterFile.begin(public(ANNA, ANNAS_SECOND, BERT), 2)
    with pytest.raises(ConfigurationError, match="not signed by enough"):
        number(signed(file, ANNA, ANNAS_SECOND))
    assert number(signed(file, ANNAS_SECOND, BERT)) == 1
    with pytest.raises(RefusedError, match="already"):
        signed(file, ANNA, ANNA)


def test_a_first_version_is_bound_to_the_key_files_beside_it() -> None:
    assert FIRST.proven(Roster(0, 1, (ANNA.public,)), PLACE).number == 1
    with pytest.raises(ConfigurationError, match="first version"):
        FIRST.proven(Roster(0, 1, (DORA.public,)), PLACE)


@pytest.mark.parametrize(
    "members",
    [
        {"number": 3},
        {"number": 1},
        {"number": True},
        {"previous": "00" * 32},
        {"version": 2},
        {"threshold": 0},
        {"threshold": 4},
        {"threshold": True},
        {"operators": []},
        {"operators": [{"person": "Anna", "ed25519": "00"}]},
        {"operators": [{"person": " ", "ed25519": "00" * 32}]},
        {"operators": [{"person": "Anna", "ed25519": "00" * 32}] * 2},
        {"operators": 5},
        {"more": 1},
    ],
)
def test_a_version_that_does_not_follow_is_refused_whoever_signed_it(members: dict[str, Any]) -> None:
    second = FIRST.changed(public(ANNA, BERT, CARL), 2, PLACE)
    payload = json.loads(second.versions[1].payload) | members
    version = RosterVersion(json.dumps(payload).encode()).signed(ANNA).signed(BERT)
    with pytest.raises(ConfigurationError, match="version 2 of the roster cannot be used"):
        number(RosterFile((FIRST.versions[0], version)))


def test_signatures_of_another_version_or_document_do_not_serve() -> None:
    second = FIRST.changed(public(ANNA, BERT, CARL), 2, PLACE)
    borrowed = replace(second.versions[1], signatures=FIRST.versions[0].signatures)
    assert number(RosterFile((FIRST.versions[0], borrowed))) == 1
    bare = tuple(Signature(o.ed25519, o.sign(second.versions[1].payload)) for o in (ANNA, BERT))
    assert number(RosterFile((FIRST.versions[0], replace(second.versions[1], signatures=bare)))) == 1


def test_the_configuration_takes_a_roster_where_it_takes_key_files(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_text(FIRST.render())
    assert RosterFile.read(path) == FIRST
    assert {operator.person for operator in load_roster([path], 2)} == {"Anna", "Bert", "Carl"}
    with pytest.raises(ConfigurationError, match=r"keys\.threshold is 3"):
        load_roster([path], 3)
    beside = tmp_path / "anna.pub.json"
    beside.write_text(render_key(ANNA.half))
    assert len(load_roster([beside, path], 2)) == 3
    beside.write_text(render_key(DORA.half))
    with pytest.raises(ConfigurationError, match="first version"):
        load_roster([beside, path], 2)
    with pytest.raises(ConfigurationError, match="two rosters"):
        load_roster([path, path], 2)


@pytest.mark.parametrize("text", ["{}", '{"format": "data-embassy roster 1"}', '{"format": "x", "versions": [1]}'])
def test_what_is_no_roster_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "roster.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="damaged"):
        RosterFile.read(path)


def test_whoever_is_not_in_it_cannot_be_taken_out() -> None:
    with pytest.raises(RefusedError, match="Dora is not in the roster"):
        without(FIRST.proven(None, PLACE), ["Dora"])


def test_operators_change_it_command_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for operator in (ANNA, BERT, CARL):
        write_operator(tmp_path / f"{operator.half.person.lower()}.json", operator)

    def told(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main.run(["keys", "roster", *arguments]) == code
        out, err = capsys.readouterr()
        return err if code else out

    operators = ["--operator", "anna.pub.json", "--operator", "bert.pub.json"]
    assert "does not count yet" in told("init", "roster.json", *operators, "--key", "anna.json")
    assert "still to be signed" in told("add", "roster.json", "--operator", "carl.pub.json", code=5)
    assert ": it counts" in told("sign", "roster.json", "--key", "bert.json", "--yes")
    told("add", "roster.json", "--operator", "carl.pub.json", "--key", "anna.json", "--key", "bert.json")
    assert "Dora is not in the roster" in told("remove", "roster.json", "--person", "Dora", code=5)
    told("remove", "roster.json", "--person", "Anna", "--key", "bert.json")
    assert "version 3, 2 of 2; signed by Bert, Carl: it counts" in told(
        "sign", "roster.json", "--key", "carl.json", "--yes"
    )
    versions = json.loads(told("show", "roster.json", "--json"))["versions"]
    assert [(v["number"], v["persons"], v["counts"]) for v in versions] == [
        (1, ["Anna", "Bert"], False),
        (2, ["Anna", "Bert", "Carl"], False),
        (3, ["Bert", "Carl"], True),
    ]
    assert "to be signed" not in told("show", "roster.json")
