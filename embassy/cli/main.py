"""``embassy``: the command, its global options, and how every error ends."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import click

from embassy.cli.options import COMPLETION_VARIABLE, Options, complete_stream
from embassy.model.errors import EmbassyError
from embassy.model.wording import printable_lines
from embassy.runtime import logs
from embassy.runtime.exit_codes import ExitCode, exit_code

_ERROR = "embassy.error/1"

LEVELS = ("debug", "info", "warning", "error", "critical")


class Command(NamedTuple):
    """A command of the table: its module is embassy.cli.NAME, imported when it is called."""

    name: str
    summary: str


COMMANDS = (
    Command("demo", "Ten registries, load, faults on purpose, and the verdict."),
    Command("lab", "A home site and its embassies on this machine, on real servers."),
    Command("config", "Check a configuration file; show where each value is from."),
    Command("doctor", "Examine databases, clusters and keys, and say what to change."),
    Command("provision", "Make what the streams need in databases and clusters."),
    Command("keys", "Generate key files, and sign enrolments."),
    Command("producer", "Home: read the registries' changes, seal them, append to Kafka."),
    Command("bridge", "Carry sealed records to an embassy's Kafka."),
    Command("consumer", "Embassy: verify, open and apply to the replicas."),
    Command("freeze", "Embassy: apply nothing more; one operator may do that."),
    Command("unfreeze", "Embassy: let frozen streams go on; it takes two."),
    Command("promote", "Make replicas the registries, by a plan that two persons have approved."),
    Command("home", "Shut home, once the embassy has the registries."),
    Command("keyd", "Embassy: hold the recipient keys in a process of their own."),
    Command("failback", "Home again: a superseded registry becomes the embassy's replica."),
    Command("resync", "Copy a table's rows anew, while everything goes on."),
    Command("status", "State, lag and age of each stream."),
    Command("verify", "Compare the replicas with home, row by row."),
    Command("repair", "Send home's rows once more where a replica's differ."),
    Command("watch", "What status shows, again and again."),
    Command("console", "What status shows as a web page, for browsers; it only reads."),
    Command("events", "Look at the records of a topic."),
    Command("audit", "What operators did; prove that the record of it is whole."),
    Command("state-machine", "Print the states of a replica, as the code has them."),
    Command("completion", "Print the completion script of a shell."),
)


class _Commands(click.Group):
    """A group whose commands are imported when they are called, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return [command.name for command in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in (command.name for command in COMMANDS):
            return None
        name = cmd_name.replace("-", "_")
        module = f"embassy.cli.{name}"
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise click.UsageError(f"{cmd_name} is not part of this version") from None
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.list_commands(ctx):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"Did you mean {near[0]}?" if near else "See embassy --help."
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.summary) for command in COMMANDS])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 bug, 2 usage or configuration, 3 unreachable, 4 check failed, 5 refused, "
    "6 not approved, 7 locked or stale, 8 step failed (run it again), 9 integrity, 130 interrupted.",
)
@click.version_option(metadata.version("data-embassy"), prog_name="embassy")
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="EMBASSY_CONFIG",
    show_envvar=True,
    help="The role's configuration.",
)
@click.option(
    "-r",
    "--registry",
    "registries",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_stream,
    help="Only this stream; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    envvar="EMBASSY_LOG_LEVEL",
    show_envvar=True,
    show_default=True,
    help="What the log on stderr begins with.",
)
@click.pass_context
def embassy(
    ctx: click.Context, config: Path | None, registries: tuple[str, ...], log_level: str, *, as_json: bool
) -> None:
    """Keep PostgreSQL registries alive in a second country.

    \b
    Try it:      embassy demo
    A service:   embassy -c /etc/embassy/producer.toml producer run
    One stream:  embassy -c /etc/embassy/consumer.toml -r land_register status
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    logs.configure(level=log_level)
    ctx.obj = Options(config, registries, as_json, log_level)


def main() -> None:
    """The console script."""
    code = run(sys.argv[1:])
    if "confluent_kafka" in sys.modules:
        # Threads of a Kafka client may still be ending connections. At a process's usual end OpenSSL takes away what they
        # use, and now and then a right answer would end as a crash.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; errors are told on stderr, with the way out."""
    try:
        return _invoke(arguments)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except EmbassyError as error:
        _tell(error.args[0], exit_code(error), error.place, error.hint, as_json=_asks_for_json(arguments))
        return exit_code(error)
    except BrokenPipeError:  # the reader of stdout has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the last border: what is left is a bug, and ends like one
        click.echo(f"error: unexpected {type(error).__name__}: {error}", err=True)
        if _debugging(arguments):
            traceback.print_exc()
        else:
            click.echo("hint: this is a bug; embassy --log-level debug COMMAND shows where", err=True)
        return ExitCode.BUG


def _invoke(arguments: list[str]) -> int:
    """Click's own main would decide about exit codes."""
    if COMPLETION_VARIABLE in os.environ:
        embassy.main(prog_name="embassy")
    try:
        with embassy.make_context("embassy", list(arguments)) as ctx:
            result = embassy.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.CONFIGURATION
    except click.ClickException as error:
        as_json = _asks_for_json(arguments)
        if isinstance(error, click.UsageError) and error.ctx is not None and not as_json:
            click.echo(error.ctx.get_usage(), err=True)
        _tell(error.format_message(), ExitCode.CONFIGURATION, as_json=as_json)
        return ExitCode.CONFIGURATION
    return result if isinstance(result, int) else ExitCode.OK


def _tell(error: str, code: ExitCode, place: str = "", hint: str = "", *, as_json: bool) -> None:
    """One error, on stderr: for people in lines, for scripts as one line of JSON, as the log there has them."""
    if as_json:
        told = {"schema": _ERROR, "error": error, "place": place, "hint": hint, "exit_code": int(code)}
        click.echo(json.dumps(told, ensure_ascii=False), err=True)
        return
    click.echo(printable_lines(f"error: {error}" + (f" [{place}]" if place else "")), err=True)
    if hint:
        click.echo(printable_lines(f"hint: {hint}"), err=True)


def _asks_for_json(arguments: list[str]) -> bool:
    """Whether ``--json`` stands before the command or behind it; no command has read it yet when a usage is wrong."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def _debugging(arguments: list[str]) -> bool:
    level = os.environ.get("EMBASSY_LOG_LEVEL", "")
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "--log-level":
            level = argument
        elif argument.startswith("--log-level="):
            level = argument.partition("=")[2]
    return level.lower() == "debug"


if __name__ == "__main__":
    main()
