"""``embassy keys rotate | announce | retire``: keys that are replaced while the streams run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from embassy.cli.auditing import audited
from embassy.cli.key_prompts import new_passphrase, signed_by
from embassy.cli.key_report import key_entries, roster_of
from embassy.cli.key_standing import KeyStanding, enrolment_of, key_standing, key_standings
from embassy.cli.options import Options, pass_options
from embassy.cli.telling import say, tell
from embassy.model.errors import ConfigurationError, RefusedError, TransientError
from embassy.pg import source_schema
from embassy.pg.connection import connect
from embassy.runtime.config import Settings, Stream
from embassy.wire.enrolment import EnrolmentFile
from embassy.wire.key_document import KeyKind, render_key
from embassy.wire.keyring import generate_identity, generate_recipient
from embassy.wire.public_keys import (
    PublicIdentity,
    load_public_identity,
    load_public_recipient,
    public_path,
    read_public,
)
from embassy.wire.secret_file import replace, write_new

_FILE = click.Path(dir_okay=False, path_type=Path)
_PASSPHRASE = click.option("--passphrase", "locked", is_flag=True, help="Lock the secret file with a passphrase.")
_POLL_SECONDS = 0.2
_ID_DIGITS_LEAST = 4
_RETIRED = "retired"


@click.group()
def rotate() -> None:
    """Replace a key while the streams run; nothing pauses.

    \b
    data       a fresh data key, at once; the producer does so by itself every few minutes
    recipient  an embassy's key: the new one beside the old, then the old one retired
    identity   a producer's key: the operators sign its successor, readers learn of it, the producer takes it
    docs/runbooks/keys.md has each from the first command to the last.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@rotate.command()
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the new key, where kafka.home is configured.",
)
@pass_options
def data(options: Options, wait_seconds: float) -> None:
    """Have producers begin a fresh data key, and wait until it counts.

    Needs streams.NAME.source, of an administrator; the producers see the request within a second. Exit code 3 if no
    producer takes it up.

    \b
    embassy -c home-admin.toml -r land_register keys rotate data
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    settings = options.settings()
    streams = options.streams(settings)
    sources = {name: options.need(stream.source, f"streams.{name}.source") for name, stream in streams.items()}
    watched = settings.kafka.home is not None and wait_seconds > 0
    with audited(options, "keys.rotate-data", {"streams": list(streams)}) as under_way:
        before = key_standings(settings, streams) if watched else {}
        for name, stream in streams.items():
            with connect(sources[name].dsn, application_name="embassy-keys", autocommit=True) as connection:
                source_schema.request_rotation(connection, bytes.fromhex(stream.stream))
            if not watched:
                say(options, f"{name}: requested")
        begun: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + wait_seconds
        for name, stream in streams.items() if watched else ():
            found = _renewed(settings, stream, before[name], deadline)
            if found is None:
                raise TransientError(
                    f"no producer has begun a fresh data key for {name} within {wait_seconds:g} s",
                    place=f"streams.{name}",
                    hint="is the producer running? It takes the request up when it starts",
                )
            under_way.note(**{name: found.incarnation.hex()})
            say(options, f"{name}: data key {found.incarnation.hex()[:8]}… counts from record {found.sequence} on")
            begun[name] = {"data_key": found.incarnation.hex(), "sequence": found.sequence}
        tell(options, "embassy.keys-rotate-data/1", {"requested": list(streams), "streams": begun})


@rotate.command()
@click.argument("path", type=_FILE, required=False)
@_PASSPHRASE
@pass_options
def recipient(options: Options, path: Path | None, *, locked: bool) -> None:
    """In the embassy: make the key that is to follow the present one.

    It is written to PATH, or into the folder that keys.recipient names. The consumer then has to learn of it
    (systemctl reload), and home has to announce its public file.
    """
    settings = options.settings()
    target = path or _fresh_name(settings.keys.recipient, "recipient", settings)
    phrase = new_passphrase() if locked else None
    with audited(options, "keys.rotate-recipient", {"path": str(target)}) as under_way:
        made = generate_recipient(target, phrase=phrase)
        under_way.note(id=made.id.hex())
    tell(
        options,
        "embassy.keys-rotate-recipient/1",
        {"id": made.id.hex(), "secret": str(made.secret), "public": str(made.public)},
        f"recipient {made.id.hex()}: {made.secret}",
        "next: 1. let the consumer read it (systemctl reload embassy-consumer)",
        f"      2. at home: embassy -c producer.toml keys announce {made.public.name}; reload the producer",
        "      3. embassy keys list --topics, until it is active in every stream; then retire the old one",
    )


@rotate.command()
@click.argument("path", type=_FILE, required=False)
@click.option("--identity", "public", type=_FILE, help="A public identity file that is there already.")
@click.option("--discard-unsigned", is_flag=True, help="Drop an announced successor that too few have signed.")
@click.option("--key", "operators", type=_FILE, multiple=True, help="An operator's secret key file, to sign with.")
@_PASSPHRASE
@pass_options
def identity(
    options: Options,
    path: Path | None,
    *,
    public: Path | None,
    discard_unsigned: bool,
    operators: tuple[Path, ...],
    locked: bool,
) -> None:
    """At home: make the identity that is to follow the present one, and enter it into the streams' enrolments.

    It is written to PATH, or into the folder that keys.identity names. The operators then sign each enrolment
    (embassy keys sign). Give the signed files to the bridge and the consumers first, and reload them; then to the
    producer, and reload it: from its next record on only the new identity counts.
    """
    settings = options.settings()
    streams = options.streams(settings)
    announced: dict[str, dict[str, Any]] = {}
    with audited(options, "keys.rotate-identity", {"streams": list(streams)}) as under_way:
        if public is None:
            target = path or _fresh_name(settings.keys.identity, "identity", settings)
            public = generate_identity(target, phrase=new_passphrase() if locked else None).public
            say(options, f"secret: {target}")
        producer = load_public_identity(public)
        under_way.note(id=producer.id.hex())
        say(options, f"identity {producer.id.hex()}: {public}")
        for name, stream in streams.items():
            announced[name] = {"enrolment": str(stream.enrolment), "already": True}
            file = _announced(settings, stream, producer, discard_unsigned=discard_unsigned)
            if file is None:
                say(options, f"{name}: announced already")
                continue
            file = signed_by(file, operators, under_way)
            replace(stream.enrolment, file.render())
            signers = file.successions[-1].signers(roster_of(settings.keys))
            announced[name] |= {"already": False, "signers": sorted(signers), "threshold": settings.keys.threshold}
            say(
                options,
                f"{name}: announced in {stream.enrolment}; signed by {len(signers)} of {settings.keys.threshold}",
            )
    facts = {"id": producer.id.hex(), "public": str(public), "streams": announced}
    tell(options, "embassy.keys-rotate-identity/1", facts)


@click.command()
@click.argument("public", type=_FILE)
@pass_options
def announce(options: Options, public: Path) -> None:
    """At home: take a recipient's public file among those for whom data keys are wrapped.

    It is copied into the folder that keys.recipients names. The producer wraps for it from its next reload on
    (systemctl reload embassy-producer).
    """
    settings = options.settings()
    folder = next((path for path in settings.keys.recipients if path.is_dir()), None)
    if folder is None:
        raise ConfigurationError(
            "keys.recipients names no folder to put it into",
            place=options.place,
            hint="name a folder of public key files there, or add the file's name by hand",
        )
    with audited(options, "keys.announce", {"path": str(public)}) as under_way:
        found = load_public_recipient(public)
        under_way.note(id=found.id.hex())
        if any(load_public_recipient(path).id == found.id for path in settings.keys.recipients_files):
            raise RefusedError(f"recipient {found.id.hex()} is announced already", place=str(folder))
        half = read_public(public, KeyKind.RECIPIENT)
        target = folder / f"{found.id.hex()}.pub.json"
        write_new(target, render_key(half), mode=0o644)
    tell(
        options,
        "embassy.keys-announce/1",
        {"id": found.id.hex(), "file": str(target)},
        f"recipient {found.id.hex()}: {target}",
        "next: reload the producer; embassy keys list --topics shows when it is active in every stream",
    )


@click.command()
@click.argument("key_id", metavar="ID")
@pass_options
def retire(options: Options, key_id: str) -> None:
    """Take a recipient key out of use, once the streams can do without it: ID is its id, or the id's beginning.

    With the producer's configuration: nobody's data keys are wrapped for it from the next reload on. With the
    consumer's: the secret is moved to the folder "retired", whence it can be taken back; records in the topics that only
    it opens cannot be read without it, so keep it as long as they are kept.

    Refused unless the newest data key of each stream is wrapped for another key that remains.
    """
    settings = options.settings()
    streams = options.streams(settings)
    with audited(options, "keys.retire", {"id": key_id}) as under_way:
        files = _recipient_files(settings)
        matching = [found for found in files if found.startswith(key_id.lower())]
        if len(matching) != 1 or len(key_id) < _ID_DIGITS_LEAST:
            raise ConfigurationError(
                f"{len(matching)} recipient keys have an id that begins with {key_id!r}",
                place=options.place,
                hint="embassy keys list shows the ids; name one by at least four digits",
            )
        (retired,) = matching
        under_way.note(id=retired)
        _must_do_without(key_standings(settings, streams), files.keys() - {retired}, retired)
        moved = [_move_away(path, settings) for path in files[retired]]
        under_way.note(moved=[str(path) for path in moved])
    files_moved = [str(path) for path in moved]
    tell(
        options,
        "embassy.keys-retire/1",
        {"id": retired, "files": files_moved},
        f"recipient {retired}: retired to {', '.join(files_moved)}",
        "next: reload the service that reads it",
    )


def _recipient_files(settings: Settings) -> dict[str, list[Path]]:
    """The ids of the recipient keys that the configuration leads to, secret or public, each with its files."""
    found: dict[str, list[Path]] = {}
    for entry in key_entries(settings.keys):
        if entry.kind != KeyKind.RECIPIENT:
            continue
        if entry.problem:
            raise ConfigurationError(entry.problem, place=entry.path, hint="embassy keys list shows every file")
        files = found.setdefault(entry.id, [])
        files.append(Path(entry.path))
        public = public_path(Path(entry.path))
        if entry.secret and public.exists():
            files.append(public)
    return found


def _must_do_without(
    standings: Mapping[str, KeyStanding | None], remaining: Collection[str], retired: str
) -> None:
    """Refuse to retire a key that a stream still needs."""
    if not remaining:
        raise RefusedError(
            "it is the only recipient key there is: nobody could read the streams",
            place=f"recipient {retired}",
            hint="rotate it first: the new key beside the old one",
        )
    for name, standing in standings.items():
        wrapped = (
            {recipient.hex() for recipient in standing.recipients} if standing is not None else set(remaining)
        )
        if wrapped.isdisjoint(remaining):
            raise RefusedError(
                f"the newest data key of {name} is wrapped for {', '.join(sorted(wrapped))} and for none that remains",
                place=f"streams.{name}",
                hint="announce the other key at home and reload the producer first",
            )


def _move_away(path: Path, settings: Settings) -> Path:
    """Move a key's file out of the folder that the configuration names."""
    keys = settings.keys
    named = (*keys.recipients, *keys.named(keys.recipient))
    if path in named or path.parent not in named:
        raise ConfigurationError(
            "the configuration names the key's file itself: moving it would leave the service without",
            place=str(path),
            hint="take its name out of the configuration, and reload the service",
        )
    folder = path.parent / _RETIRED
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / path.name
    if target.exists():
        raise RefusedError("a file of this name was retired before", place=str(target), hint="move that one away")
    path.rename(target)
    return target


def _renewed(
    settings: Settings, stream: Stream, before: KeyStanding | None, deadline: float
) -> KeyStanding | None:
    """The standing once its incarnation is another one; None at the deadline."""
    while True:
        found = key_standing(settings, stream)
        if found is not None and (before is None or found.incarnation != before.incarnation):
            return found
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _announced(
    settings: Settings, stream: Stream, producer: PublicIdentity, *, discard_unsigned: bool
) -> EnrolmentFile | None:
    """The enrolment with the producer as the next successor; None if it is there already."""
    path = stream.enrolment
    file, proven = EnrolmentFile.read(path), enrolment_of(settings, stream)
    count = len(proven.successors)
    pending = file.successions[count:]
    if pending and discard_unsigned:
        file = dataclasses.replace(file, successions=file.successions[:count])
    elif pending:
        if file.announces(producer, path):
            return None
        raise RefusedError(
            "another successor is announced, and too few persons have signed it",
            place=str(path),
            hint="let it be signed (embassy keys sign), or drop it with --discard-unsigned",
        )
    return file.succeeded_by(producer, path)


def _fresh_name(named: Path | tuple[Path, ...] | None, kind: str, settings: Settings) -> Path:
    """A name for a new key in the folder that the configuration names."""
    folder = next((path for path in settings.keys.named(named) if path.is_dir()), None)
    if folder is None:
        raise click.UsageError(f"PATH is missing, and keys.{kind} names no folder for it")
    return folder / f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
