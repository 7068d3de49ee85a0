"""What the documents name is there: tests, files, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"))
    if ".venv" not in path.parts and ".lab" not in path.parts
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]*))?\)")
_TEST = re.compile(r"\b((?:unit|property|integration|faults|acceptance|matrix)/[\w/]*test_\w+\.py)")


def _slug(heading: str) -> str:
    """The anchor that a forge makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _anchors(path: Path) -> set[str]:
    return {_slug(line.lstrip("#")) for line in path.read_text().splitlines() if line.startswith("#")}


def _broken(document: Path) -> Iterator[str]:
    text = (ROOT / document).read_text()
    for target, anchor in _LINK.findall(text):
        if ":" in target:
            continue
        path = (ROOT / document).parent / target
        if not path.exists():
            yield target
        elif anchor and path.suffix == ".md" and anchor not in _anchors(path):
            yield f"{target}#{anchor}"
    for test in _TEST.findall(text):
        if not (ROOT / "tests" / test).is_file():
            yield test


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere_and_named_tests_exist(document: Path) -> None:
    assert list(_broken(document)) == []


def test_the_reader_of_links_sees_what_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# One two\n[x](b.md) [y](a.md#one-two) [z](a.md#three) unit/test_none.py")
    assert list(_broken(Path("a.md"))) == ["b.md", "a.md#three", "unit/test_none.py"]
