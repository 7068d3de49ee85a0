"""Where a schema is written."""

from __future__ import annotations

from pathlib import Path

from embassy.cli.provision_schema import is_folder


def test_a_path_that_ends_like_a_folder_is_one_before_it_is_there(tmp_path: Path) -> None:
    assert is_folder(f"{tmp_path}/schemas/")
    assert is_folder(str(tmp_path))
    assert not is_folder(f"{tmp_path}/schema.sql")
