"""What the three services have in common: logs, metrics, health, supervision, a clean end."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import click
import structlog

from embassy.cli.options import Options
from embassy.model.errors import EmbassyError
from embassy.runtime import metrics as catalogue
from embassy.runtime.audit_line import JSON
from embassy.runtime.audit_log import AuditLog
from embassy.runtime.certificates import CertificateEnds
from embassy.runtime.cluster_link import ClusterLink
from embassy.runtime.config import KafkaCluster, Settings, Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.gauges import LifecycleGauges
from embassy.runtime.health import Answers, HealthServer, Listen
from embassy.runtime.lifecycle import Supervisor
from embassy.runtime.metrics import Metric, Metrics
from embassy.runtime.supervised_stream import Assignment
from embassy.runtime.systemd import Systemd
from embassy.wire.client_certificate import ClientCertificate
from embassy.wire.enrolment import Enrolment, load_enrolment
from embassy.wire.verifying import RecordVerifier

F = TypeVar("F", bound=Callable[..., Any])

CLOSE_SECONDS = 1.0
"""How long a Kafka client may take to send the rest once the streams have drained."""
_COLLECT_AFTER = (50_000, 20, 50)
"""How many more objects there must be before the collector looks for cycles. Batches are hundreds of thousands of
small values in none; by default a fifth of a consumer's time under load would go into looking at them again and again."""


def address_file_option(command: F) -> F:
    """``--address-file``, the same for every service."""
    return click.option(
        "--address-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="EMBASSY_ADDRESS_FILE",
        show_envvar=True,
        help="Write host:port of /metrics, /livez and /readyz to this file; it goes when the service ends.",
    )(command)


class _Recorded(LifecycleGauges):
    """Enters into the audit log that a stream has halted."""

    def __init__(
        self, metrics: Metrics, component: str, registries: Iterable[str], record: Callable[..., None]
    ) -> None:
        super().__init__(metrics, component, registries)
        self._record = record

    def halted(self, name: str, family: str) -> None:
        super().halted(name, family)
        self._record("stream.halt", outcome=family, details={"stream": name})


class Service:
    """One process of a role. Enter it, add streams, and run; what was opened is closed at the end."""

    def __init__(self, component: str, options: Options, *, address_file: Path | None) -> None:
        self.component = component
        self.options = options
        self.settings: Settings = options.settings()
        self.streams: dict[str, Stream] = options.streams(self.settings)
        self.version = metadata.version("data-embassy")
        self.metrics = Metrics(version=self.version, component=component, site=self.settings.site)
        self.closing = ExitStack()
        self.supervisor: Supervisor | None = None
        self._links: list[ClusterLink] = []
        self._certificates = CertificateEnds(self.metrics)
        self._verifiers: dict[str, RecordVerifier] = {}
        self._reloads: list[Callable[[], None]] = []
        self._listen = Listen.parse(self.settings.metrics.listen)
        self._address_file = address_file
        self._log = structlog.get_logger(component=component)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.close()

    def enrolment(self, stream: Stream) -> Enrolment:
        """A stream's enrolment, checked against the operators' keys.

        Raises:
            ConfigurationError: it is missing, or not signed by enough persons.
        """
        keys = self.settings.keys
        operators = self.options.need(keys.operators, "keys.operators")
        return load_enrolment(
            stream.enrolment, operators=operators, threshold=keys.threshold, stream=stream.stream
        )

    def verifier(self, name: str, enrolment: Enrolment) -> RecordVerifier:
        """What tells the stream's records from others; a reload gives it the successors signed meanwhile."""
        verifier = self._verifiers[name] = RecordVerifier(enrolment)
        return verifier

    def reloaded_by(self, reload: Callable[[], None]) -> None:
        """Have something called at each reload, once ``settings`` has the present keys; its errors are told."""
        self._reloads.append(reload)

    def reload(self) -> None:
        """Read the configuration's section ``keys`` and the enrolments again, as SIGHUP asks for.

        What cannot be used is told and changes nothing; the rest is taken.
        """
        self.attempt(self._reload_settings)
        for name in self._verifiers:
            self.attempt(partial(self._reload_enrolment, name))
        for reload in self._reloads:
            self.attempt(reload)

    def _reload_settings(self) -> None:
        self.settings = self.settings.model_copy(update={"keys": self.options.settings().keys})
        self._log.info("reloading keys and enrolments")

    def _reload_enrolment(self, name: str) -> None:
        # A producer reads nothing but its own topic's end; it need not go back.
        read_again = self.component != "producer"
        more = self._verifiers[name].adopt(self.enrolment(self.streams[name]), read_again=read_again)
        if more:
            self._log.info("a successor of the stream's producer is known now", stream=name)

    def attempt(self, step: Callable[[], None]) -> None:
        """Do a part of a reload; what cannot be used is told."""
        try:
            step()
        except EmbassyError as error:
            self._log.error("reload refused; what was in use stays", error=str(error))

    def record(self, action: str, *, outcome: str, details: Mapping[str, JSON]) -> None:
        """Enter what the service did by itself into the audit log; it goes on whether that succeeds or not."""
        try:
            AuditLog(self.settings.audit.file).append(
                action, actor=f"{self.component}@{self.settings.site}", outcome=outcome, details=details
            )
        except EmbassyError as error:
            self._log.error("this could not be entered into the audit log", action=action, error=str(error))

    def link(self, metric: Metric, site: str, cluster: KafkaCluster) -> ClusterLink:
        """A cluster that the service depends on; /readyz tells whether it answers."""
        doubt = ClientCertificate(cluster).doubt
        self._certificates.shown(cluster.certificate, follow=False)
        link = ClusterLink(self.metrics, metric, component=self.component, site=site, doubt=doubt)
        self._links.append(link)
        return link

    def shows(self, certificate: Path | None) -> None:
        """Sessions with a database show this certificate; None: they show none."""
        if certificate is not None:
            self._certificates.shown(certificate, follow=True)

    def running(self, name: str) -> bool:
        """Whether a stream's loop turns."""
        return self.supervisor is not None and self.supervisor.running(name)

    def run(self, assignments: Sequence[Assignment], *, finite: bool = False) -> ExitCode:
        """Run the streams until told to stop, or until all have halted and have been seen to; see `Supervisor`.

        Args:
            assignments: what runs.
            finite: whether each stream ends by itself.
        """
        for name, stream in self.streams.items():
            self.metrics.gauge(catalogue.RPO_TARGET, registry=name).set(stream.rpo_seconds)
        observer = _Recorded(self.metrics, self.component, self.streams, self.record)
        threading.excepthook = self._on_dead_thread(observer)
        faulthandler.register(signal.SIGUSR1)  # kill -USR1 shows where each thread is, for one that hangs
        systemd = Systemd()
        self.closing.callback(systemd.close)
        supervisor = self.supervisor = Supervisor(
            assignments,
            component=self.component,
            observer=observer,
            systemd=systemd,
            linger_seconds=self.settings.metrics.linger_seconds,
            finite=finite,
            reload=self.reload,
        )
        answers = Answers(
            self._exposition,
            supervisor.live,
            lambda: [*supervisor.ready(), *(link.ready() for link in self._links)],
        )
        health = HealthServer(self._listen, answers, address_file=self._address_file)
        self._log.info(
            "started",
            version=self.version,
            site=self.settings.site,
            config=self.options.place,
            streams=list(self.streams),
            metrics=f"http://{health.address}/metrics",
            pid=os.getpid(),
        )
        gc.freeze()  # what was loaded stays
        gc.set_threshold(*_COLLECT_AFTER)
        try:
            code = supervisor.run()
        finally:
            health.close()
        if supervisor.stuck:
            self._leave(code)
        return code

    def _exposition(self, accept: str = "") -> tuple[bytes, str]:
        self._certificates.look()
        return self.metrics.exposition(accept)

    def _on_dead_thread(self, observer: LifecycleGauges) -> Callable[[threading.ExceptHookArgs], None]:
        """A client's own thread that dies takes no stream along; it must not go unnoticed."""

        def notice(died: threading.ExceptHookArgs) -> None:
            observer.failed("bug")
            name = died.thread.name if died.thread is not None else "?"
            self._log.critical("a thread has died", thread=name, exc_info=died.exc_value)

        return notice

    @staticmethod
    def _leave(code: ExitCode) -> None:
        """End although threads still run: waiting for them, the interpreter's own end could take for ever."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


CLOCK = time.monotonic
