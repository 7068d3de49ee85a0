"""Records written by the first version, read for ever: by this version, and by a reader that shares no code with it.

The files under tests/golden are never changed. A new version of the format adds a folder of its own.
"""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from embassy.model.lsn import Lsn
from embassy.model.record import RecordKind
from embassy.wire.enrolment import Enrolment, load_enrolment
from embassy.wire.key_record import decode_key_body
from embassy.wire.keyring import load_identity, load_operator, load_recipient
from embassy.wire.public_keys import load_public_identity, load_public_operator, load_public_recipient, public_path
from embassy.wire.record_codec import decode_record
from tests.harness.envelope import Reader
from tests.harness.independent_reader import IndependentReader, enrolment_of

GOLDEN = Path(__file__).parents[2] / "golden" / "envelope-1"
STREAM = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
PASSPHRASE = b"correct horse"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The golden files with the modes that git does not keep."""
    folder = tmp_path / "envelope-1"
    shutil.copytree(GOLDEN, folder)
    for path in folder.iterdir():
        path.chmod(0o600)
    return folder


@pytest.fixture
def records() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((GOLDEN / "records.json").read_text())["records"]
    assert len(entries) == 7
    return entries


def enrolment(files: Path) -> Enrolment:
    operators = [files / f"{person}.operator.pub.json" for person in ("anna", "bert")]
    return load_enrolment(files / "enrolment.json", operators=operators, threshold=2, stream=STREAM)


def test_the_key_files_still_open(files: Path) -> None:
    identity = load_identity(files / "home.identity.json")
    assert identity.public == load_public_identity(public_path(files / "home.identity.json"))
    assert identity.half.id.hex() == json.loads((GOLDEN / "home.identity.json").read_text())["id"]
    for name, ask in (("riga", None), ("oslo", lambda: PASSPHRASE)):
        recipient = load_recipient(files / f"{name}.recipient.json", ask)
        assert recipient.public == load_public_recipient(files / f"{name}.recipient.pub.json")
    for name, person in (("anna", "Anna"), ("bert", "Bērt")):
        operator = load_operator(files / f"{name}.operator.json")
        assert operator.public == load_public_operator(files / f"{name}.operator.pub.json")
        assert operator.public.person == person


def test_the_enrolment_still_holds(files: Path) -> None:
    found = enrolment(files)
    assert (found.epoch, str(found.start_lsn)) == (3, "16/B374D848")
    assert found.producer == load_identity(files / "home.identity.json").public


@pytest.mark.parametrize(("name", "ask"), [("riga", None), ("oslo", lambda: PASSPHRASE)])
def test_the_records_still_count_and_open(files: Path, records: list[dict[str, Any]], name: str, ask: Any) -> None:
    found = enrolment(files)
    reader = Reader(load_recipient(files / f"{name}.recipient.json", ask), found, found.genesis())
    for entry in records:
        batches = len(reader.batches)
        assert reader.take(b64decode(entry["value"]))
        assert reader.head.hash.hex() == entry["hash"]
        assert str(reader.head.resume_lsn) == entry["resume_lsn"]
        expected = [] if entry["batch"] is None else [b64decode(entry["batch"])]
        assert reader.batches[batches:] == expected
    assert len(reader.batches) == 3


def test_the_key_records_still_name_their_source(records: list[dict[str, Any]]) -> None:
    found = [decode_record(b64decode(entry["value"])) for entry in records]
    bodies = [decode_key_body(record.body) for record in found if record.header.kind is RecordKind.KEY]
    assert [(body.system_identifier, body.timeline) for body in bodies] == [
        (7_400_000_000_000_000_000, 2),
        ((1 << 63) + 5, 3),
    ]


def test_a_reader_written_from_the_documentation_reads_the_same(records: list[dict[str, Any]]) -> None:
    public = [json.loads((GOLDEN / f"{name}.operator.pub.json").read_text()) for name in ("anna", "bert")]
    roster = {bytes.fromhex(key["public"]["ed25519"]): key["person"] for key in public}
    payload, payload_hash = enrolment_of((GOLDEN / "enrolment.json").read_text(), roster, 2)
    seed = bytes.fromhex(json.loads((GOLDEN / "riga.recipient.json").read_text())["secret"]["xwing"])
    reader = IndependentReader(seed, payload, payload_hash)
    for entry in records:
        batch = reader.read(b64decode(entry["value"]))
        assert batch == (None if entry["batch"] is None else b64decode(entry["batch"]))
        assert reader.previous.hex() == entry["hash"]
    assert Lsn.parse(payload["start_lsn"]) == Lsn(0x16B374D848)
