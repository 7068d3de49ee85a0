"""Consumers inside ``embassy promote run``: they apply what has reached the embassy where no service does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata

from consumers import one_ahead
from consumers.stream_consumer import StreamConsumer
from embassy.cli.recipient_holder import recipient_holder
from embassy.cli.service import CLOCK
from embassy.model.errors import EmbassyError, TransientError
from embassy.pg.lost_session import TriedAgain
from embassy.runtime.config import KafkaCluster, Replica, Settings, Stream
from embassy.runtime.gauges import ConsumerGauges
from embassy.runtime.metrics import Metrics
from embassy.runtime.stop import Stop
from embassy.wire.enrolment import Enrolment
from embassy.wire.kafka_reader import StreamsReader
from embassy.wire.opening import Opener
from embassy.wire.reader_pool import ReaderPool
from embassy.wire.verifying import RecordVerifier
from failover.drain import Applying

_RETRY_SECONDS = 0.5
_JOIN_SECONDS = 30.0


class Consumers:
    """What the streams' consumers share; without a recipient's key there are none, and services have to apply."""

    def __init__(self, settings: Settings, cluster: KafkaCluster) -> None:
        """Load the recipient's key, if the configuration names one or a keyd.

        Raises:
            ConfigurationError: the key cannot be used.
        """
        self._settings = settings
        self._cluster = cluster
        self._recipient = recipient_holder(settings)
        self._reader: StreamsReader | None = None
        self._readers = ReaderPool(cluster, f"promote-{settings.site}-resume")
        self._ahead = one_ahead.new_executor()
        self._lock = threading.Lock()
        self._metrics = Metrics(version=metadata.version("data-embassy"), component="promote", site=settings.site)

    def close(self) -> None:
        """End the clients."""
        self._ahead.shutdown(wait=False)
        self._readers.close()
        if self._reader is not None:
            self._reader.close()

    def of(
        self, name: str, stream: Stream, replica: Replica, enrolment: Enrolment
    ) -> Callable[[], AbstractContextManager[Applying]]:
        """A stream's consumer, which runs while its context is entered."""

        @contextmanager
        def applying() -> Iterator[Applying]:
            if self._recipient is None:
                yield _Nobody()
                return
            loop = StreamConsumer(
                name,
                topic=stream.topic,
                enrolment=enrolment,
                signers=RecordVerifier(enrolment),
                replica=replica,
                readers=self._readers,
                reader=self._shared_reader(),
                opener=Opener(self._recipient, enrolment),
                tuning=self._settings.consumer,
                gauges=ConsumerGauges(self._metrics, name),
                clock=CLOCK,
                ahead=self._ahead,
                protection=stream.protection,
            )
            running = _Running(TriedAgain(loop, f"streams.{name}.replica"), name)
            try:
                yield running
            finally:
                running.stop()

        return applying

    def _shared_reader(self) -> StreamsReader:
        with self._lock:
            if self._reader is None:
                self._reader = StreamsReader(self._cluster, f"promote-{self._settings.site}")
            return self._reader


class _Nobody:
    def failure(self) -> EmbassyError | None:
        return None


class _Running:
    """A consumer's loop in a thread of its own; it waits as long as a service has the stream's lease."""

    def __init__(self, loop: TriedAgain, name: str) -> None:
        self._loop = loop
        self._stop = Stop()
        self._failure: EmbassyError | None = None
        self._thread = threading.Thread(target=self._run, name=f"promote {name}", daemon=True)
        self._thread.start()

    def failure(self) -> EmbassyError | None:
        return self._failure

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._loop.run(self._stop, lambda: None)
            except TransientError:
                self._stop.wait(_RETRY_SECONDS)
            except EmbassyError as error:
                self._failure = error
                return
