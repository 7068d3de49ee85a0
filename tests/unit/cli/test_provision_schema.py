"""Where a schema is written."""

from __future__ import annotations

from pathlib import Path

from embassy.cli.provision_schema import _write, is_folder


def test_a_path_that_ends_like_a_folder_is_one_before_it_is_there(tmp_path: Path) -> None:
    assert is_folder(f"{tmp_path}/schemas/")
    assert is_folder(str(tmp_path))
    assert not is_folder(f"{tmp_path}/schema.sql")


def test_whoever_may_write_to_the_folder_neither_owns_nor_leads_astray_what_is_written(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's")
    (tmp_path / ".land.sql.new").symlink_to(other)
    _write(tmp_path / "land.sql", "CREATE TABLE")
    assert other.read_text() == "somebody's"
    trap = tmp_path / ".land.sql.new"
    trap.write_text("")
    trap.chmod(0o666)
    with trap.open("a") as held:
        _write(tmp_path / "land.sql", "CREATE TABLE deed")
        held.write("DROP TABLE deed")
    assert (tmp_path / "land.sql").read_text() == "CREATE TABLE deed"
    assert (tmp_path / "land.sql").stat().st_mode & 0o777 == 0o600
