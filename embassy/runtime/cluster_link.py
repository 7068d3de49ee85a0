"""Whether a Kafka cluster answers: a series, a line of the log at each change, and a part of readiness."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from embassy.runtime.health import Check
from embassy.runtime.metrics import Metric, Metrics


class ClusterLink:
    """Whether a Kafka cluster answers; tells the log when that changes, and only then."""

    def __init__(
        self, metrics: Metrics, metric: Metric, *, component: str, site: str, doubt: Callable[[], str] = str
    ) -> None:
        """Nothing was heard from it yet.

        Args:
            metrics: of the process.
            metric: is 1 while it answers.
            component: for the log.
            site: where the cluster is.
            doubt: what may be wrong with this client's own certificate; empty: nothing.
        """
        self._site = site
        self._doubt = doubt
        self._gauge = metrics.gauge(metric, site=site)
        self._log = structlog.get_logger(component=component, site=site)
        self._up: bool | None = None
        self._lock = threading.Lock()

    def up(self) -> None:
        """A record came, or an acknowledgement."""
        if self._up:
            return
        with self._lock:
            was, self._up = self._up, True
            self._gauge.set(1)
        if was is False:
            self._log.info("the cluster answers again")

    def down(self) -> None:
        """No broker can be reached."""
        if self._up is False:
            return
        with self._lock:
            self._up = False
            self._gauge.set(0)
        self._log.warning(
            "no broker of the cluster can be reached; waiting, nothing is given up",
            hint=self._doubt() or "are the brokers up and reachable, and their certificates valid?",
        )

    def ready(self) -> Check:
        """Whether the cluster answers; one not heard from yet has the benefit of the doubt."""
        words = {None: "not heard from yet", True: "answers", False: "no broker can be reached"}
        doubt = self._doubt() if self._up is False else ""
        return Check(
            f"kafka at {self._site}", self._up is not False, words[self._up] + (f"; {doubt}" if doubt else "")
        )

    def heard(self, up: bool) -> None:  # noqa: FBT001 - the clients' callback
        """For a client that reads: records came, or all brokers are down."""
        self.up() if up else self.down()

    def refused(self, up: bool) -> None:  # noqa: FBT001 - the clients' callback
        """For a client that only writes: it reports errors, and acknowledgements prove the contrary."""
        if not up:
            self.down()
