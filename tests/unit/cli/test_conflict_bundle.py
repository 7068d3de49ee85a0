"""What never shipped is kept under a name of its own, whatever lies there already."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from embassy.cli.conflict_bundle import is_kept, keep
from embassy.model.errors import ConfigurationError


def _kept(folder: Path, content: bytes, name: str = "land") -> Path:
    partial = folder / f"{name}.partial"
    partial.write_bytes(content)
    return keep(partial, name, hashlib.sha256(content).hexdigest())


def test_a_file_that_is_whole_is_never_replaced(tmp_path: Path) -> None:
    contents = {_kept(tmp_path, content): content for content in (b"first\n", b"second\n", b"", b"third\n")}
    assert [path.name for path in contents] == ["land.jsonl", "land.2.jsonl", "land.3.jsonl", "land.4.jsonl"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == contents


def test_a_run_that_was_killed_before_it_noted_its_file_leaves_it_to_the_next(tmp_path: Path) -> None:
    first, second = _kept(tmp_path, b"first\n"), _kept(tmp_path, b"second\n")
    assert _kept(tmp_path, b"second\n") == second
    assert _kept(tmp_path, b"first\n") == first
    assert {*tmp_path.iterdir()} == {first, second}


def test_a_file_that_is_gone_or_changed_keeps_nothing(tmp_path: Path) -> None:
    noted = {"file": str(_kept(tmp_path, b"rows\n")), "sha256": hashlib.sha256(b"rows\n").hexdigest()}
    assert is_kept(noted)
    Path(noted["file"]).write_bytes(b"row\n")
    assert not is_kept(noted)
    Path(noted["file"]).unlink()
    assert not is_kept(noted)


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot write .*No such file.*land\.partial.*-o"):
        keep(tmp_path / "gone" / "land.partial", "land", "")
