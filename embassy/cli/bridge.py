"""``embassy bridge``: the carrier between two sites."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from bridge.forwarder import Forwarder, Limits
from embassy.cli.options import Options, pass_options
from embassy.cli.service import CLOCK, CLOSE_SECONDS, Service, address_file_option
from embassy.runtime import metrics as catalogue
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.gauges import BridgeGauges
from embassy.runtime.supervised_stream import Assignment
from embassy.wire import verifying
from embassy.wire.kafka_reader import StreamsReader
from embassy.wire.kafka_writer import Delivery, KafkaWriter
from embassy.wire.reader_pool import ReaderPool


@click.group()
def bridge() -> None:
    """Carry sealed records to an embassy's Kafka."""


@bridge.command()
@address_file_option
@pass_options
def run(options: Options, *, address_file: Path | None) -> ExitCode:
    """Carry each stream from the home topic to the embassy's until told to stop.

    The bridge holds no secret key and knows streams by their opaque names only. It verifies what it carries, and
    goes on from the head of the embassy's topic. On SIGHUP it reads keys.operators and the enrolments again.

    Reads kafka.home, kafka.foreign, keys.operators and the streams.

    \b
    embassy -c bridge.toml bridge run
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    with Service("bridge", options, address_file=address_file) as service:
        fleet = _Fleet(service)
        return service.run([fleet.assignment(name, stream) for name, stream in service.streams.items()])


class _Fleet:
    """What the streams of the process share, and how one is made of it."""

    def __init__(self, service: Service) -> None:
        verifying.selftest()
        need, settings = service.options.need, service.settings
        self._service = service
        home = need(settings.kafka.home, "kafka.home")
        foreign = need(settings.kafka.foreign, "kafka.foreign")
        need(settings.keys.operators, "keys.operators")
        site = settings.site
        home_link = service.link(catalogue.BRIDGE_CONNECTED, "home", home)
        self._link = service.link(catalogue.BRIDGE_CONNECTED, site, foreign)
        self._writer = KafkaWriter(foreign, f"bridge-{site}", self._link.refused, delivery=Delivery.ONCE)
        service.closing.callback(self._writer.close, CLOSE_SECONDS)
        self._reader = StreamsReader(home, f"bridge-{site}", home_link.heard)
        service.closing.callback(self._reader.close)
        self._home = ReaderPool(home, f"bridge-{site}-resume")
        self._foreign = ReaderPool(foreign, f"bridge-{site}-head")
        for pool in (self._home, self._foreign):
            service.closing.callback(pool.close)

    def assignment(self, name: str, stream: Stream) -> Assignment:
        gauges = BridgeGauges(self._service.metrics, name, link=self._link)
        return Assignment(
            name,
            partial(self._build, name, stream, gauges),
            gauges.newest_seconds,
            stream.rpo_seconds,
            gauges.held,
        )

    def _build(self, name: str, stream: Stream, gauges: BridgeGauges) -> Forwarder:
        tuning = self._service.settings.consumer
        enrolment = self._service.enrolment(stream)
        return Forwarder(
            name,
            topic=stream.topic,
            enrolment=enrolment,
            signers=self._service.verifier(name, enrolment),
            home=self._home,
            foreign=self._foreign,
            reader=self._reader,
            writer=self._writer,
            limits=Limits(
                inflight_bytes=tuning.queue_bytes, queue_bytes=tuning.queue_bytes, hold_seconds=tuning.hold_seconds
            ),
            gauges=gauges,
            clock=CLOCK,
        )
