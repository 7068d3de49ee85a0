"""Documents that were altered, anywhere and anyhow: refused with a place, or read; never a surprise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embassy.model.errors import ConfigurationError, IntegrityError, RefusedError
from embassy.model.lsn import Lsn
from embassy.runtime.audit_chain import read_entries
from embassy.runtime.audit_log import AuditLog
from embassy.wire.enrolment import EnrolmentFile
from embassy.wire.escrow import load_escrow, load_share, split
from embassy.wire.key_document import KeyKind, parse_key, render_key
from embassy.wire.keyring import Identity
from embassy.wire.promotion_report import ReportFile
from embassy.wire.roster import RosterFile
from tests.harness.envelope import ANNA, BERT, HOME, STREAM
from tests.unit.wire.test_promotion_documents import DRAFT, EMBASSY

_NEXT = Identity.from_seeds(b"\x51" * 32, b"\x52" * 32)
_ROSTER = (ANNA.public, BERT.public)
_PLACE = Path("test")


@dataclass(repr=False)
class Document:
    """A document as text, and what reads it."""

    text: str
    read: Callable[[Path], object]


def _enrolment() -> str:
    base = EnrolmentFile.draft(stream=STREAM, epoch=1, producer=HOME.public, start_lsn=Lsn(0))
    return base.succeeded_by(_NEXT.public, _PLACE).signed(ANNA).signed(BERT).render()


def _roster() -> str:
    first = RosterFile.begin(_ROSTER, 2).signed(ANNA).signed(BERT)
    return first.changed(_ROSTER, 1, _PLACE).signed(ANNA).signed(BERT).render()


_REPORT = ReportFile.made(DRAFT, [{"stream": STREAM.hex(), "aborted": True}], EMBASSY)


def _read_payload(path: Path) -> object:
    """All that is read of a report before anything of it is proven."""
    return ReportFile(path.read_bytes(), _REPORT.signature).claimed_epoch(STREAM, path)


def _entries(path: Path) -> list[object]:
    return list(read_entries(path))


def _audit(folder: Path) -> str:
    log = AuditLog(folder / "audit.jsonl")
    for number in range(3):
        log.append("a", actor="b", outcome="ok", details={"number": number})
    return (folder / "audit.jsonl").read_text()


_MADE = split(bytes(32), bytes(8), custodians=3, threshold=2)
_KINDS = ("enrolment", "roster", "report", "payload", "escrow", "share", "key", "audit")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    return {
        "enrolment": Document(_enrolment(), lambda path: EnrolmentFile.read(path).proven(_ROSTER, 2, path)),
        "roster": Document(_roster(), lambda path: RosterFile.read(path).proven(None, path)),
        "report": Document(_REPORT.render(), lambda path: ReportFile.read(path).given_up(path)),
        "payload": Document(_REPORT.payload.decode(), _read_payload),
        "escrow": Document(_MADE.escrow.render(), load_escrow),
        "share": Document(_MADE.shares[0].render(), load_share),
        "key": Document(render_key(ANNA.half), lambda path: parse_key(path.read_bytes(), KeyKind.OPERATOR, path)),
        "audit": Document(_audit(tmp_path_factory.mktemp("audit")), _entries),
    }


def _is_read_or_refused(document: Document, text: bytes, path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(text)
    try:
        document.read(path)
    except (ConfigurationError, RefusedError, IntegrityError) as error:
        assert error.place  # noqa: PT017 - either outcome is right


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(_KINDS), at=st.integers(0, 1 << 20), cut=st.integers(0, 40), put=st.binary(max_size=12)
)
def test_bytes_that_were_altered(
    documents: dict[str, Document],
    tmp_path_factory: pytest.TempPathFactory,
    *,
    kind: str,
    at: int,
    cut: int,
    put: bytes,
) -> None:
    document = documents[kind]
    text = document.text.encode()
    at %= len(text)
    altered = text[:at] + put + text[at + cut :]
    _is_read_or_refused(document, altered, tmp_path_factory.getbasetemp() / f"bytes-{kind}")


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(_KINDS[:-1]), pick=st.integers(0, 20), value=_JSON, whole=st.booleans())
def test_members_that_are_something_else(
    documents: dict[str, Document],
    tmp_path_factory: pytest.TempPathFactory,
    *,
    kind: str,
    pick: int,
    value: Any,
    whole: bool,
) -> None:
    document = documents[kind]
    fields = json.loads(document.text)
    names = sorted(fields)
    fields[names[pick % len(names)]] = value
    text = json.dumps(value if whole else fields).encode()
    _is_read_or_refused(document, text, tmp_path_factory.getbasetemp() / f"members-{kind}")
