"""The page's own files: colours that can be read, nothing from elsewhere, and all of it in a package."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

import pytest

from console.feed import STALE_SECONDS

_ROOT = Path(__file__).parents[3]
_CONSOLE = _ROOT / "console"
_CSS = (_CONSOLE / "static" / "console.css").read_text(encoding="utf-8")
_JS = (_CONSOLE / "static" / "console.js").read_text(encoding="utf-8")
_TEXT_COLOURS = ("text", "muted", "link", "good", "doubtful", "bad", "unknown")
_LEAST_FOR_TEXT, _LEAST_FOR_SIGNS = 4.5, 3.0


def _schemes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", _CSS, re.DOTALL)
    return {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for name, block in (("light", light), ("dark", dark))
    }


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, 1.4.3: the ratio of two colours' relative luminances."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_the_measure_of_contrast_is_that_of_the_standard() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read_in_both_schemes(scheme: str) -> None:
    colours = _schemes()[scheme]
    for text, behind in product(_TEXT_COLOURS, ("background", "raised")):
        assert _contrast(colours[text], colours[behind]) >= _LEAST_FOR_TEXT, (text, behind)
    assert _contrast(colours["stale"], colours["stale-background"]) >= _LEAST_FOR_TEXT
    assert _contrast(colours["edge"], colours["background"]) >= _LEAST_FOR_SIGNS


def test_both_schemes_have_every_colour_that_is_used_and_no_other_colour_is() -> None:
    schemes = _schemes()
    used = set(re.findall(r"var\(--([\w-]+)\)", _CSS))
    assert used == set(schemes["light"]) == set(schemes["dark"])
    rules = re.sub(r":root \{.*?\}", "", _CSS, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", rules) == []


def test_nothing_moves_for_those_who_want_no_motion() -> None:
    for rule in re.finditer(r"^.*(?:animation|transition)\s*:.*$", _CSS, re.MULTILINE):
        before = _CSS[: rule.start()]
        assert before.rfind("prefers-reduced-motion: no-preference") > before.rfind("\n}\n")


def test_nothing_is_asked_of_another_place() -> None:
    for path in (*_CONSOLE.glob("static/*"), *_CONSOLE.glob("templates/*")):
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE), path.name
        assert "@import" not in text
        assert "|safe" not in text.replace(" ", "")
    assert "innerHTML" not in _JS
    assert "eval(" not in _JS


def test_the_script_and_the_server_mean_the_same_by_stale() -> None:
    assert f"const STALE_MS = {STALE_SECONDS * 1000:.0f};" in _JS


def test_a_package_has_all_of_it() -> None:
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["console"]
    packaged = {path for pattern in patterns for path in _CONSOLE.glob(pattern)}
    others = {path for path in _CONSOLE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packaged == others
