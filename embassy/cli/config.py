"""``embassy config``: the configuration as it counts."""

from __future__ import annotations

import json
from collections.abc import Callable

import click

from embassy.cli.options import Options, pass_options
from embassy.model.errors import ConfigurationError
from embassy.runtime.config_origins import Effective, Origin, complaints, effective
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.health import Listen
from embassy.wire.enrolment import load_roster


@click.group()
def config() -> None:
    """Check a configuration file; show where each value is from."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_options
def check(options: Options, *, as_json: bool) -> ExitCode:
    """Read the file as a service would, and print each value with its origin.

    Unknown keys, values out of range, files that cannot be read and a threshold that the operators are too few for are
    errors (exit code 2). Passwords are not shown. Nothing is connected to; embassy doctor does that.

    \b
    embassy -c producer.toml config check
    EMBASSY_METRICS__LISTEN=0.0.0.0:9464 embassy -c producer.toml config check --json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    settings = options.settings()
    assert options.config is not None, "settings come from a file"
    values = list(effective(settings, options.config))
    problems = list(complaints(settings))
    problems += _unusable(lambda: Listen.parse(settings.metrics.listen)) + _unusable(settings.console.address)
    keys = settings.keys
    if keys.operators and not any(problem.startswith("keys.operators") for problem in problems):
        problems += _unusable(lambda: load_roster(keys.operators, keys.threshold))
    if as_json or options.as_json:
        click.echo(json.dumps(_report(options.place, values, problems), indent=2))
    else:
        for value in values:
            click.echo(f"{value.key}={json.dumps(value.value, ensure_ascii=False)} ({_origin(value)})")
        for problem in problems:
            click.echo(f"error: {problem}", err=True)
        click.echo(f"{options.place}: {f'{len(problems)} to correct' if problems else 'ok'}", err=True)
    return ExitCode.CONFIGURATION if problems else ExitCode.OK


def _unusable(value: Callable[[], object]) -> list[str]:
    try:
        value()
    except ConfigurationError as error:
        return [f"{error.place}: {error.args[0]}; {error.hint}"]
    return []


def _origin(value: Effective) -> str:
    return f"env {value.variable}" if value.origin is Origin.ENVIRONMENT else value.origin.value


def _report(place: str, values: list[Effective], problems: list[str]) -> dict[str, object]:
    return {
        "schema": "embassy.config-check/1",
        "file": place,
        "values": [
            {"key": v.key, "value": v.value, "origin": v.origin.value, "variable": v.variable} for v in values
        ],
        "problems": problems,
    }
