"""``embassy keys roster``: who the operators are, changed by the operators themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embassy.cli.auditing import audited
from embassy.cli.key_prompts import confirm, signed_by
from embassy.cli.options import Options, pass_options
from embassy.cli.telling import tell
from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.public_keys import PublicOperator, load_public_operator
from embassy.wire.roster import Roster, RosterFile, without
from embassy.wire.secret_file import replace, write_new

_FILE = click.Path(dir_okay=False, path_type=Path)
_OPERATORS = click.option(
    "--operator",
    "operators",
    type=_FILE,
    multiple=True,
    required=True,
    help="A person's public key file; repeated.",
)
_THRESHOLD = click.option(
    "--threshold", type=click.IntRange(1), help="How many persons have to sign from then on."
)
_KEYS = click.option(
    "--key", "keys", type=_FILE, multiple=True, help="An operator's secret key file, to sign with."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def roster() -> None:
    """Say who the operators are, in a document that they change themselves.

    Each version is signed by as many persons as the version before asks for, and by as many of its own. Name the file in
    keys.operators of every role, alone; keys.threshold has to be what it says. A list of key files there works as well;
    a file beside the roster is of a person who must have signed the first version.

    \b
    embassy keys roster init roster.json --operator anna.pub.json --operator bert.pub.json --operator carl.pub.json \\
        --threshold 2 --key anna.json
    embassy keys roster sign roster.json --key bert.json
    embassy keys roster remove roster.json --person Carl --key anna.json      (bert signs, and it is so)
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@roster.command()
@click.argument("path", type=_FILE)
@_OPERATORS
@click.option(
    "--threshold", type=click.IntRange(1), default=2, show_default=True, help="How many persons must sign."
)
@_KEYS
@pass_options
def init(
    options: Options, path: Path, *, operators: tuple[Path, ...], threshold: int, keys: tuple[Path, ...]
) -> None:
    """Begin a roster in PATH; it holds once its threshold of persons has signed it."""
    with audited(options, "keys.roster-init", {"path": str(path), "threshold": threshold}) as under_way:
        file = RosterFile.begin([load_public_operator(operator) for operator in operators], threshold)
        file = signed_by(file, keys, under_way)
        write_new(path, file.render(), mode=0o644)
    _tell(options, path, file)


@roster.command()
@click.argument("path", type=_FILE)
@_OPERATORS
@_THRESHOLD
@_KEYS
@pass_options
def add(
    options: Options, path: Path, *, operators: tuple[Path, ...], threshold: int | None, keys: tuple[Path, ...]
) -> None:
    """Draft the next version, with more persons, or another key of one."""
    with audited(options, "keys.roster-add", {"path": str(path), "threshold": threshold}) as under_way:
        file, last = _ready(path)
        fresh = [load_public_operator(operator) for operator in operators]
        under_way.note(added=[operator.person for operator in fresh])
        file = signed_by(
            file.changed([*last.operators, *fresh], threshold or last.threshold, path), keys, under_way
        )
        replace(path, file.render())
    _tell(options, path, file)


@roster.command()
@click.argument("path", type=_FILE)
@click.option(
    "--person", "persons", multiple=True, required=True, help="Whose keys are to count no more; repeated."
)
@_THRESHOLD
@_KEYS
@pass_options
def remove(
    options: Options, path: Path, *, persons: tuple[str, ...], threshold: int | None, keys: tuple[Path, ...]
) -> None:
    """Draft the next version, without some persons.

    Enrolments that they signed must be signed by enough of those who remain before the services learn of the new version:
    embassy keys sign adds a signature to a file and changes nothing else.
    """
    details = {"path": str(path), "threshold": threshold, "removed": persons}
    with audited(options, "keys.roster-remove", details) as under_way:
        file, last = _ready(path)
        file = file.changed(without(last, persons), threshold or last.threshold, path)
        file = signed_by(file, keys, under_way)
        replace(path, file.render())
    _tell(options, path, file)


@roster.command()
@click.argument("path", type=_FILE)
@click.option("--key", "key", required=True, type=_FILE, help="Your secret operator key file.")
@click.option("--yes", is_flag=True, help="Do not ask whether this is what you mean to sign.")
@pass_options
def sign(options: Options, path: Path, *, key: Path, yes: bool) -> None:
    """Add your signature to the last version, after showing what it says."""
    file = RosterFile.read(path)
    file.stated(path)  # nobody signs what does not follow
    if not yes:
        _print(path, file, Console(stderr=True))
        confirm("Sign the last version?")
    with audited(options, "keys.roster-sign", {"path": str(path), "version": len(file.versions)}) as under_way:
        file = signed_by(file, (key,), under_way)
        replace(path, file.render())
    _tell(options, path, file)


@roster.command()
@click.argument("path", type=_FILE)
@_JSON
@pass_options
def show(options: Options, path: Path, *, as_json: bool) -> None:
    """Show each version with who signed it, and which one counts."""
    file = RosterFile.read(path)
    if not (as_json or options.as_json):
        _print(path, file, Console())
        return
    counts = _counting(path, file)
    versions = [
        _version(found, sorted(_signers(file, found)), counts=found.number == counts)
        for found in file.stated(path)
    ]
    click.echo(json.dumps({"schema": "embassy.roster/1", "file": str(path), "versions": versions}, indent=2))


def _ready(path: Path) -> tuple[RosterFile, Roster]:
    """A file on whose last version the next one can follow.

    Raises:
        RefusedError: its last version is still to be signed.
    """
    file = RosterFile.read(path)
    last = file.stated(path)[-1]
    if _counting(path, file) != last.number:
        raise RefusedError(
            f"version {last.number} is still to be signed by enough persons",
            place=str(path),
            hint="embassy keys roster sign; or restore the file from before that version",
        )
    return file, last


def _counting(path: Path, file: RosterFile) -> int:
    try:
        return file.proven(None, path).number
    except ConfigurationError:
        return 0


def _signers(file: RosterFile, found: Roster) -> frozenset[str]:
    """Who has signed a version, of its own persons and of those before."""
    known: list[PublicOperator] = list(found.operators)
    if found.number > 1:
        known += file.stated(Path("roster"))[found.number - 2].operators
    return file.versions[found.number - 1].signers(known)


def _tell(options: Options, path: Path, file: RosterFile) -> None:
    """Say how the last version stands."""
    last = file.stated(path)[-1]
    signers, counts = sorted(_signers(file, last)), _counting(path, file) == last.number
    tell(
        options,
        "embassy.roster-version/1",
        {"file": str(path), **_version(last, signers, counts=counts)},
        f"{path}: version {last.number}, {last.threshold} of {len(last.persons)}; signed by "
        f"{', '.join(signers) or 'nobody yet'}: {'it counts' if counts else 'it does not count yet'}",
    )


def _version(found: Roster, signers: Sequence[str], *, counts: bool) -> dict[str, Any]:
    """For scripts."""
    return {
        "number": found.number,
        "threshold": found.threshold,
        "persons": found.persons,
        "keys": {
            person: [operator.id.hex() for operator in found.operators if operator.person == person]
            for person in found.persons
        },
        "signers": list(signers),
        "counts": counts,
    }


def _print(path: Path, file: RosterFile, console: Console) -> None:
    counts = _counting(path, file)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("version", "needs", "persons and keys", "signed by", "state"):
        table.add_column(title, overflow="fold")
    for found in file.stated(path):
        state = "counts" if found.number == counts else "replaced" if found.number < counts else "to be signed"
        cells = [str(found.number), str(found.threshold), "\n".join(sorted(map(_named, found.operators)))]
        table.add_row(*map(Text, [*cells, ", ".join(sorted(_signers(file, found))) or "-", state]))
    console.print(table)
    console.print(Text(_changes(file.stated(path))))


def _changes(stated: Sequence[Roster]) -> str:
    """What the last version changes, key by key: under a name that stays there may be somebody else's."""
    before = set(stated[-2].operators) if len(stated) > 1 else set()
    now = set(stated[-1].operators)
    words = [
        f"{verb} {', '.join(sorted(map(_named, operators)))}"
        for verb, operators in (("adds", now - before), ("takes out", before - now))
        if operators
    ]
    return f"version {stated[-1].number} {', '.join(words) or 'changes no key'}"


def _named(operator: PublicOperator) -> str:
    return f"{operator.person} {operator.id.hex()}"
