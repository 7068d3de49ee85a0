"""``embassy producer``: the service at home."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from embassy.cli.authority_watch import Authority, AuthorityWatch, SourceLook
from embassy.cli.options import Options, pass_options
from embassy.cli.service import CLOCK, CLOSE_SECONDS, Service, address_file_option
from embassy.model.errors import ConfigurationError
from embassy.pg.connection import certificate_of
from embassy.pg.exchange import Errand
from embassy.pg.lost_session import TriedAgain
from embassy.runtime import metrics as catalogue
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.gauges import ProducerGauges
from embassy.runtime.supervised_stream import Assignment
from embassy.wire.enrolment import Enrolment
from embassy.wire.kafka_writer import KafkaWriter
from embassy.wire.keyring import Identity, load_identity
from embassy.wire.public_keys import PublicRecipient, load_public_recipient
from embassy.wire.reader_pool import ReaderPool
from embassy.wire.sealing import Sealer
from embassy.wire.selftest import selftest
from embassy.wire.supersession import refuse_if_superseded
from producers import decoding_memory
from producers.beats_seen import BeatsSeen
from producers.heartbeat import Turns
from producers.slot_watch import SlotWatch, Watched
from producers.stream_producer import StreamProducer, StreamSetup


@click.group()
def producer() -> None:
    """Home: read the registries' changes, seal them, append to Kafka."""


@producer.command()
@address_file_option
@pass_options
def run(options: Options, *, address_file: Path | None) -> ExitCode:
    """Tail each stream's replication slot until told to stop.

    A stream that cannot go on halts, with the reason in the log and in /readyz; the others go on. SIGTERM drains
    within seconds. On SIGHUP it reads keys and enrolments again, and each stream goes on with a new data key, wrapped
    for the recipients there are now, under the latest enrolled identity that is there.

    Reads kafka.home, keys.identity, keys.recipients, keys.operators and streams.NAME.source.

    \b
    embassy -c producer.toml producer run
    embassy -c producer.toml -r land_register producer run
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    with Service("producer", options, address_file=address_file) as service:
        fleet = _Fleet(service)
        assignments = [fleet.assignment(name, stream) for name, stream in service.streams.items()]
        watch = SlotWatch(fleet.slots, service.running)
        service.closing.callback(watch.close)
        authority = AuthorityWatch(fleet.authorities.values(), service.running)
        service.closing.callback(authority.close)
        return service.run(assignments)


class _Keys(NamedTuple):
    identities: tuple[Identity, ...]
    recipients: tuple[PublicRecipient, ...]


class _Running(NamedTuple):
    sealer: Sealer
    producer: StreamProducer


class _Fleet:
    """What the streams of the process share, and how one is made of it."""

    def __init__(self, service: Service) -> None:
        selftest()
        need, settings = service.options.need, service.settings
        self._service = service
        self._cluster = need(settings.kafka.home, "kafka.home")
        need(settings.keys.operators, "keys.operators")
        need(settings.keys.identity, "keys.identity")
        need(settings.keys.recipients, "keys.recipients")
        self._keys = self._load_keys()
        self._running: dict[str, _Running] = {}
        self._turns = Turns()
        self._beats: dict[bytes, BeatsSeen] = {}
        service.reloaded_by(self._reload)
        self._link = service.link(catalogue.KAFKA_CONNECTED, "home", self._cluster)
        self._writer = KafkaWriter(self._cluster, f"producer-{settings.site}", self._link.refused)
        service.closing.callback(self._writer.close, CLOSE_SECONDS)
        self._readers = ReaderPool(self._cluster, f"producer-{settings.site}-head")
        service.closing.callback(self._readers.close)
        self._sources = [stream.source.dsn for stream in service.streams.values() if stream.source is not None]
        self.slots: list[Watched] = []
        self.authorities: dict[str, Authority] = {}

    def _load_keys(self) -> _Keys:
        keys = self._service.settings.keys
        found = _Keys(
            tuple(load_identity(path) for path in keys.identity_files),
            tuple(load_public_recipient(path) for path in keys.recipients_files),
        )
        details = {
            "identities": [identity.public.id.hex() for identity in found.identities],
            "recipients": [recipient.id.hex() for recipient in found.recipients],
        }
        self._service.record("key.load", outcome="ok", details=details)
        return found

    def _reload(self) -> None:
        """Take the present keys, and let each stream begin a new incarnation with them."""
        self._keys = self._load_keys()
        for name in tuple(self._running):
            self._service.attempt(partial(self._reload_stream, name))

    def _reload_stream(self, name: str) -> None:
        enrolment = self._service.enrolment(self._service.streams[name])
        running = self._running[name]
        running.sealer.adopt(self._identity_for(enrolment), enrolment, self._keys.recipients)
        running.producer.rotate()

    def _identity_for(self, enrolment: Enrolment) -> Identity:
        """The latest of the stream's producers that this one has the secret of.

        Raises:
            ConfigurationError: no secret is there.
        """
        identities = self._keys.identities
        if not identities:
            raise ConfigurationError(
                "there is no producer's key", place="keys.identity", hint="name a key file, or a folder of them"
            )
        return max(identities, key=lambda identity: enrolment.generation_of(identity.public))

    def assignment(self, name: str, stream: Stream) -> Assignment:
        source = self._service.options.need(stream.source, f"streams.{name}.source")
        gauges = ProducerGauges(self._service.metrics, name, link=self._link)
        authority = SourceLook(
            self._service.metrics,
            site=self._service.settings.site,
            name=name,
            stream=bytes.fromhex(stream.stream),
        )
        self.authorities[name] = Authority(name, source.dsn, authority)
        self._service.shows(certificate_of(source.dsn))
        self.slots.append(Watched(name, source.dsn, stream.slot, gauges.slot, gauges.slot_lost))
        return Assignment(
            name,
            partial(self._build, name, stream, gauges, authority.errand),
            gauges.newest_seconds,
            stream.rpo_seconds,
        )

    def _build(self, name: str, stream: Stream, gauges: ProducerGauges, authority: Errand) -> TriedAgain:
        source = self._service.options.need(stream.source, f"streams.{name}.source")
        enrolment = self._service.enrolment(stream)
        keys = self._service.settings.keys
        refuse_if_superseded(
            enrolment, stream.enrolment.parent, operators=keys.operators, threshold=keys.threshold
        )
        signers = self._service.verifier(name, enrolment)
        sealer = Sealer(self._identity_for(enrolment), enrolment, self._keys.recipients)
        loop = StreamProducer(
            StreamSetup(
                name,
                stream.topic,
                stream.slot,
                source,
                enrolment,
                signers,
                self._service.settings.slowest_beat_seconds(stream),
                decoding_memory.share(source.dsn, self._sources, self._service.settings.producer.decoding_bytes),
            ),
            sealer=sealer,
            readers=self._readers,
            writer=self._writer,
            tuning=self._service.settings.producer,
            gauges=gauges,
            slot_gauge=gauges.slot,
            authority=authority,
            turns=self._turns,
            beats=self._beats.setdefault(enrolment.hash, BeatsSeen(CLOCK)),
            clock=CLOCK,
        )
        self._running[name] = _Running(sealer, loop)
        return TriedAgain(loop, f"streams.{name}.source")
