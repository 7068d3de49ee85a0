from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embassy.cli.auditing import VARIABLE
from embassy.runtime.audit_chain import read_entries
from embassy.runtime.audit_line import JSON
from embassy.runtime.audit_log import AuditLog
from embassy.wire.keyring import generate_identity, generate_operator
from tests.harness.command import embassy

STREAM = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "admin.toml"
    path.write_text(
        f'site = "home"\n[streams.land]\nstream = "{STREAM}"\nenrolment = "land.json"\n'
        "[keys]\noperators = ['anna.pub.json', 'bert.pub.json']\n"
    )
    generate_identity(tmp_path / "home.json")
    for person in ("anna", "bert"):
        generate_operator(tmp_path / f"{person}.json", person=person.title())
    return path


def _enrol(config: Path, *keys: str, code: int = 0) -> None:
    folder = config.parent
    named = [part for key in keys for part in ("--key", str(folder / key))]
    identity = str(folder / "home.pub.json")
    embassy(
        config,
        "keys",
        "enrol",
        str(folder / "land.json"),
        "--stream",
        "land",
        "--identity",
        identity,
        *named,
        code=code,
    )


def test_what_operators_do_is_recorded_before_and_after_and_so_are_refusals(config: Path) -> None:
    folder = config.parent
    _enrol(config, "anna.json")
    embassy(config, "keys", "sign", str(folder / "land.json"), "--key", str(folder / "bert.json"), "--yes")
    embassy(config, "keys", "sign", str(folder / "land.json"), "--key", str(folder / "bert.json"), "--yes", code=5)
    embassy(config, "keys", "sign", str(folder / "land.json"), "--key", str(folder / "none.json"), "--yes", code=2)
    entries = list(read_entries(folder / "audit.jsonl"))
    assert [(entry.action, entry.outcome) for entry in entries] == [
        ("keys.enrol", "begun"),
        ("keys.enrol", "ok"),
        ("keys.sign", "begun"),
        ("keys.sign", "ok"),
        ("keys.sign", "begun"),
        ("keys.sign", "refused"),
        ("keys.sign", "begun"),
        ("keys.sign", "failed"),
    ]
    assert entries[1].details["persons"] == ["Anna"]
    assert entries[3].details["persons"] == ["Bert"]
    assert "has signed the enrolment already" in entries[5].details["error"]
    assert all("@" in entry.actor for entry in entries)


def test_no_secret_is_in_the_record(config: Path) -> None:
    _enrol(config, "anna.json", "bert.json")
    text = (config.parent / "audit.jsonl").read_text()
    for file in ("home.json", "anna.json", "bert.json"):
        secret = json.loads((config.parent / file).read_text())["secret"]
        assert not any(seed in text for seed in secret.values())


def test_what_cannot_be_recorded_is_not_done(config: Path) -> None:
    (config.parent / "audit.jsonl").touch(0o644)
    _enrol(config, "anna.json", code=2)
    assert not (config.parent / "land.json").exists()


def test_an_entry_is_one_line_whatever_its_details_hold(config: Path) -> None:
    forged = "3    2026-01-31T12:00:00.000Z  anna@home  promote.abort  ok"
    details: dict[str, JSON] = {"reason": f"{'long ' * 60}\n{forged}", "streams": ["land", "people"]}
    log = AuditLog(config.parent / "audit.jsonl")
    log.append("home.fence", actor="bert@home", outcome="begun", details=details)
    (line,) = embassy(config, "audit", "log").stdout.splitlines()
    assert "home.fence  begun" in line
    assert f"\\n{forged}" in line
    assert line.endswith('streams=["land", "people"]')


def test_the_log_is_shown_and_proven_and_a_broken_chain_ends_with_9(config: Path) -> None:
    _enrol(config, "anna.json")
    path = config.parent / "audit.jsonl"
    done = embassy(config, "audit", "log")
    assert "keys.enrol" in done.stdout
    said = embassy(config, "audit", "log", "--verify").stdout
    assert "2 entries, unbroken; head " in said
    head = said.split()[-1]
    embassy(config, "audit", "log", "--verify", "--expect", head)
    report: dict[str, Any] = json.loads(embassy(config, "audit", "log", "--json", "--since", "1h").stdout)
    assert (report["unbroken"], report["head"], len(report["entries"])) == (True, head, 2)
    assert json.loads(embassy(config, "audit", "log", "--json", "--since", "2999-01-01").stdout)["entries"] == []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])
    assert "is not in the audit log" in embassy(config, "audit", "log", "--expect", head, code=9).stderr
    path.write_bytes(lines[0] + lines[1].replace(b"Anna", b"Bert"))
    done = embassy(config, "audit", "log", "--verify", code=9)
    assert f"{path}:2" in done.stderr
    broken = json.loads(embassy(config, "audit", "log", "--json", code=9).stdout)
    assert (broken["unbroken"], len(broken["entries"])) == (False, 1)
    embassy(config, "audit", "log", "--since", "yesterday", code=2)


def test_without_a_configuration_the_variable_names_the_log(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "own.jsonl"
    monkeypatch.setenv(VARIABLE, str(elsewhere))
    _enrol(config, "anna.json")
    assert [entry.outcome for entry in read_entries(elsewhere)] == ["begun", "ok"]
    assert not (config.parent / "audit.jsonl").exists()


def test_a_line_that_a_crash_tore_is_noted(config: Path) -> None:
    AuditLog(config.parent / "audit.jsonl").append("a", actor="b", outcome="ok", details={})
    with (config.parent / "audit.jsonl").open("ab") as file:
        file.write(b'{"act')
    done = embassy(config, "audit", "log", "--verify")
    assert "5 bytes of an unfinished last line" in done.stderr
