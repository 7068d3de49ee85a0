from __future__ import annotations

import json
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embassy.model.errors import ConfigurationError, IntegrityError
from embassy.runtime.audit_chain import read_entries, verify
from embassy.runtime.audit_line import TORN
from embassy.runtime.audit_log import AuditLog
from embassy.runtime.audit_tail import newest_entries


def _log(path: Path) -> AuditLog:
    return AuditLog(path, lambda: datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of three entries."""
    path = tmp_path / "audit.jsonl"
    log = _log(path)
    for number in range(3):
        log.append("keys.sign", actor="anna@desk", outcome="ok", details={"number": number, "what": "õ\n"})
    return path


def test_entries_are_read_as_they_were_written_and_only_the_owner_may(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    entries = list(read_entries(path))
    assert [(entry.sequence, entry.details["number"]) for entry in entries] == [(1, 0), (2, 1), (3, 2)]
    assert {entry.at for entry in entries} == {"2026-01-02T03:04:05.006Z"}
    assert verify(path) == (3, entries[-1].hash, 0)


def test_any_changed_missing_doubled_or_moved_line_is_named(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for changed, line in (
        ([lines[0], lines[1].replace(b"anna", b"bert"), lines[2]], 2),
        ([lines[0], lines[1].replace(b'"ok"', b'"no"'), lines[2]], 2),
        ([lines[0], lines[2]], 2),
        ([lines[1], lines[2]], 1),
        ([lines[0], lines[1], lines[1], lines[2]], 3),
        ([lines[1], lines[0], lines[2]], 1),
        ([lines[0], b"\n", lines[1], lines[2]], 2),
        ([lines[0], b"nothing\n", lines[1], lines[2]], 2),
        ([*lines, b"nothing\n"], 4),
        ([lines[0], lines[1], lines[2].replace(b"anna", b"bert")], 3),
    ):
        path.write_bytes(b"".join(changed))
        with pytest.raises(IntegrityError) as caught:
            verify(path)
        assert caught.value.place == f"{path}:{line}"


@given(at=st.integers(0), bit=st.integers(0, 7))
def test_no_bit_can_be_flipped(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log = _log(path)
    for number in range(2):
        log.append("a", actor="b", outcome="ok", details={"n": number})
    head = verify(path).head
    text = bytearray(path.read_bytes())
    text[at % len(text)] ^= 1 << bit
    path.write_bytes(text)
    with pytest.raises(IntegrityError):
        verify(path, expected=head)


def test_a_log_whose_end_was_cut_off_lacks_the_head_that_was_noted(path: Path) -> None:
    head = verify(path).head
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert verify(path).entries == 2
    with pytest.raises(IntegrityError, match="is not in the audit log"):
        verify(path, expected=head)
    path.write_bytes(b"".join(lines))
    _log(path).append("more", actor="a", outcome="ok", details={})
    assert verify(path, expected=head).entries == 4


@given(kept=st.integers(0, 400), more=st.integers(0, 2), zeros=st.booleans())
def test_a_torn_line_is_accounted_for_by_the_next_entry(
    tmp_path_factory: pytest.TempPathFactory, kept: int, more: int, *, zeros: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log = _log(path)
    log.append("first", actor="a", outcome="ok", details={})
    before = path.read_bytes()
    log.append("second", actor="a", outcome="ok", details={"why": "so"})
    line = path.read_bytes()[len(before) :]
    torn = line[: kept % len(line)]
    torn += bytes(7) if zeros else b""
    path.write_bytes(before + torn)
    whole = torn == line[:-1]  # only its end was lost
    assert verify(path).torn_bytes == (len(torn) if torn else 0)
    for _ in range(more):
        log.append("third", actor="a", outcome="ok", details={})
    actions = [entry.action for entry in read_entries(path)]
    account = ["second"] if whole else [TORN] if torn else []
    assert actions == ["first", *(account if more else []), *["third"] * more]
    if not more:
        return
    assert verify(path).entries == len(actions)
    if torn and not whole:  # nobody can take the torn line out, or change it
        for changed in (b"", b"x" * len(torn)):
            path.write_bytes(path.read_bytes().replace(torn, changed, 1))
            with pytest.raises(IntegrityError):
                verify(path)
            path.write_bytes(path.read_bytes().replace(changed, torn, 1) if changed else before)
            if not changed:
                return


def test_a_crash_while_a_torn_line_is_accounted_for_is_accounted_for_too(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"action":"torn')
    _log(path).append("next", actor="a", outcome="ok", details={})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:40])
    assert [entry.action for entry in read_entries(path)] == ["keys.sign"] * 3
    _log(path).append("again", actor="a", outcome="ok", details={})
    assert [entry.action for entry in read_entries(path)][3:] == [TORN, "again"]
    assert verify(path).entries == 5


def test_nothing_is_chained_to_an_entry_that_was_changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":7'))
    for attempt in (
        lambda: _log(path).check(),
        lambda: _log(path).append("x", actor="a", outcome="ok", details={}),
    ):
        with pytest.raises(IntegrityError, match="last entry was changed"):
            attempt()


def _append(path: Path, count: int) -> None:
    for number in range(count):
        AuditLog(path).append("many", actor=str(os.getpid()), outcome="ok", details={"number": number})


def test_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert verify(path).entries == 100


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_log_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="not its owner's alone"):
        _log(path).append("x", actor="a", outcome="ok", details={})


def test_a_log_in_the_wrong_place_is_refused(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    for wrong in (link, tmp_path, tmp_path / "none" / "audit.jsonl"):
        with pytest.raises(ConfigurationError, match="cannot use the audit log"):
            AuditLog(wrong).check()


def test_what_is_no_json_or_too_long_is_refused_and_nothing_is_written(path: Path) -> None:
    before = path.read_bytes()
    for details in ({"secret": b"bytes"}, {"long": "x" * (64 << 10)}, {"number": float("nan")}):
        with pytest.raises(ValueError):
            _log(path).append("x", actor="a", outcome="ok", details=details)
    assert path.read_bytes() == before


def test_the_layout_of_a_line_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    _log(path).append("keys.sign", actor="anna@desk", outcome="ok", details={"b": 1, "a": [None, True]})
    line = path.read_text()
    assert line == (
        '{"action":"keys.sign","actor":"anna@desk","at":"2026-01-02T03:04:05.006Z","details":{"a":[null,true],"b":1},'
        '"outcome":"ok","previous":"' + "00" * 32 + '","sequence":1,"hash":"' + json.loads(line)["hash"] + '"}\n'
    )
    assert json.loads(line)["hash"] == "5a3d5b4cbcf163f1bd426cbcc64721ee809d9fc4f0aa92bfc55b2f213a489ece"


def test_the_newest_entries_come_first_and_a_torn_end_is_left_out(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"action":"keys.si')
    assert [entry.sequence for entry in newest_entries(path, 2)] == [3, 2]
    assert [entry.sequence for entry in newest_entries(path, 10)] == [3, 2, 1]


def test_the_newest_entries_are_proven_to_follow_each_other(path: Path) -> None:
    first, second, third = path.read_bytes().splitlines(keepends=True)
    for lines in ((first, third), (first, second.replace(b"anna", b"carl"), third)):
        path.write_bytes(b"".join(lines))
        with pytest.raises(IntegrityError):
            newest_entries(path, 10)


def test_the_newest_of_very_many_entries_are_read_without_the_others(path: Path) -> None:
    for _ in range(8):
        _log(path).append("big", actor="a", outcome="ok", details={"text": "x" * 60_000})
    assert [entry.sequence for entry in newest_entries(path, 3)] == [11, 10, 9]
    with pytest.raises(ConfigurationError):
        newest_entries(path.with_name("none"), 3)
