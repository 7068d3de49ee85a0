"""The service files say what the program does."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from embassy.cli.main import COMMANDS
from embassy.runtime.exit_codes import ExitCode

_ROOT = Path(__file__).parents[3]
_FOLDER = _ROOT / "deploy" / "systemd"
_ROLES = ("producer", "bridge", "consumer", "keyd", "console")


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _unit(role: str) -> _Unit:
    unit = _Unit(strict=False)  # a setting may come twice
    unit.read_string((_FOLDER / f"embassy-{role}.service").read_text(encoding="utf-8"))
    return unit


def test_there_is_one_for_each_service() -> None:
    assert sorted(path.name for path in _FOLDER.iterdir()) == sorted(f"embassy-{role}.service" for role in _ROLES)
    assert {command.name for command in COMMANDS} >= set(_ROLES)


@pytest.mark.parametrize("role", _ROLES)
def test_it_stays_down_where_a_restart_would_not_help(role: str) -> None:
    service = _unit(role)["Service"]
    stays_down = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert stays_down == {ExitCode.CONFIGURATION, ExitCode.REFUSED, ExitCode.INTEGRITY}
    assert service["Restart"] == "always"


@pytest.mark.parametrize("role", _ROLES)
def test_it_starts_its_own_role_and_hears_from_it(role: str) -> None:
    service = _unit(role)["Service"]
    assert service["ExecStart"].split()[1:3] == [role, "run"]
    assert service["Environment"].endswith(f"/{role}.toml")
    assert service["User"] == f"embassy-{role}", "the bridge must not be able to read the secret keys"
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 30
    assert int(service["TimeoutStopSec"]) >= 10, "streams drain within 5 s"
    assert service.get("ExecReload") == ("/bin/kill -HUP $MAINPID" if role != "console" else None)
    assert service["LimitCORE"] == "0", "keys must not be in core dumps"


def test_the_largest_value_that_is_spoken_of_passes_within_the_memory_that_it_may_have() -> None:
    readme = _ROOT.joinpath("README.md").read_text(encoding="utf-8")
    told = re.search(r"value needs about six times .* \(a 200 MB text: ([\d.]+) GB\)", readme)
    assert told is not None
    needed, idle = float(told[1]) * 1e9, 200e6
    for role, share in (("producer", 1.0), ("consumer", 0.5)):
        limit = re.fullmatch(r"(\d+)G", _unit(role)["Service"]["MemoryMax"])
        assert limit is not None, f"{role} has no limit in gigabytes"
        assert int(limit[1]) << 30 > needed * share + idle, role
