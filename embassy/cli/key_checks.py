"""What ``embassy doctor keys`` examines: the files that a configuration names."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from embassy.cli.key_report import enrolment_entries, key_entries, keyd_entries
from embassy.model.diagnosis import Level, Remark
from embassy.model.errors import EmbassyError
from embassy.model.wording import iso
from embassy.pg.connection import certificate_of
from embassy.runtime.certificates import content_of, end_of
from embassy.runtime.config import Settings, Stream
from embassy.runtime.config_origins import redacted
from embassy.wire.enrolment import load_enrolment
from embassy.wire.keyring import load_identity

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_EARLY_SECONDS = 21 * 86_400
_RENEW = "put a new one in its place; services that use it for Kafka are to be restarted"


def key_remarks(settings: Settings, streams: Mapping[str, Stream], config: Path) -> Iterator[Remark]:
    """Everything that is found."""
    for key in (*key_entries(settings.keys), *keyd_entries(settings)):
        if key.problem:
            remedy = key.remedy or "embassy keys list"
            yield Remark("KY01", Level.FAIL, key.path, f"{key.setting}: {key.problem}", remedy)
        else:
            yield Remark("KY01", Level.OK, key.path, f"{key.setting}: {key.kind} {key.id}")
    for entry in enrolment_entries(settings, dict(streams)):
        if entry.problem:
            remedy = entry.remedy or "embassy keys sign"
            yield Remark("KY02", Level.FAIL, entry.path, f"streams.{entry.name}: {entry.problem}", remedy)
        else:
            yield Remark(
                "KY02",
                Level.OK,
                entry.path,
                f"streams.{entry.name}: epoch {entry.epoch}, by {', '.join(entry.signers)}",
            )
    # An embassy's administrator has an identity too: it signs what is reported of a promotion.
    if settings.keys.identity_files and any(stream.source for stream in streams.values()):
        yield from _producer(settings, streams, settings.keys.identity_files)
    yield from _passwords(streams, config)
    yield from _certificates(settings, streams)


def _producer(settings: Settings, streams: Mapping[str, Stream], paths: tuple[Path, ...]) -> Iterator[Remark]:
    """What only a producer's configuration has."""
    recipients = len(settings.keys.recipients_files)
    if recipients:
        yield Remark("KY04", Level.OK, "keys.recipients", f"{recipients} recipients")
    else:
        yield Remark(
            "KY04",
            Level.FAIL,
            "keys.recipients",
            "nobody could open the stream",
            "name the embassies' public key files",
        )
    try:
        held = [load_identity(path).public for path in paths]
    except EmbassyError:  # the file has a remark of its own
        return
    for name, stream in streams.items():
        try:
            enrolment = load_enrolment(
                stream.enrolment,
                operators=settings.keys.operators,
                threshold=settings.keys.threshold,
                stream=stream.stream,
            )
        except EmbassyError:  # so has this one
            continue
        generation = max(map(enrolment.generation_of, held))
        if generation:
            latest = generation == len(enrolment.producers)
            note = (
                "" if latest else f", number {generation} of {len(enrolment.producers)}: a successor is announced"
            )
            yield Remark("KY03", Level.OK, str(stream.enrolment), f"streams.{name}: enrols this producer{note}")
        else:
            yield Remark(
                "KY03",
                Level.FAIL,
                str(stream.enrolment),
                f"streams.{name}: enrols producer {enrolment.producers[-1].id.hex()}, and this is {held[0].id.hex()}: "
                "what it writes would not count",
                "use the key of the enrolment, or let the operators enrol this one",
            )


def _passwords(streams: Mapping[str, Stream], config: Path) -> Iterator[Remark]:
    if all(redacted(dsn) == dsn for dsn in _dsns(streams)):
        return
    mode = config.stat().st_mode
    if mode & _OTHERS:
        yield Remark(
            "KY05",
            Level.FAIL,
            str(config),
            f"a dsn has a password, and others may read the file (mode {stat.S_IMODE(mode):04o})",
            "chmod 600, or use certificates or a passfile",
        )
    else:
        yield Remark("KY05", Level.OK, str(config), "its passwords are its owner's")


def _certificates(settings: Settings, streams: Mapping[str, Stream]) -> Iterator[Remark]:
    clusters = [cluster for cluster in (settings.kafka.home, settings.kafka.foreign) if cluster is not None]
    paths = [cluster.certificate for cluster in clusters]
    paths += [path for dsn in _dsns(streams) if (path := certificate_of(dsn)) is not None]
    now = time.time()
    for path in dict.fromkeys(paths):
        end = end_of(content_of(path))
        if end is None:
            yield Remark(
                "KY06", Level.FAIL, str(path), "no certificate can be read there", "put one there, in PEM"
            )
        elif end <= now:
            yield Remark("KY06", Level.FAIL, str(path), f"expired at {iso(end)}", _RENEW)
        elif end <= now + _EARLY_SECONDS:
            yield Remark("KY06", Level.WARN, str(path), f"expires at {iso(end)}", _RENEW)
        else:
            yield Remark("KY06", Level.OK, str(path), f"valid until {iso(end)}")


def _dsns(streams: Mapping[str, Stream]) -> list[str]:
    return [end.dsn for stream in streams.values() for end in (stream.source, stream.replica) if end is not None]
