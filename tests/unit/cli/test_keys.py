from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from embassy.cli import main
from embassy.wire.enrolment import load_enrolment
from embassy.wire.keyring import load_operator
from embassy.wire.passphrase import VARIABLE
from embassy.wire.roster import RosterFile

STREAM = "0123456789abcdef0123456789abcdef"
_CONFIG = f"""
site = "home"
[keys]
identity = "home.json"
recipients = ["riga.pub.json"]
operators = ["anna.pub.json", "bert.pub.json"]
[streams.land]
stream = "{STREAM}"
enrolment = "land.json"
"""

pytestmark = pytest.mark.usefixtures("unconfigured")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a small site's keys were made with the command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(_CONFIG)
    for arguments in (
        ["identity", "home.json"],
        ["recipient", "riga.json"],
        ["operator", "anna.json", "--person", "Anna"],
        ["operator", "bert.json", "--person", "Bert"],
    ):
        assert main.run(["keys", "generate", *arguments]) == 0
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command says: on stdout if it is to end well, else on stderr."""
    capsys.readouterr()
    assert main.run(list(arguments)) == code
    out, err = capsys.readouterr()
    return err if code else out


def report(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main.run(list(arguments)) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_operators_enrol_a_producer_one_after_the_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrol = ["keys", "enrol", "land.json", "--stream", STREAM, "--identity", "home.pub.json", "--key", "anna.json"]
    assert "land.json: 1 signature\n" in told(capsys, *enrol)
    before = report(capsys, "-c", "config.toml", "keys", "list", "--json", code=4)["enrolments"][0]
    assert before["signers"] == ["Anna"]
    assert "signed by 1 of the 2 persons it needs" in before["problem"]
    assert "2 signatures" in told(capsys, "keys", "sign", "land.json", "--key", "bert.json", "--yes")
    operators = [folder / "anna.pub.json", folder / "bert.pub.json"]
    enrolment = load_enrolment(folder / "land.json", operators=operators, threshold=2, stream=STREAM)
    after = report(capsys, "-c", "config.toml", "--json", "keys", "list")
    (entry,) = after["enrolments"]
    assert entry == {
        "name": "land",
        "path": str(folder / "land.json"),
        "threshold": 2,
        "stream": STREAM,
        "epoch": 1,
        "start_lsn": "0/0",
        "producer": enrolment.producer.id.hex(),
        "signers": ["Anna", "Bert"],
        "successors": [],
        "problem": "",
        "remedy": "",
    }
    assert {key["setting"]: key["kind"] for key in after["keys"]} == {
        "keys.identity": "identity",
        "keys.recipients": "recipient",
        "keys.operators": "operator",
    }
    assert [key["secret"] for key in after["keys"]] == [True, False, False, False]
    assert after["keys"][0]["id"] == entry["producer"]
    shown = told(capsys, "-c", "config.toml", "keys", "list")
    assert str(folder / "land.json") in shown, "whole, at any width of the terminal"
    assert "Anna, Bert" in shown
    assert entry["producer"] in shown


def test_an_enrolment_may_be_for_a_stream_by_its_name_and_be_signed_by_all_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = report(
        capsys, "-c", "config.toml", "keys", "enrol", "land.json", "--stream", "land", "--identity", "home.pub.json",
        "--key", "anna.json", "--key", "bert.json", "--epoch", "4", "--start-lsn", "16/B374D848", "--json",
    )  # fmt: skip
    assert (made["stream"], made["epoch"], made["start_lsn"]) == (STREAM, 4, "16/B374D848")
    assert (made["signers"], made["signatures"], made["threshold"]) == (["Anna", "Bert"], 2, 2)
    assert (folder / "land.json").stat().st_mode & 0o777 == 0o644


def test_what_is_to_be_signed_is_shown_and_asked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(capsys, "keys", "enrol", "land.json", "--stream", STREAM, "--identity", "home.pub.json")
    before = (folder / "land.json").read_bytes()
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    said = told(capsys, "keys", "sign", "land.json", "--key", "anna.json", code=130)
    assert STREAM in said
    assert (folder / "land.json").read_bytes() == before
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y")
    told(capsys, "keys", "sign", "land.json", "--key", "anna.json")
    assert len(json.loads((folder / "land.json").read_text())["signatures"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["generate", "identity", "home.json"], 5, "never overwritten"),
        (["generate", "operator", "carl.json"], 2, "--person NAME belongs to an operator's key"),
        (
            ["generate", "identity", "new.json", "--person", "Carl"],
            2,
            "--person NAME belongs to an operator's key",
        ),
        (["generate", "identity", "new.json", "--passphrase"], 2, VARIABLE),
        (["enrol", "x.json", "--stream", "land", "--identity", "home.pub.json"], 2, "needs the configuration"),
        (["enrol", "x.json", "--stream", STREAM, "--identity", "home.json"], 2, "a public one belongs here"),
        (
            ["enrol", "x.json", "--stream", STREAM, "--identity", "riga.pub.json"],
            2,
            "of another kind: 'recipient'",
        ),
        (
            ["enrol", "x.json", "--stream", STREAM, "--identity", "home.pub.json", "--start-lsn", "here"],
            2,
            "not a log sequence number",
        ),
        (
            ["enrol", "home.json", "--stream", STREAM, "--identity", "home.pub.json"],
            5,
            "never overwritten",
        ),
        (["sign", "home.json", "--key", "anna.json", "--yes"], 2, "damaged"),
        (["sign", "none.json", "--key", "anna.json"], 2, "does not exist"),
        (["list"], 2, "no configuration file was named"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, complaint: str
) -> None:
    before = sorted(folder.iterdir())
    assert complaint in told(capsys, "keys", *arguments, code=code)
    assert sorted(folder.iterdir()) == before


def test_nobody_signs_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(
        capsys,
        "keys",
        "enrol",
        "land.json",
        "--stream",
        STREAM,
        "--identity",
        "home.pub.json",
        "--key",
        "anna.json",
    )
    said = told(capsys, "keys", "sign", "land.json", "--key", "anna.json", "--yes", code=5)
    assert "has signed the enrolment already" in said


def test_a_file_that_cannot_be_used_is_listed_with_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "home.json").chmod(0o644)
    (folder / "riga.pub.json").unlink()
    found = report(capsys, "-c", "config.toml", "keys", "list", "--json", code=4)
    problems = {key["setting"]: key["problem"] for key in found["keys"] if key["problem"]}
    assert problems.keys() == {"keys.identity", "keys.recipients"}
    assert "its mode is 0644" in problems["keys.identity"]
    assert "No such file" in problems["keys.recipients"]
    assert "cannot read the enrolment" in found["enrolments"][0]["problem"]


def test_a_key_under_a_passphrase_from_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phrase = folder / "phrase"
    phrase.touch(0o600)
    phrase.write_text("correct horse\n")
    monkeypatch.setenv(VARIABLE, str(phrase))
    told(capsys, "keys", "generate", "operator", "carl.json", "--person", "Carl", "--passphrase")
    assert load_operator(folder / "carl.json").public.person == "Carl"
    told(
        capsys, "keys", "enrol", "x.json", "--stream", STREAM, "--identity", "home.pub.json", "--key", "carl.json"
    )
    monkeypatch.delenv(VARIABLE)
    said = told(capsys, "keys", "sign", "x.json", "--key", "carl.json", "--yes", code=2)
    assert "needs a passphrase" in said


def test_no_command_prints_a_secret(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "keys", "generate", "identity", "more.json")
    said += told(capsys, "-c", "config.toml", "--json", "keys", "list", code=4)
    for file in ("more.json", "home.json"):
        secret = json.loads((folder / file).read_text())["secret"]
        assert not any(seed in said for seed in secret.values())


def test_whoever_signs_a_roster_sees_whose_key_becomes_another(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Persons are counted by name: with a key of her own under Bert's, Anna alone would be two of them."""
    (folder / "fake").mkdir()
    told(capsys, "keys", "generate", "operator", "fake/bert.json", "--person", "Bert")
    ids = {
        name: load_operator(folder / name).public.id.hex() for name in ("anna.json", "bert.json", "fake/bert.json")
    }
    both = [f"--operator={name}.pub.json" for name in ("anna", "bert")]
    told(capsys, "keys", "roster", "init", "roster.json", *both, "--key", "anna.json", "--key", "bert.json")
    roster = RosterFile.read(folder / "roster.json")
    keys = [load_operator(folder / name).public for name in ("anna.json", "fake/bert.json")]
    (folder / "roster.json").write_text(roster.changed(keys, 2, folder).render())
    asked = CliRunner().invoke(
        main.embassy, ["keys", "roster", "sign", "roster.json", "--key", "bert.json"], input="n\n"
    )
    words = " ".join(asked.output.split())
    assert f"version 2 adds Bert {ids['fake/bert.json']}, takes out Bert {ids['bert.json']}" in words
    shown = told(capsys, "keys", "roster", "show", "roster.json")
    assert all(found in shown for found in ids.values())
    versions = report(capsys, "keys", "roster", "show", "roster.json", "--json")["versions"]
    assert versions[1]["keys"] == {"Anna": [ids["anna.json"]], "Bert": [ids["fake/bert.json"]]}
