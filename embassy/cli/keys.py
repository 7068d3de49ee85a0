"""``embassy keys``: key files, and the operators' enrolments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embassy.cli.auditing import audited
from embassy.cli.key_escrow import escrow
from embassy.cli.key_prompts import confirm, new_passphrase, signed_by
from embassy.cli.key_report import (
    EnrolmentEntry,
    KeyEntry,
    described,
    enrolment_entries,
    key_entries,
    keyd_entries,
    roster_of,
)
from embassy.cli.key_roster import roster
from embassy.cli.key_rotation import announce, retire, rotate
from embassy.cli.key_states import in_topics
from embassy.cli.options import Options, pass_options
from embassy.model.errors import ConfigurationError
from embassy.model.lsn import Lsn
from embassy.runtime.audit_line import JSON
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.enrolment import EnrolmentFile, stream_id
from embassy.wire.key_document import KeyKind
from embassy.wire.keyring import (
    KeyFiles,
    generate_identity,
    generate_operator,
    generate_recipient,
)
from embassy.wire.public_keys import load_public_identity
from embassy.wire.secret_file import replace, write_new

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_WIDEST = 1000
_FILE = click.Path(dir_okay=False, path_type=Path)
_KEY = click.option(
    "--key", "operators", type=_FILE, multiple=True, help="An operator's secret key file; may be repeated."
)


@click.group()
def keys() -> None:
    """Generate key files, and sign enrolments.

    \b
    Each person and each site makes a key on a machine of its own:
      embassy keys generate operator anna.json --person Anna
      embassy keys generate identity home.json            (the producer's)
      embassy keys generate recipient riga.json           (an embassy's)
    Public files (NAME.pub.json) go to whoever needs them; secret ones go nowhere.
    Operators then enrol the producer for each stream, one signature after the other:
      embassy keys enrol land.enrolment.json --stream 0123… --identity home.pub.json --key anna.json
      embassy keys sign land.enrolment.json --key bert.json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


keys.add_command(rotate)
keys.add_command(announce)
keys.add_command(retire)
keys.add_command(roster)
keys.add_command(escrow)


@keys.command()
@click.argument("kind", type=click.Choice([kind.value for kind in KeyKind]))
@click.argument("path", type=_FILE)
@click.option("--person", help="Whose key it is; for operators.")
@click.option("--passphrase", "locked", is_flag=True, help="Lock the secret file with a passphrase.")
@_JSON
@pass_options
def generate(options: Options, kind: str, path: Path, person: str | None, *, locked: bool, as_json: bool) -> None:
    """Make a key: PATH, which only you may read, and beside it the public NAME.pub.json.

    Nothing is ever overwritten. A passphrase is asked for, or read from the file that EMBASSY_PASSPHRASE_FILE names.
    """
    if (kind == KeyKind.OPERATOR) != (person is not None):
        raise click.UsageError("--person NAME belongs to an operator's key, and to no other")
    phrase = new_passphrase() if locked else None
    with audited(options, "keys.generate", {"kind": kind, "path": str(path), "person": person}) as under_way:
        match KeyKind(kind):
            case KeyKind.IDENTITY:
                made = generate_identity(path, phrase=phrase)
            case KeyKind.RECIPIENT:
                made = generate_recipient(path, phrase=phrase)
            case KeyKind.OPERATOR:
                made = generate_operator(path, person=str(person), phrase=phrase)
        under_way.note(id=made.id.hex())
    _tell_made(made, kind, as_json=as_json or options.as_json)


@keys.command()
@click.argument("path", type=_FILE)
@click.option(
    "--stream", required=True, help="The stream: 32 hexadecimal digits, or its name in the configuration."
)
@click.option("--identity", required=True, type=_FILE, help="The producer's public key file.")
@click.option(
    "--epoch", type=click.IntRange(1, (1 << 63) - 1), default=1, show_default=True, help="Promotion raises it."
)
@click.option(
    "--start-lsn",
    default="0/0",
    show_default=True,
    metavar="X/X",
    help="Where the source's log is read from; 0/0 leaves it to the slot.",
)
@_KEY
@_JSON
@pass_options
def enrol(
    options: Options,
    path: Path,
    *,
    stream: str,
    identity: Path,
    epoch: int,
    start_lsn: str,
    operators: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write an enrolment to PATH: which producer may write a stream. Others add their signatures to it.

    Services accept it once keys.threshold persons have signed.
    """
    try:
        start = Lsn.parse(start_lsn)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    details: dict[str, JSON] = {"path": str(path), "stream": stream, "epoch": epoch, "start_lsn": str(start)}
    with audited(options, "keys.enrol", details) as under_way:
        producer = load_public_identity(identity)
        file = EnrolmentFile.draft(
            stream=_stream(options, stream), epoch=epoch, producer=producer, start_lsn=start
        )
        under_way.note(producer=producer.id.hex(), payload_sha256=file.payload_hash.hex())
        file = signed_by(file, operators, under_way)
        write_new(path, file.render(), mode=0o644)
    _tell_enrolment(options, path, file, as_json=as_json)


@keys.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", "operator", required=True, type=_FILE, help="Your secret operator key file.")
@click.option("--yes", is_flag=True, help="Do not ask whether this is what you mean to sign.")
@_JSON
@pass_options
def sign(options: Options, path: Path, operator: Path, *, yes: bool, as_json: bool) -> None:
    """Add your signature to the enrolment in PATH, after showing what it says."""
    file = EnrolmentFile.read(path)
    if not yes:
        _print_enrolment(_about(options, path, file), Console(stderr=True))
        confirm("Sign this?")
    details: dict[str, JSON] = {"path": str(path), "payload_sha256": file.payload_hash.hex()}
    with audited(options, "keys.sign", details) as under_way:
        file = signed_by(file, (operator,), under_way)
        replace(path, file.render())
    _tell_enrolment(options, path, file, as_json=as_json)


@keys.command(name="list")
@click.option("--topics", is_flag=True, help="Look at the streams' newest data keys too.")
@_JSON
@pass_options
def list_(options: Options, *, topics: bool, as_json: bool) -> ExitCode:
    """Show the configuration's key files, and each stream's enrolment with who has signed it.

    With --topics also what the streams say: for each recipient key in how many of them the newest data key is wrapped for
    it (announced, confirmed n/m, active), for each identity in how many it writes, and recipients that are still in use
    although the configuration does not name them.

    No passphrase is needed. The exit code is 4 if a file cannot be used or an enrolment does not hold.
    """
    settings = options.settings()
    files = [*key_entries(settings.keys), *keyd_entries(settings)]
    streams = options.streams(settings) if settings.streams else {}
    enrolments = list(enrolment_entries(settings, streams))
    if topics:
        files = list(in_topics(files, settings, streams))
    if as_json or options.as_json:
        report = {
            "schema": "embassy.keys/1",
            "keys": [entry._asdict() for entry in files],
            "enrolments": [entry.as_json() for entry in enrolments],
        }
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_list(files, enrolments, Console())
    problems = [entry.problem for entry in files] + [entry.problem for entry in enrolments]
    return ExitCode.CHECK_FAILED if any(problems) else ExitCode.OK


def _stream(options: Options, text: str) -> bytes:
    try:
        return stream_id(text)
    except ValueError:
        if options.config is None:
            raise click.UsageError(
                f"--stream {text!r} is not 32 hexadecimal digits; a name needs the configuration, -c FILE"
            ) from None
    settings = options.settings()
    found = settings.streams.get(text)
    if found is None:
        raise ConfigurationError(
            f"no stream {text!r}",
            place=options.place,
            hint=f"configured are {', '.join(sorted(settings.streams))}",
        )
    return stream_id(found.stream)


def _tell_made(made: KeyFiles, kind: str, *, as_json: bool) -> None:
    if as_json:
        report = {"kind": kind, "id": made.id.hex(), "secret": str(made.secret), "public": str(made.public)}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(f"{kind} {made.id.hex()}")
        click.echo(f"secret: {made.secret}   keep it here, and a backup in a safe")
        click.echo(f"public: {made.public}")


def _about(options: Options, path: Path, file: EnrolmentFile) -> EnrolmentEntry:
    """What an enrolment says; its signers are named if a configuration knows them."""
    settings = options.settings() if options.config is not None else None
    if settings is None:
        return described(EnrolmentEntry("", str(path), 0), file, ())
    entry = EnrolmentEntry("", str(path), settings.keys.threshold)
    return described(entry, file, roster_of(settings.keys))


def _tell_enrolment(options: Options, path: Path, file: EnrolmentFile, *, as_json: bool) -> None:
    entry = _about(options, path, file)
    if as_json or options.as_json:
        report: dict[str, Any] = entry.as_json() | {"signatures": len(file.signatures)}
        for name in ("name", "problem"):
            del report[name]
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    count = len(file.signatures)
    click.echo(f"{path}: {count} signature{'' if count == 1 else 's'}")


def _print_enrolment(entry: EnrolmentEntry, console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    for title, value in (
        ("stream", entry.stream),
        ("epoch", str(entry.epoch)),
        ("producer", entry.producer),
        ("start LSN", entry.start_lsn),
        ("signed by", ", ".join(entry.signers) or "-"),
        *(
            (f"successor {found.generation}", f"{found.producer}, signed by {', '.join(found.signers) or '-'}")
            for found in entry.successors
        ),
    ):
        table.add_row(title, value)
    console.print(table)


def _print_list(files: list[KeyEntry], enrolments: list[EnrolmentEntry], console: Console) -> None:
    if files:
        table = _table("setting", "kind", "id", "person", "file", "state")
        for entry in files:
            state = entry.problem or entry.state or ("locked" if entry.passphrase else "ok")
            cells = [entry.setting, entry.kind, entry.id or "-", entry.person, entry.path, state]
            table.add_row(*map(Text, cells))
        _print_wide(table, console)
    if enrolments:
        table = _table("stream", "epoch", "id", "signed by", "needs", "file", "state")
        for found in enrolments:
            signers, state = ", ".join(found.signers) or "-", found.problem or "ok"
            cells = [found.name, str(found.epoch or "-"), found.producer or "-", signers, str(found.threshold)]
            table.add_row(*map(Text, [*cells, found.path, state]))
            for successor in found.successors:
                signed = len(successor.signers) >= found.threshold
                signers = ", ".join(successor.signers) or "-"
                cells = [
                    f"  successor {successor.generation}",
                    "",
                    successor.producer,
                    signers,
                    str(found.threshold),
                ]
                table.add_row(*map(Text, [*cells, "", "signed" if signed else "announced"]))
        _print_wide(table, console)


def _print_wide(table: Table, console: Console) -> None:
    """A line a row, as wide as it has to be: a path that is folded cannot be copied, or found with grep."""
    console.width = _WIDEST
    console.print(table, crop=False)


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, no_wrap=title in ("setting", "kind", "id"), overflow="fold")
    return table
