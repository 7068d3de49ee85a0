"""``embassy consumer``: the service in the embassy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from consumers.stream_consumer import StreamConsumer
from embassy.cli.options import Options, pass_options
from embassy.cli.service import CLOCK, Service, address_file_option
from embassy.pg.lost_session import TriedAgain
from embassy.runtime import metrics as catalogue
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.gauges import ConsumerGauges
from embassy.runtime.supervised_stream import Assignment
from embassy.wire.kafka_reader import StreamsReader
from embassy.wire.keyring import load_recipient
from embassy.wire.opening import Opener
from embassy.wire.selftest import selftest


@click.group()
def consumer() -> None:
    """Embassy: verify, open and apply to the replicas."""


@consumer.command()
@address_file_option
@pass_options
def run(options: Options, *, address_file: Path | None) -> ExitCode:
    """Apply each stream to its replica until told to stop.

    Each transaction becomes visible whole, once, in commit order. A stream in doubt halts and keeps its last good
    state, with the reason in the log and in /readyz; the others go on.

    Reads kafka.foreign, keys.recipient, keys.operators and streams.NAME.replica.

    \b
    embassy -c consumer.toml consumer run
    embassy -c consumer.toml -r land_register consumer run
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    with Service("consumer", options, address_file=address_file) as service:
        fleet = _Fleet(service)
        return service.run([fleet.assignment(name, stream) for name, stream in service.streams.items()])


class _Fleet:
    """What the streams of the process share, and how one is made of it."""

    def __init__(self, service: Service) -> None:
        selftest()
        need, settings = service.options.need, service.settings
        self._service = service
        self._cluster = need(settings.kafka.foreign, "kafka.foreign")
        need(settings.keys.operators, "keys.operators")
        self._recipient = load_recipient(need(settings.keys.recipient, "keys.recipient"))
        link = service.link(catalogue.KAFKA_CONNECTED, settings.site)
        self._reader = StreamsReader(self._cluster, f"consumer-{settings.site}", link.heard)
        service.closing.callback(self._reader.close)

    def assignment(self, name: str, stream: Stream) -> Assignment:
        self._service.options.need(stream.replica, f"streams.{name}.replica")
        self._service.metrics.gauge(catalogue.REGISTRY_INFO, registry=name).set(1)
        gauges = ConsumerGauges(self._service.metrics, name)
        return Assignment(
            name, partial(self._build, name, stream, gauges), gauges.newest_seconds, stream.rpo_seconds
        )

    def _build(self, name: str, stream: Stream, gauges: ConsumerGauges) -> TriedAgain:
        enrolment = self._service.enrolment(stream)
        loop = StreamConsumer(
            name,
            topic=stream.topic,
            enrolment=enrolment,
            foreign=self._cluster,
            replica=self._service.options.need(stream.replica, f"streams.{name}.replica"),
            reader=self._reader,
            opener=Opener(self._recipient, enrolment),
            tuning=self._service.settings.consumer,
            gauges=gauges,
            clock=CLOCK,
        )
        return TriedAgain(loop, f"streams.{name}.replica")
