"""``embassy consumer``: the service in the embassy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
import structlog

from consumers import one_ahead
from consumers.stream_consumer import StreamConsumer
from embassy.cli.authority_watch import Authority, AuthorityWatch, at_replica
from embassy.cli.options import Options, pass_options
from embassy.cli.points import POINT
from embassy.cli.service import CLOCK, Service, address_file_option
from embassy.model.control import Freeze, Point
from embassy.model.errors import EmbassyError
from embassy.pg.connection import certificate_of
from embassy.pg.lost_session import TriedAgain
from embassy.runtime import metrics as catalogue
from embassy.runtime.audit_line import JSON
from embassy.runtime.audit_log import AuditLog
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.gauges import ConsumerGauges
from embassy.runtime.logs import failure
from embassy.runtime.supervised_stream import Assignment
from embassy.wire.kafka_reader import StreamsReader
from embassy.wire.key_client import KeydKeys
from embassy.wire.keyring import RecipientKey
from embassy.wire.opening import Opener
from embassy.wire.reader_pool import ReaderPool
from embassy.wire.recipient_keys import HeldKeys, RecipientKeys, load_recipients
from embassy.wire.selftest import selftest


@click.group()
def consumer() -> None:
    """Embassy: verify, open and apply to the replicas."""


@consumer.command()
@address_file_option
@click.option(
    "--stop-at",
    type=POINT,
    help="Apply up to this commit, at once, and end; a time needs its zone, and is the source's.",
)
@pass_options
def run(options: Options, *, address_file: Path | None, stop_at: Point | None) -> ExitCode:
    """Apply each stream to its replica until told to stop.

    Each transaction becomes visible whole, once, in commit order. A stream in doubt halts and keeps its last good
    state, with the reason in the log and in /readyz; the others go on. A frozen stream waits until it is lifted. On
    SIGHUP it reads the recipient keys, keys.operators and the enrolments again.

    With --stop-at it exits with 0 once everything up to there is applied, with 130 if it was told to stop before, with 5
    if the stream is frozen, and with 7 if another consumer applies it: stop that one first.

    Reads kafka.foreign, keys.recipient (or keyd.socket), keys.operators, streams.NAME.replica and
    streams.NAME.protection.

    \b
    embassy -c consumer.toml consumer run
    embassy -c consumer.toml -r land_register consumer run
    embassy -c consumer.toml -r land_register consumer run --stop-at 0/16B3748
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    with Service("consumer", options, address_file=address_file) as service:
        if stop_at is not None and stop_at.lsn is not None and len(service.streams) > 1:
            raise click.UsageError("a position is one stream's: name it with -r")
        fleet = _Fleet(service, stop_at)
        assignments = [fleet.assignment(name, stream) for name, stream in service.streams.items()]
        watch = AuthorityWatch(fleet.authorities.values(), service.running)
        service.closing.callback(watch.close)
        return service.run(assignments, finite=stop_at is not None)


class _Fleet:
    """What the streams of the process share, and how one is made of it."""

    def __init__(self, service: Service, stop_at: Point | None) -> None:
        selftest()
        self._stop_at = stop_at
        need, settings = service.options.need, service.settings
        self._service = service
        self._cluster = need(settings.kafka.foreign, "kafka.foreign")
        need(settings.keys.operators, "keys.operators")
        self._recipients = self._holder()
        link = service.link(catalogue.KAFKA_CONNECTED, settings.site, self._cluster)
        self._reader = StreamsReader(self._cluster, f"consumer-{settings.site}", link.heard)
        service.closing.callback(self._reader.close)
        self._readers = ReaderPool(self._cluster, f"consumer-{settings.site}-resume")
        service.closing.callback(self._readers.close)
        self._ahead = one_ahead.new_executor()
        service.closing.callback(self._ahead.shutdown)
        self.authorities: dict[str, Authority] = {}

    def _holder(self) -> RecipientKeys:
        """A keyd, if the configuration names its socket and no key file; else the files, read anew at each reload."""
        keys, keyd = self._service.settings.keys, self._service.settings.keyd
        if keyd is not None and keys.recipient is None:
            client = KeydKeys(keyd.socket)
            self._service.closing.callback(client.close)
            return client
        self._service.options.need(keys.recipient, "keys.recipient")
        held = HeldKeys(self._loaded())
        self._service.reloaded_by(lambda: held.replace(self._loaded()))
        return held

    def _loaded(self) -> tuple[RecipientKey, ...]:
        found = load_recipients(self._service.settings.keys.recipient_files)
        details = {"recipients": [key.public.id.hex() for key in found]}
        self._service.record("key.load", outcome="ok", details=details)
        return found

    def assignment(self, name: str, stream: Stream) -> Assignment:
        replica = self._service.options.need(stream.replica, f"streams.{name}.replica")
        self._service.metrics.gauge(catalogue.REGISTRY_INFO, registry=name).set(1)
        self._service.shows(certificate_of(replica.dsn))
        self.authorities[name] = Authority(
            name,
            replica.dsn,
            at_replica(
                self._service.metrics,
                site=self._service.settings.site,
                name=name,
                stream=bytes.fromhex(stream.stream),
            ),
        )
        gauges = ConsumerGauges(self._service.metrics, name, delay_seconds=replica.apply_delay_seconds)
        return Assignment(
            name,
            partial(self._build, name, stream, gauges),
            gauges.newest_seconds,
            stream.rpo_seconds + replica.apply_delay_seconds,
            gauges.held,
        )

    def _build(self, name: str, stream: Stream, gauges: ConsumerGauges) -> TriedAgain:
        enrolment = self._service.enrolment(stream)
        loop = StreamConsumer(
            name,
            topic=stream.topic,
            enrolment=enrolment,
            signers=self._service.verifier(name, enrolment),
            replica=self._service.options.need(stream.replica, f"streams.{name}.replica"),
            readers=self._readers,
            reader=self._reader,
            opener=Opener(self._recipients, enrolment),
            tuning=self._service.settings.consumer,
            gauges=gauges,
            clock=CLOCK,
            ahead=self._ahead,
            protection=stream.protection,
            until=self._stop_at,
            froze=partial(self._record, name),
            authority=self.authorities[name].look,
        )
        return TriedAgain(loop, f"streams.{name}.replica")

    def _record(self, name: str, freeze: Freeze) -> None:
        """Enter a freeze that no person has ordered into the audit log; it stands whether that succeeds or not."""
        details: dict[str, JSON] = {"registry": name, "number": freeze.number, "reason": freeze.reason}
        try:
            AuditLog(self._service.settings.audit.file).append(
                "freeze", actor=freeze.by, outcome="ok", details=details
            )
        except EmbassyError as error:
            structlog.get_logger(component="consumer", stream=name).error(
                "the freeze could not be entered into the audit log", **failure(error)
            )
