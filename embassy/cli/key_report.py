"""What a configuration's key files and enrolments are, as ``embassy keys list`` shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embassy.model.errors import ConfigurationError, TransientError
from embassy.runtime.config import Keys, Settings, Stream
from embassy.wire import passphrase
from embassy.wire.enrolment import EnrolmentFile, load_enrolment, load_roster
from embassy.wire.key_client import KeydKeys
from embassy.wire.key_document import KeyDocument, KeyKind, parse_key
from embassy.wire.public_keys import PublicOperator, read_public
from embassy.wire.roster import RosterFile, is_roster
from embassy.wire.secret_file import read_secret


class KeyEntry(NamedTuple):
    """One key file of the configuration."""

    setting: str
    kind: str
    path: str
    secret: bool
    id: str = ""
    person: str = ""
    passphrase: bool = False
    problem: str = ""
    remedy: str = ""
    state: str = ""
    """What the streams' topics say, if they were asked: announced, confirmed n/m, active, or retired but in use."""


class SuccessorEntry(NamedTuple):
    """One producer after the enrolled one, signed or not."""

    generation: int
    producer: str
    signers: tuple[str, ...]


class EnrolmentEntry(NamedTuple):
    """One stream's enrolment."""

    name: str
    path: str
    threshold: int
    stream: str = ""
    epoch: int = 0
    start_lsn: str = ""
    producer: str = ""
    signers: tuple[str, ...] = ()
    successors: tuple[SuccessorEntry, ...] = ()
    problem: str = ""
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return self._asdict() | {"successors": [successor._asdict() for successor in self.successors]}


def key_entries(keys: Keys) -> Iterator[KeyEntry]:
    """The key files that a configuration names."""
    for setting, kind, paths in (
        ("keys.identity", KeyKind.IDENTITY, keys.identity_files),
        ("keys.recipient", KeyKind.RECIPIENT, keys.recipient_files),
    ):
        for path in paths:
            yield _entry(setting, kind, path, _read_secret, secret=True)
    for setting, kind, paths in (
        ("keys.recipients", KeyKind.RECIPIENT, keys.recipients_files),
        ("keys.operators", KeyKind.OPERATOR, keys.operators),
    ):
        for path in paths:
            if kind is KeyKind.OPERATOR and _is_roster(path):
                yield _roster_entry(setting, path, keys)
            else:
                yield _entry(setting, kind, path, _read_public, secret=False)


def keyd_entries(settings: Settings) -> Iterator[KeyEntry]:
    """The recipient keys that a keyd holds for a consumer without key files."""
    if settings.keyd is None or settings.keys.recipient is not None:
        return
    entry = KeyEntry("keyd.socket", KeyKind.RECIPIENT.value, str(settings.keyd.socket), secret=True)
    client = KeydKeys(settings.keyd.socket)
    try:
        for recipient in client.holds():
            yield entry._replace(id=recipient.hex())
    except TransientError as error:
        yield entry._replace(problem=error.args[0], remedy=error.hint)
    finally:
        client.close()


def enrolment_entries(settings: Settings, streams: dict[str, Stream]) -> Iterator[EnrolmentEntry]:
    """The enrolments of streams, with who has signed them."""
    keys = settings.keys
    for name, stream in streams.items():
        entry = EnrolmentEntry(name, str(stream.enrolment), keys.threshold)
        try:
            entry = described(entry, EnrolmentFile.read(stream.enrolment), roster_of(keys))
            load_enrolment(
                stream.enrolment, operators=keys.operators, threshold=keys.threshold, stream=stream.stream
            )
        except ConfigurationError as error:
            entry = entry._replace(problem=error.args[0], remedy=error.hint)
        yield entry


def roster_of(keys: Keys) -> tuple[PublicOperator, ...]:
    """The operators that a configuration names; nobody if one of their files cannot be used."""
    try:
        return load_roster(keys.operators, threshold=0)
    except ConfigurationError:  # each file's own entry tells what is wrong with it
        return ()


def described(entry: EnrolmentEntry, file: EnrolmentFile, roster: Sequence[PublicOperator]) -> EnrolmentEntry:
    """The entry with what the file says.

    Raises:
        ConfigurationError: the payload is damaged.
    """
    enrolment = file.parsed(Path(entry.path))
    return entry._replace(
        stream=enrolment.stream.hex(),
        epoch=enrolment.epoch,
        start_lsn=str(enrolment.start_lsn),
        producer=enrolment.producer.id.hex(),
        signers=tuple(sorted(file.signers(roster))),
        successors=tuple(
            SuccessorEntry(generation, producer.id.hex(), tuple(sorted(succession.signers(roster))))
            for generation, (producer, succession) in enumerate(
                zip(file.producers_named(Path(entry.path))[1:], file.successions, strict=True), 2
            )
        ),
    )


def _entry(
    setting: str, kind: KeyKind, path: Path, read: Callable[[Path, KeyKind], KeyDocument], *, secret: bool
) -> KeyEntry:
    entry = KeyEntry(setting, kind.value, str(path), secret)
    try:
        public, content = read(path, kind)
    except ConfigurationError as error:
        return entry._replace(problem=error.args[0], remedy=error.hint)
    locked = content is not None and passphrase.is_locked(content)
    return entry._replace(id=public.id.hex(), person=public.person, passphrase=locked)


def _is_roster(path: Path) -> bool:
    try:
        return is_roster(path)
    except ConfigurationError:  # its own entry tells
        return False


def _roster_entry(setting: str, path: Path, keys: Keys) -> KeyEntry:
    entry = KeyEntry(setting, "roster", str(path), secret=False)
    try:
        load_roster(keys.operators, keys.threshold)
        found = RosterFile.read(path).proven(None, path)
    except ConfigurationError as error:
        return entry._replace(problem=error.args[0], remedy=error.hint)
    return entry._replace(id=f"version {found.number}", person=", ".join(found.persons))


def _read_secret(path: Path, kind: KeyKind) -> KeyDocument:
    document = parse_key(read_secret(path, f"secret {kind} key file"), kind, path)
    if document.secret is None:
        raise ConfigurationError("this is a public key file; the secret one belongs here")
    return document


def _read_public(path: Path, kind: KeyKind) -> KeyDocument:
    return KeyDocument(read_public(path, kind), None)
