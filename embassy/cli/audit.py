"""``embassy audit``: what operators did, and whether the record of it is whole."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from embassy.cli.auditing import audit_log
from embassy.cli.options import Options, pass_options
from embassy.model.errors import ConfigurationError, IntegrityError
from embassy.runtime.audit_chain import Verdict, read_entries, verify
from embassy.runtime.audit_line import AuditEntry

_HASH = re.compile(r"[0-9a-f]{64}")
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SCHEMA = "embassy.audit/1"


@click.group()
def audit() -> None:
    """Read the audit log, and prove that it is whole.

    Every command that changes something enters what it is about to do and how that ended, refusals included. The log
    is the file that audit.file names: one JSON object a line, each with the hash of the one before.
    """


@audit.command()
@click.option(
    "--verify", "only_verify", is_flag=True, help="Print no entries: prove the chain, and print its head."
)
@click.option(
    "--since", metavar="TIME", help="Entries from then on: 2026-01-31, 2026-01-31T12:00Z, or 90m, 12h, 7d."
)
@click.option(
    "--expect", metavar="HASH", help="A head that --verify printed earlier: it must still be in the chain."
)
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="Another log than the configuration's."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_options
def log(
    options: Options,
    *,
    only_verify: bool,
    since: str | None,
    expect: str | None,
    file: Path | None,
    as_json: bool,
) -> None:
    """Show the entries, oldest first, once the whole chain has been proven.

    A broken chain is told with its line, and the exit code is 9. That the end was cut off no chain can show: keep the
    head that --verify prints somewhere else, and give it to --expect.

    \b
    embassy -c home-admin.toml audit log --since 12h
    embassy -c home-admin.toml audit log --verify
    embassy -c home-admin.toml audit log --verify --expect 5f2c…
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    path = file or _configured(options)
    if expect is not None and not _HASH.fullmatch(expect):
        raise click.UsageError(f"--expect {expect!r} is not a hash of 64 hexadecimal digits")
    start = _parse_since(since, datetime.now(UTC)) if since is not None else None
    as_json = as_json or options.as_json
    entries: list[AuditEntry] = []
    broken: IntegrityError | None = None
    verdict: Verdict | None = None
    try:
        if not only_verify:
            for entry in read_entries(path):  # those before a broken one are shown
                entries.extend([entry] if start is None or _instant(entry) >= start else [])
        verdict = verify(path, expected=bytes.fromhex(expect) if expect else None)
    except IntegrityError as error:
        broken = error
    if as_json:
        click.echo(json.dumps(_report(path, entries, verdict), indent=2, ensure_ascii=False))
    else:
        _print(entries)
        if verdict is not None and only_verify:
            click.echo(f"{path}: {verdict.entries} entries, unbroken; head {verdict.head.hex()}")
    if verdict is not None and verdict.torn_bytes:
        click.echo(
            f"note: a crash has left {verdict.torn_bytes} bytes of an unfinished last line; the next entry will "
            "account for them",
            err=True,
        )
    if broken is not None:
        raise broken


def _configured(options: Options) -> Path:
    found = audit_log(options)
    if found is None:
        raise ConfigurationError("no audit log was named", hint="pass -c FILE before the command, or --file")
    return found.path


def _parse_since(text: str, now: datetime) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--since {text!r} is neither a time (2026-01-31T12:00Z) nor so long ago (12h)"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _instant(entry: AuditEntry) -> datetime:
    return datetime.fromisoformat(entry.at)


def _report(path: Path, entries: list[AuditEntry], verdict: Verdict | None) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "file": str(path),
        "unbroken": verdict is not None,
        "chain_entries": verdict.entries if verdict is not None else None,
        "head": verdict.head.hex() if verdict is not None else None,
        "torn_bytes": verdict.torn_bytes if verdict is not None else None,
        "entries": [{**entry._asdict(), "hash": entry.hash.hex()} for entry in entries],
    }


def _print(entries: list[AuditEntry]) -> None:
    """A line an entry, however long: details are for reading and for grep, and a narrow table would break them up."""
    for entry in entries:
        details = "  ".join(f"{name}={_short(value)}" for name, value in entry.details.items())
        line = f"{entry.sequence:<4} {entry.at}  {entry.actor}  {entry.action}  {entry.outcome}  {details}"
        click.echo(line.rstrip())


def _short(value: object) -> str:
    """A value on one line: text with a line break in it must not look like another entry."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
