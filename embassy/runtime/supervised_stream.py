"""One stream under supervision: tried again while that may help, halted when it cannot.

::

    starting ──► running ◄──► waiting (something outside is unreachable; tried again for ever)
        └───────────┴────────────┴──► halted (someone must look) or stopped (told to)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

import structlog

from embassy.model.errors import (
    ConfigurationError,
    EmbassyError,
    IntegrityError,
    RefusedError,
    TransientError,
)
from embassy.runtime.exit_codes import ExitCode, exit_code
from embassy.runtime.health import Check
from embassy.runtime.logs import WITHHELD, failure
from embassy.runtime.stop import Stop

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SETTLED_SECONDS = 1.0
"""After a failure, how long the loop must turn before the stream counts as running again."""
_REMIND_SECONDS = 300.0
_SILENCE_SECONDS = 120.0
"""A turning loop that has not pulsed for so long is stuck. Long, because a replica may have to wait for a lock."""
_START_SECONDS = 1800.0
"""How long a start may take before its first pulse: it may have to read a whole topic."""


class Condition(Enum):
    """Where a stream stands."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    HALTED = "halted"
    STOPPED = "stopped"


class Finished(Exception):  # noqa: N818 - nothing is wrong
    """A stream's loop has done what it was asked to do, and will not run again; the message says what is done."""


class Runnable(Protocol):
    """A stream's loop: a producer, a bridge or a consumer of one stream."""

    def run(self, stop: Stop, pulse: Callable[[], None]) -> None:
        """Work until told to stop; call ``pulse`` at each turn. May be called again after an error.

        Raises:
            Finished: all is done.
        """


class Assignment(NamedTuple):
    """A stream to be run."""

    name: str
    build: Callable[[], Runnable]
    """Makes the loop; what is wrong with one stream's keys or settings halts that stream only."""
    newest_seconds: Callable[[], float]
    """Time of the newest transaction past this role, seconds since 1970; 0: none yet."""
    rpo_seconds: float
    """How old that may become before the stream no longer passes as ready."""
    held: Callable[[], str] = str
    """Why the loop, although it turns, lets nothing pass; empty if it does."""


class Observer(Protocol):
    """Told of each change; shows it in metrics."""

    def running(self, name: str, running: bool) -> None:  # noqa: FBT001 - the state itself
        """The stream's loop turns, or no longer does."""

    def failed(self, family: str) -> None:
        """A stream failed."""

    def halted(self, name: str, family: str) -> None:
        """A stream has halted."""


class Clocks(NamedTuple):
    """Time, and chance."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    jitter: Callable[[float, float], float]
    """Called with bounds; returns something between."""


class SupervisedStream:
    """Runs one stream in the thread that calls `run`; the other methods may be called from any."""

    def __init__(self, assignment: Assignment, *, component: str, observer: Observer, clocks: Clocks) -> None:
        self.name = assignment.name
        self.condition = Condition.STARTING
        self.code = ExitCode.OK
        self.finished = False
        """It has done what it was asked to do, which ends."""
        self._assignment = assignment
        self._observer = observer
        self._clocks = clocks
        self._log = structlog.get_logger(component=component, stream=assignment.name)
        now = clocks.monotonic()
        self._since = now
        self._attempt_at = now
        self._pulsed_at: float | None = None  # in this attempt
        self._turning_since = now
        self._attempts = 0  # failed ones, in a row
        self._failure = ""
        self._logged: tuple[object, ...] = ()
        self._logged_at = 0.0

    @property
    def ended(self) -> bool:
        """Whether it will not run again."""
        return self.condition in (Condition.HALTED, Condition.STOPPED)

    def run(self, stop: Stop) -> None:
        """Run the stream until it is told to stop or halts; never raises."""
        runnable: Runnable | None = None
        while not stop.is_set():
            self._attempt_at = self._clocks.monotonic()
            self._pulsed_at = None
            try:
                runnable = runnable or self._assignment.build()
                runnable.run(stop, self.pulse)
                if not stop.is_set():
                    raise RuntimeError("the stream's loop ended without being told to")  # noqa: TRY301 - a bug as any
            except TransientError as error:
                if not stop.is_set():
                    self._wait(error, stop)
                    continue
                self._log.warning("stopped before all was acknowledged; nothing is lost", **failure(error))
            except Finished as finished:
                self._log.info("finished", done=str(finished))
                self.finished = True
                break
            except BaseException as error:  # noqa: BLE001 - the border of a stream: it must not take the others along
                self._halt(error)
                return
        self._become(Condition.STOPPED)

    def pulse(self) -> None:
        """The loop has turned."""
        self._pulsed_at = now = self._clocks.monotonic()
        if self.condition is not Condition.RUNNING:
            self._turn(now)

    def live(self) -> Check:
        """Whether the loop turns, or rightly does not."""
        now = self._clocks.monotonic()
        if self.ended:
            return Check(self.name, passed=True, text=self.condition.value)
        pulsed_at = self._pulsed_at
        silent = now - (self._attempt_at if pulsed_at is None else pulsed_at)
        limit = _START_SECONDS if pulsed_at is None else _SILENCE_SECONDS
        return Check(self.name, silent <= limit, f"last turned {silent:.1f} s ago")

    def ready(self) -> Check:
        """Whether the stream is served: its loop turns, and what passes it is fresh."""
        now = self._clocks.monotonic()
        since = now - self._since
        if self.condition is not Condition.RUNNING:
            why = f": {self._failure}" if self._failure else ""
            return Check(self.name, passed=False, text=f"{self.condition.value} for {since:.0f} s{why}")
        held = self._assignment.held()
        if held:
            return Check(self.name, passed=False, text=held)
        live = self.live()
        if not live.passed:
            return Check(self.name, passed=False, text=f"stuck: {live.text}")
        limit = self._assignment.rpo_seconds
        newest = self._assignment.newest_seconds()
        if not newest:
            return Check(self.name, since <= limit, f"running for {since:.0f} s, nothing has passed yet")
        age = self._clocks.wall() - newest
        if age > limit and since > limit:
            return Check(
                self.name, passed=False, text=f"stalled: the newest to pass is {age:.0f} s old, over {limit:g}"
            )
        return Check(self.name, passed=True, text=f"running, the newest to pass is {age:.1f} s old")

    def _turn(self, now: float) -> None:
        """A first turn starts a stream; after a failure it has to keep turning to count."""
        if self.condition is Condition.WAITING:
            if self._turning_since < self._attempt_at:
                self._turning_since = now
            if now - self._turning_since < _SETTLED_SECONDS:
                return
            self._log.info("running again", attempts=self._attempts, after_seconds=round(now - self._since, 1))
        self._attempts = 0
        self._failure = ""
        self._logged = ()
        self._become(Condition.RUNNING)

    def _wait(self, error: TransientError, stop: Stop) -> None:
        self._observer.failed(_family(error))
        self._failure = str(error)
        self._attempts += 1
        now = self._clocks.monotonic()
        reason = (error.place, error.hint)
        if reason != self._logged or now - self._logged_at >= _REMIND_SECONDS:
            self._logged, self._logged_at = reason, now
            self._log.warning("waiting, and trying again", attempts=self._attempts, **failure(error))
        self._become(Condition.WAITING)
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._attempts - 1, 16))
        stop.wait(self._clocks.jitter(0.0, longest))

    def _halt(self, error: BaseException) -> None:
        family = _family(error)
        self.code = exit_code(error)
        self._observer.failed(family)
        self._observer.halted(self.name, family)
        if isinstance(error, EmbassyError):
            self._failure = f"{family}: {error}"
            self._log.critical("halted; the other streams go on", reason=family, **failure(error))
        else:
            self._failure = f"bug: {type(error).__name__} {WITHHELD}"
            self._log.critical("halted by a bug; the other streams go on", reason=family, exc_info=error)
        self._become(Condition.HALTED)

    def _become(self, condition: Condition) -> None:
        if condition is not self.condition:
            self._since = self._clocks.monotonic()
            self.condition = condition
            self._observer.running(self.name, condition is Condition.RUNNING)


def _family(error: BaseException) -> str:
    match error:
        case TransientError():
            return "transient"
        case IntegrityError():
            return "integrity"
        case ConfigurationError():
            return "configuration"
        case RefusedError():
            return "refused"
        case _:
            return "bug"
