from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embassy.cli import main
from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.escrow import Share, load_escrow, load_share, recover, split
from embassy.wire.keyring import generate_recipient, load_recipient

SEED, ID = bytes(range(32)), b"12345678"
MADE = split(SEED, ID, custodians=5, threshold=3)


def test_any_three_of_five_bring_it_back_in_any_order() -> None:
    assert len(MADE.escrow.locked) == 10
    for chosen in itertools.permutations(MADE.shares, 3):
        assert recover(MADE.escrow, chosen) == SEED
    assert recover(MADE.escrow, MADE.shares) == SEED


@given(st.sets(st.integers(0, 4), max_size=2))
def test_two_are_too_few(numbers: set[int]) -> None:
    with pytest.raises(RefusedError, match="3 are needed"):
        recover(MADE.escrow, [MADE.shares[number] for number in numbers])


def test_one_custodian_three_times_is_one() -> None:
    with pytest.raises(RefusedError, match="1 custodians' shares are there, and 3 are needed"):
        recover(MADE.escrow, [MADE.shares[0]] * 3)


def test_one_secret_under_three_numbers_is_refused() -> None:
    secret = MADE.shares[0].secret
    claimed = [Share(MADE.escrow.id, number, secret) for number in (1, 2, 3)]
    with pytest.raises(RefusedError, match="custodian 2 is not the one"):
        recover(MADE.escrow, claimed)


@pytest.mark.parametrize(
    "change",
    [
        lambda share: share._replace(secret=bytes(32)),
        lambda share: share._replace(secret=share.secret[:31]),
        lambda share: share._replace(custodian=6),
        lambda share: share._replace(custodian=0),
        lambda share: share._replace(custodian=2),
    ],
)
def test_a_wrong_share_is_named_and_refused(change: Callable[[Share], Share]) -> None:
    with pytest.raises(RefusedError, match="is not the one that was made"):
        recover(MADE.escrow, [change(MADE.shares[0]), MADE.shares[3], MADE.shares[4]])


def test_a_share_of_another_escrow_is_refused() -> None:
    other = split(SEED, ID, custodians=5, threshold=3)
    with pytest.raises(RefusedError, match="of another escrow"):
        recover(MADE.escrow, [other.shares[0], *MADE.shares[1:3]])


@given(at=st.integers(0, 9), byte=st.integers(0, 47), bit=st.integers(0, 7))
def test_an_altered_document_brings_back_nothing(at: int, byte: int, bit: int) -> None:
    locked = list(MADE.escrow.locked)
    locked[at] = locked[at][:byte] + bytes([locked[at][byte] ^ (1 << bit)]) + locked[at][byte + 1 :]
    chosen = list(itertools.combinations(MADE.shares, 3))[at]
    with pytest.raises(ConfigurationError, match="damaged"):
        recover(replace(MADE.escrow, locked=tuple(locked)), chosen)
    with pytest.raises(ConfigurationError, match="damaged"):
        recover(replace(MADE.escrow, recipient=b"another."), chosen)


def test_a_threshold_that_was_lowered_brings_back_nothing() -> None:
    with pytest.raises(ConfigurationError, match="damaged"):
        recover(replace(MADE.escrow, threshold=2), MADE.shares[:2])


@pytest.mark.parametrize(("custodians", "threshold"), [(1, 1), (5, 1), (3, 4), (13, 3)])
def test_what_is_no_escrow_is_refused(custodians: int, threshold: int) -> None:
    with pytest.raises(ConfigurationError, match="is no escrow"):
        split(SEED, ID, custodians=custodians, threshold=threshold)


def _written(folder: Path) -> tuple[Path, Path]:
    document, share = folder / "escrow.json", folder / "share.json"
    document.write_text(MADE.escrow.render())
    share.touch(0o600)
    share.write_text(MADE.shares[0].render())
    return document, share


def test_files_say_what_was_made_and_a_wrong_digit_is_noticed(tmp_path: Path) -> None:
    document, share = _written(tmp_path)
    assert load_escrow(document) == MADE.escrow
    assert load_share(share) == MADE.shares[0]
    text = share.read_text()
    secret = MADE.shares[0].secret.hex()
    wrong = secret.replace(secret[5], "0" if secret[5] != "0" else "1", 1)
    for changed in (text.replace(secret, wrong), text.replace('"custodian": 1', '"custodian": 2'), "{}", "no"):
        share.write_text(changed)
        with pytest.raises(ConfigurationError):
            load_share(share)


def test_a_share_that_others_may_read_is_refused(tmp_path: Path) -> None:
    _, share = _written(tmp_path)
    share.chmod(0o640)
    with pytest.raises(ConfigurationError, match="read or changed by others"):
        load_share(share)


def _document(**members: object) -> str:
    return json.dumps(json.loads(MADE.escrow.render()) | members)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        _document(custodians=4),
        _document(custodians=True),
        _document(threshold=4),
        _document(locked=[]),
        _document(more=1),
        _document(escrow="00"),
        _document(format="data-embassy escrow 2"),
    ],
)
def test_what_is_no_escrow_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(ConfigurationError, match="damaged"):
        load_escrow(tmp_path / "e.json")


def test_a_key_is_split_lost_and_recovered_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = generate_recipient(tmp_path / "paper.json")
    before = load_recipient(made.secret)
    seed = json.loads(made.secret.read_text())["secret"]["xwing"]
    assert main.run(["keys", "escrow", "split", "paper.json", "--to", "safe"]) == 0
    assert main.run(["keys", "escrow", "split", "paper.json", "--to", "safe"]) == 2, "nothing is overwritten"
    files = sorted(path.name for path in (tmp_path / "safe").iterdir())
    assert files == ["escrow.json", *(f"share-{number}.json" for number in range(1, 6))]
    assert all((tmp_path / "safe" / name).stat().st_mode & 0o077 == 0 for name in files[1:])
    made.secret.unlink()
    made.public.unlink()
    shares = [f"safe/share-{number}.json" for number in (5, 2, 3)]
    assert main.run(["keys", "escrow", "recover", "safe/escrow.json", *shares[:2], "--to", "back.json"]) == 5
    assert not (tmp_path / "back.json").exists()
    assert main.run(["keys", "escrow", "recover", "safe/escrow.json", *shares, "--to", "back.json"]) == 0
    assert load_recipient(tmp_path / "back.json").public == before.public
    out, err = capsys.readouterr()
    said = out + err + "".join(path.read_text() for path in (tmp_path / "safe").iterdir())
    assert seed not in said
