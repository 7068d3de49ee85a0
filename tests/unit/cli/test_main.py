from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from embassy.cli import main
from embassy.cli.main import COMMANDS
from embassy.cli.options import unknown_overrides
from embassy.model.errors import (
    ConfigurationError,
    EmbassyError,
    IntegrityError,
    RefusedError,
    TransientError,
)
from embassy.wire.key_document import render_key
from tests.harness.envelope import ANNA

_CONFIG = """
site = "home"
[streams.land]
stream = "00112233445566778899aabbccddeeff"
enrolment = "land.json"
[streams.people]
stream = "ffeeddccbbaa99887766554433221100"
enrolment = "people.json"
"""

pytestmark = pytest.mark.usefixtures("unconfigured")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "embassy.toml"
    path.write_text(_CONFIG)
    for name in ("land.json", "people.json"):
        (tmp_path / name).write_text("{}")
    return path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command that raises what is put into the list."""
    errors: list[BaseException] = []

    @click.command()
    def failing() -> None:
        raise errors[0]

    monkeypatch.setattr(main.embassy, "get_command", lambda _ctx, _name: failing)
    return errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("it is so", place="a.toml", hint="do this"), 2),
        (TransientError("it is so", place="a.toml", hint="do this"), 3),
        (RefusedError("it is so", place="a.toml", hint="do this"), 5),
        (IntegrityError("it is so", place="a.toml", hint="do this"), 9),
    ],
)
def test_an_error_is_told_with_the_way_out_and_its_family_is_the_exit_code(
    error: EmbassyError, code: int, failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(error)
    assert main.run(["lab"]) == code
    assert capsys.readouterr() == ("", "error: it is so [a.toml]\nhint: do this\n")


def test_what_an_error_quotes_moves_no_cursor(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(RefusedError("table \x1b[2Aland\r is\nso"))
    main.run(["lab"])
    assert capsys.readouterr().err == "error: table \\x1b[2Aland\\r is\nso\n"


@pytest.mark.parametrize("arguments", [["--json", "lab"], ["lab", "--json"]])
def test_with_json_an_error_is_a_line_of_json_and_stdout_stays_clean(
    arguments: list[str], failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(RefusedError("it is so", place="a.toml", hint="do this"))
    assert main.run(arguments) in (2, 5)  # behind the command it is one that this command does not have
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    told = json.loads(err)
    assert told["schema"] == "embassy.error/1"
    if arguments[0] == "--json":
        assert told == {
            "schema": "embassy.error/1",
            "error": "it is so",
            "place": "a.toml",
            "hint": "do this",
            "exit_code": 5,
        }
    else:
        assert (told["exit_code"], told["error"]) == (2, "No such option '--json'.")


def test_a_json_behind_the_end_of_options_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--", "--json"]) == 2
    assert "error: No such command" in capsys.readouterr().err


def test_ctrl_c_is_130(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(KeyboardInterrupt())
    assert main.run(["lab"]) == 130
    assert capsys.readouterr().out == ""


def test_a_bug_is_1_and_shows_its_traceback_at_debug_only(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(KeyError("x"))
    assert main.run(["lab"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main.run(["--log-level", "debug", "lab"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_unknown_command_is_2_and_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["prodcer", "run"]) == 2
    assert "did you mean producer?" in capsys.readouterr().err.lower()


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["config", "chek"], ["config", "check", "more"]])
def test_bad_usage_is_2(arguments: list[str]) -> None:
    assert main.run(arguments) == 2


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_of_the_table_exists_and_has_a_help(command: main.Command) -> None:
    name = command.name.replace("-", "_")
    found = getattr(importlib.import_module(f"embassy.cli.{name}"), name)
    assert isinstance(found, click.Command)
    assert found.help, "a command without help"
    assert main.run([command.name, "--help"]) == 0


def test_help_lists_every_command_without_importing_one() -> None:
    script = (
        "import sys; from embassy.cli.main import run; code = run(['--help'])\n"
        "heavy = {'psycopg', 'confluent_kafka', 'cryptography', 'prometheus_client', 'fastavro'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy), code)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy [] 0"
    for command in COMMANDS:
        assert f"  {command.name} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_reader_that_leaves_is_not_an_error() -> None:
    program = f"{sys.executable} -m embassy"
    done = subprocess.run(
        ["bash", "-c", f"{program} --help | true; exit ${{PIPESTATUS[0]}}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["embassy.cli.main", "click", "structlog"])
def test_ctrl_c_while_the_command_loads_ends_it_without_a_traceback(module: str) -> None:
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Pressed:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressed)\n"
        "sys.argv = ['embassy', '--help']\n"
        "import embassy.__main__\n"
        "embassy.__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("words", [["-c", "FILE", "-r", "la"], ["-c", "FILE", "status", "--registry", "la"]])
def test_a_shell_completes_the_names_of_streams(config: Path, words: list[str]) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("EMBASSY_")},
        "_EMBASSY_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["embassy", *words]).replace("FILE", str(config)),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-m", "embassy.cli.main"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "plain,land\n"


def test_no_configuration_file_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["config", "check"]) == 2
    assert "pass -c FILE or set EMBASSY_CONFIG" in capsys.readouterr().err


def test_config_check_prints_each_value_with_its_origin(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBASSY_PRODUCER__BATCH_BYTES", "2048")
    assert main.run(["-c", str(config), "config", "check"]) == 0
    out, err = capsys.readouterr()
    assert "producer.batch_bytes=2048 (env EMBASSY_PRODUCER__BATCH_BYTES)" in out.splitlines()
    assert 'site="home" (file)' in out.splitlines()
    assert err == f"{config}: ok\n"


def test_config_check_finds_what_is_missing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "people.json").unlink()
    config.write_text(_CONFIG + '[metrics]\nlisten = "9464"\n')
    assert main.run(["-c", str(config), "--json", "config", "check"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert len(report["problems"]) == 2
    assert "streams.people.enrolment" in report["problems"][0]
    assert "metrics.listen" in report["problems"][1]
    assert {"key": "site", "value": "home", "origin": "file", "variable": "EMBASSY_SITE"} in report["values"]


@pytest.mark.parametrize("threshold", [1, 2])
def test_config_check_refuses_a_threshold_that_the_operators_are_too_few_for(
    config: Path, capsys: pytest.CaptureFixture[str], threshold: int
) -> None:
    (config.parent / "anna.pub.json").write_text(render_key(ANNA.half))
    config.write_text(_CONFIG + f'[keys]\noperators = ["anna.pub.json"]\nthreshold = {threshold}\n')
    assert main.run(["-c", str(config), "config", "check"]) == (0 if threshold == 1 else 2)
    told = "error: keys.operators: keys.threshold asks for 2 persons and keys.operators names 1; "
    assert (told in capsys.readouterr().err) is (threshold == 2)


def test_a_typo_in_the_file_suggests_the_near_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(_CONFIG + "[producer]\nbatch_byts = 2048\n")
    assert main.run(["-c", str(config), "config", "check"]) == 2
    assert "producer.batch_byts: unknown key, did you mean 'batch_bytes'?" in capsys.readouterr().err


def test_a_typo_in_the_environment_is_an_error_too(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBASSY_PRODUCR__BATCH_BYTES", "2048")
    assert main.run(["-c", str(config), "config", "check"]) == 2
    assert "no section 'producr', did you mean 'producer'?" in capsys.readouterr().err
    assert unknown_overrides({"EMBASSY_LAB_HOME": "x", "EMBASSY_KAFKA__HOME": "x", "PATH": "x"}) == []


@pytest.mark.parametrize(
    ("role", "missing"),
    [("producer", "kafka.home"), ("bridge", "kafka.home"), ("consumer", "kafka.foreign")],
)
def test_a_service_names_the_section_that_it_misses(
    role: str, missing: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["-c", str(config), role, "run"]) == 2
    err = capsys.readouterr().err
    assert f"error: {missing} is missing [{config}]" in err


def test_a_stream_that_is_not_configured_is_an_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["-c", str(config), "-r", "lnad", "producer", "run"]) == 2
    assert "no stream 'lnad', did you mean 'land'?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == 0
    assert "_EMBASSY_COMPLETE" in capsys.readouterr().out
