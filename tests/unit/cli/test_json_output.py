"""Whoever asks for JSON gets one object, and nothing beside it, from commands that change something too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embassy.cli import main
from embassy.wire.promotion_plan import PlanFile
from tests.harness.envelope import ANNA, BERT, STREAM
from tests.harness.key_files import write_operator
from tests.unit.wire.test_promotion_documents import CARL, PLAN

pytestmark = pytest.mark.usefixtures("unconfigured")

_CONFIG = f"""
site = "embassy-1"
[keys]
identity = "identity"
recipient = "secret"
recipients = ["public"]
operators = ["anna.pub.json", "bert.pub.json"]
[streams.land]
stream = "{STREAM.hex()}"
enrolment = "land.json"
"""
_PEOPLE = ("--operator", "anna.pub.json", "--operator", "bert.pub.json")
_KEYS = ("--key", "anna.json", "--key", "bert.json")
_MADE: dict[str, tuple[tuple[str, ...], ...]] = {
    "roster": (("keys", "roster", "init", "roster.json", *_PEOPLE, *_KEYS),),
    "enrolment": (
        ("keys", "generate", "identity", "home.json"),
        ("keys", "enrol", "land.json", "--stream", STREAM.hex(), "--identity", "home.pub.json", *_KEYS),
    ),
    "recipient": (("keys", "generate", "recipient", "riga.json"),),
    "escrow": (
        ("keys", "generate", "recipient", "riga.json"),
        ("keys", "escrow", "split", "riga.json", "--to", "paper", "--custodians", "2", "--threshold", "2"),
    ),
}
_COMMANDS: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    ("keys", "roster", "init", "roster.json", *_PEOPLE, "--key", "anna.json"): (
        "",
        {"schema": "embassy.roster-version/1", "number": 1, "signers": ["Anna"], "counts": False},
    ),
    ("keys", "roster", "add", "roster.json", "--operator", "carl.pub.json", "--key", "anna.json"): (
        "roster",
        {"number": 2, "persons": ["Anna", "Bert", "Carl"], "counts": False},
    ),
    ("keys", "roster", "remove", "roster.json", "--person", "Bert", "--threshold", "1", "--key", "bert.json"): (
        "roster",
        {"number": 2, "threshold": 1, "persons": ["Anna"], "signers": ["Bert"]},
    ),
    ("keys", "rotate", "recipient"): ("", {"schema": "embassy.keys-rotate-recipient/1"}),
    ("keys", "rotate", "identity"): ("enrolment", {"schema": "embassy.keys-rotate-identity/1"}),
    ("keys", "announce", "riga.pub.json"): ("recipient", {"schema": "embassy.keys-announce/1"}),
    ("keys", "escrow", "split", "riga.json", "--to", "paper"): (
        "recipient",
        {"schema": "embassy.keys-escrow/1", "custodians": 5, "threshold": 3},
    ),
    (
        "keys",
        "escrow",
        "recover",
        "paper/escrow.json",
        "paper/share-1.json",
        "paper/share-2.json",
        "--to",
        "x.json",
    ): (
        "escrow",
        {"schema": "embassy.keys-recovered/1", "secret": "x.json"},
    ),
    ("promote", "approve", "plan.json", "--key", "anna.json", "--yes"): (
        "",
        {"schema": "embassy.promotion-approval/1", "by": "Anna", "approvers": ["Anna"]},
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(_CONFIG)
    for name in ("identity", "secret", "public"):
        (tmp_path / name).mkdir(0o700)
    for operator in (ANNA, BERT, CARL):
        write_operator(tmp_path / f"{operator.half.person.lower()}.json", operator)
    (tmp_path / "plan.json").write_text(PlanFile.draft(PLAN).render())
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_the_option_in_front_is_heeded(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    before, expected = _COMMANDS[command]
    for made in _MADE.get(before, ()):
        assert main.run(list(made)) == 0
    capsys.readouterr()
    assert main.run(["-c", "config.toml", "--json", *command]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.items() >= expected.items()
    assert said["schema"].startswith("embassy.")
