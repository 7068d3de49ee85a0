"""What is left of a lab's folder once the lab is down; without servers."""

from __future__ import annotations

from pathlib import Path

from deploy.demo.demonstration import Demonstration
from deploy.demo.wish import Wish
from deploy.lab.lab import Lab


def _lab(home: Path) -> Lab:
    lab = Lab.here(home, cache=home / "cache")
    for folder in (lab.layout.promotion / "bundle", lab.layout.config, lab.layout.schemas, lab.layout.cache):
        folder.mkdir(parents=True)
    return lab


def test_what_a_rehearsal_made_goes_with_the_lab_and_what_its_user_made_stays_and_is_named(tmp_path: Path) -> None:
    lab = _lab(tmp_path / "lab")
    (lab.layout.home / "plan.json").write_text("{}")
    lab.down()
    assert lab.left() == ["plan.json"]
    assert sorted(path.name for path in lab.layout.home.iterdir()) == ["cache", "plan.json"]


def test_a_demonstration_whose_roles_never_started_can_be_closed(tmp_path: Path) -> None:
    """What went wrong before is told, and not that there are no logs."""
    demonstration = Demonstration(Wish(seconds=1, seed=1), home=tmp_path / "lab")
    demonstration._lab = _lab(tmp_path / "lab")
    demonstration.close(keep=False, keep_logs=True)
    assert demonstration._lab.left() == []
    assert not demonstration.logs.exists()
