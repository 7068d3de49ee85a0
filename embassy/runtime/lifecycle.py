"""The life of a service: a thread for each stream, and one that watches them.

One stream's trouble is its own. The process ends when it is told to, or when the last stream has halted or finished; its
exit code is then that of the worst family, so that a service file can tell what a restart would help against. Where none
would, it stays for a while before it ends: a process that is gone tells no scraper why.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import structlog

from embassy.runtime.exit_codes import ExitCode, worst
from embassy.runtime.health import Check
from embassy.runtime.stop import Stop
from embassy.runtime.supervised_stream import Assignment, Clocks, Condition, Observer, SupervisedStream
from embassy.runtime.systemd import Systemd

_TICK_SECONDS = 1.0
_LOOK_SECONDS = 5.0
"""Between two looks at how the streams are, for systemd; each look asks all of them."""
_DRAIN_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LASTING = (ExitCode.CONFIGURATION, ExitCode.REFUSED, ExitCode.INTEGRITY)
"""Codes with which a service manager starts the process again in vain: RestartPreventExitStatus in deploy/systemd."""

REAL_CLOCKS = Clocks(time.monotonic, time.time, random.uniform)


class Supervisor:
    """Runs a service's streams from start to stop."""

    def __init__(
        self,
        assignments: Sequence[Assignment],
        *,
        component: str,
        observer: Observer,
        systemd: Systemd,
        clocks: Clocks = REAL_CLOCKS,
        drain_seconds: float = _DRAIN_SECONDS,
        linger_seconds: float = 0,
        finite: bool = False,
        reload: Callable[[], None] | None = None,
    ) -> None:
        """Take the streams.

        Args:
            assignments: what runs.
            component: for the log.
            observer: told what becomes of the streams.
            systemd: told how the service is.
            clocks: the time, and what spreads retries.
            drain_seconds: how long streams may take to end.
            linger_seconds: how long the process stays once the last stream has halted for what no restart cures.
            finite: whether each stream ends by itself; a process that was told to before has been interrupted.
            reload: called in the main thread on SIGHUP; it must not raise. None leaves SIGHUP as it is.
        """
        self._streams = [
            SupervisedStream(assignment, component=component, observer=observer, clocks=clocks)
            for assignment in assignments
        ]
        self._log = structlog.get_logger(component=component)
        self._systemd = systemd
        self._clock = clocks.monotonic
        self._drain_seconds = drain_seconds
        self._linger_seconds = 0.0 if finite else linger_seconds  # whoever waits for its end sees the halt
        self._finite = finite
        self._stop = Stop()
        self._signals: list[int] = []
        self._reload = reload
        self._reload_asked = False
        self._asked = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.stuck: tuple[str, ...] = ()
        """After `run`: the streams that did not end in time. Their threads still run; leave with `os._exit`."""

    def live(self) -> list[Check]:
        """For each stream, whether its loop turns."""
        return [stream.live() for stream in self._streams]

    def running(self, name: str) -> bool:
        """Whether a stream's loop turns."""
        return any(stream.condition is Condition.RUNNING for stream in self._streams if stream.name == name)

    def ready(self) -> list[Check]:
        """For each stream, whether it is served."""
        return [stream.ready() for stream in self._streams]

    def stop(self) -> None:
        """Let the streams drain and end; may be called from any thread."""
        self._asked = True
        self._wake()

    def run(self) -> ExitCode:
        """Run all streams; returns when each has ended, or was told to and had its time.

        In the main thread, SIGTERM and SIGINT stop the streams and end a stay behind their halts, and a second one ends
        the process at once.
        """
        threads = [
            threading.Thread(target=self._run, args=(stream,), name=stream.name, daemon=True)
            for stream in self._streams
        ]
        with self._handled_signals():
            for thread in threads:
                thread.start()
            self._systemd.ready()
            self._watch()
            self._linger()
            deadline = self._clock() + self._drain_seconds
            for thread in threads:
                # Tick by tick: a second signal that comes just before a wait begins would be handled when it ends.
                while thread.is_alive() and (left := deadline - self._clock()) > 0:
                    thread.join(min(_TICK_SECONDS, left))
        self.stuck = tuple(thread.name for thread in threads if thread.is_alive())
        if self.stuck:
            self._log.warning("left without draining; nothing is lost", streams=self.stuck)
        else:
            os.close(self._wake_fd)
            self._wake_fd = -1
        code = self._code()
        self._log.info("ended", exit_code=int(code))
        return code

    def _code(self) -> ExitCode:
        code = worst(frozenset(stream.code for stream in self._streams))
        cut_short = self._finite and not all(stream.finished for stream in self._streams)
        return ExitCode.INTERRUPTED if cut_short and code is ExitCode.OK else code

    def _run(self, stream: SupervisedStream) -> None:
        stream.run(self._stop)
        self._wake()

    def _watch(self) -> None:
        """Until the end begins: tell systemd how things are."""
        while not all(stream.ended for stream in self._streams):
            self._turn(_LOOK_SECONDS)
            if self._told:
                self._log.info("stopping: the streams drain", signals=self._signals)
                self._systemd.stopping()
                self._stop.set()
                return
        if any(stream.condition is Condition.HALTED for stream in self._streams):
            self._log.critical("every stream has halted, or has finished")

    def _linger(self) -> None:
        """Go on telling of halts that no restart cures, until the time is over or the process is told to stop."""
        if self._told or not self._linger_seconds or self._code() not in _LASTING:
            return
        self._log.info(
            "staying, so that the halt is seen; SIGTERM or Ctrl-C ends it now", seconds=self._linger_seconds
        )
        deadline = self._clock() + self._linger_seconds
        while not self._told and (left := deadline - self._clock()) > 0:
            self._turn(min(_TICK_SECONDS, left))
        self._systemd.stopping()

    @property
    def _told(self) -> bool:
        return bool(self._signals) or self._asked

    def _turn(self, seconds: float) -> None:
        """Tell systemd how things are, and wait for something to happen, for so long at most."""
        if all(check.passed for check in self.live()):
            self._systemd.alive()
        self._systemd.status(self._summary())
        select.select([self._wake_fd], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        if self._reload_asked and self._reload is not None:
            self._reload_asked = False
            self._reload()

    def _summary(self) -> str:
        counts = Counter(stream.condition for stream in self._streams)
        parts = [f"{counts[condition]} {condition.value}" for condition in Condition if counts[condition]]
        halted = [stream.name for stream in self._streams if stream.condition is Condition.HALTED]
        return ", ".join(parts) + (f" ({', '.join(halted)})" if halted else "")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a stream that ends after the supervisor
            os.eventfd_write(self._wake_fd, 1)

    @contextmanager
    def _handled_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, self._on_signal) for number in _SIGNALS
        }
        if self._reload is not None:
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True
        self._wake()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Nothing here may take a lock: the handler runs between any two steps of the main thread."""
        if self._signals:
            os._exit(128 + number)
        self._signals.append(number)
        self._wake()
