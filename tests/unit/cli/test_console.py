from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from embassy.cli import main

_CONFIG = """
site = "embassy-1"
[streams.land]
stream = "00112233445566778899aabbccddeeff"
enrolment = "land.json"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "embassy.toml"
    path.write_text(_CONFIG)
    (tmp_path / "land.json").write_text("{}")
    return path


@pytest.mark.usefixtures("unconfigured")
@pytest.mark.parametrize("missing", ["jinja2", "starlette", "uvicorn"])
def test_without_its_extra_it_says_how_to_install_it(
    missing: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("console", missing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main.run(["-c", str(config), "console", "run"]) == 2
    told = capsys.readouterr().err
    assert f"the console needs {missing}" in told
    assert "pip install 'data-embassy[console]'" in told


@pytest.mark.usefixtures("unconfigured")
def test_an_address_that_others_reach_is_refused_and_config_check_says_so(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(_CONFIG + '[console]\nlisten = "0.0.0.0:8470"\n')
    assert main.run(["-c", str(config), "console", "run"]) == 2
    assert "can be reached from elsewhere" in capsys.readouterr().err
    assert main.run(["-c", str(config), "config", "check", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [p.partition(":")[0] for p in report["problems"]] == ["console.listen"]
    assert {"console.listen", "console.hosts"} <= {value["key"] for value in report["values"]}
