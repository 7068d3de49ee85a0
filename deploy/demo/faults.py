"""Breaking things on purpose: what is killed when, and how long it took to come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import NamedTuple, Protocol

from deploy.lab.waiting import Patience
from embassy.model.errors import EmbassyError

_FIRST_SHARE, _LAST_SHARE = 0.05, 0.9
"""The part of the load in which faults begin: something is under way before the first, and after the last."""
_PAUSE_SECONDS = (0.5, 4.0)
_RESTART_SECONDS = 120.0
_SERVE_SECONDS = 300.0
"""Generous: what a role needs may have been killed as well, more than once."""


class Action(StrEnum):
    """What is done to a target."""

    KILL = "kill -9"
    PAUSE = "pause"


class Appointment(NamedTuple):
    """A fault to come."""

    at_seconds: float
    target: str
    action: Action
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that happened."""

    at_seconds: float
    """Since the load began."""
    target: str
    action: Action
    recovered_seconds: float | None = None
    """From the signal until the target served again; None while it does not."""
    error: str = ""
    """Why it never did."""


class Victim(Protocol):
    """A role or a server of the lab."""

    @property
    def name(self) -> str:
        """For people."""

    def kill9(self) -> None:
        """End it as a power cut would.

        Raises:
            EmbassyError: it does not run.
        """

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP)."""

    def resume(self) -> None:
        """Let it go on."""

    def come_back(self, patience: Patience, limit_seconds: float) -> None:
        """Wait until it runs again, so that it can be broken once more; start it first if nobody else does.

        Raises:
            EmbassyError: it does not come back within the limit.
        """

    def serve(self, patience: Patience, limit_seconds: float) -> None:
        """Wait until it does its work again.

        Raises:
            EmbassyError: it does not within the limit.
        """


def schedule(
    targets: Sequence[str], *, kills: int, seconds: float, seed: int, pauses: int = 0, pausable: Sequence[str] = ()
) -> tuple[Appointment, ...]:
    """Draw the faults of a demonstration, in order of their time; the same arguments give the same faults.

    Every target is killed once before any is killed twice, in an order drawn anew for each round. Times are spread
    over the load, one drawn within each of as many equal parts as there are faults.
    """
    rng = Random(f"{seed}/faults")  # noqa: S311 - repeatable, not secret
    drawn = [(target, Action.KILL) for target in _rounds(targets, kills, rng)]
    for target in _rounds(pausable, pauses, rng):
        drawn.insert(rng.randint(0, len(drawn)), (target, Action.PAUSE))
    span = seconds * (_LAST_SHARE - _FIRST_SHARE)
    found = []
    for index, (target, action) in enumerate(drawn):
        at_seconds = seconds * _FIRST_SHARE + span * (index + rng.random()) / len(drawn)
        length = rng.uniform(*_PAUSE_SECONDS) if action is Action.PAUSE else 0.0
        found.append(Appointment(at_seconds, target, action, length))
    return tuple(found)


def _rounds(targets: Sequence[str], number: int, rng: Random) -> list[str]:
    drawn: list[str] = []
    while targets and len(drawn) < number:
        drawn += rng.sample(list(targets), len(targets))
    return drawn[:number]


class Saboteur:
    """Keeps the appointments, on threads of its own.

    Faults overlap if the first has not recovered when the second is due; a target that does not even run is first
    waited for.
    """

    def __init__(self, appointments: Sequence[Appointment], victims: Mapping[str, Victim]) -> None:
        self._appointments = appointments
        self._victims = victims
        self._turns = {name: threading.Lock() for name in victims}
        self._patience = Patience(pause_seconds=0.1)
        self._lock = threading.Lock()
        self._faults: dict[int, Fault] = {}
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(appointments)), thread_name_prefix="fault")
        self._futures: list[Future[None]] = []
        self._thread = threading.Thread(target=self._work, name="saboteur", daemon=True)
        self._began = 0.0

    def start(self) -> None:
        """Begin: the appointments count from now."""
        self._began = time.monotonic()
        self._thread.start()

    def finish(self) -> tuple[Fault, ...]:
        """Wait until every fault has happened and recovered, or failed to within its limit; return them."""
        self._thread.join()
        for future in self._futures:
            future.result()
        self._pool.shutdown()
        return self.faults()

    def abort(self) -> None:
        """Begin no further fault, wait for no recovery, and return when every thread has ended."""
        self._patience.abandoned.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def faults(self) -> tuple[Fault, ...]:
        """The faults so far, in order of their time; one whose target is still down has no recovery and no error."""
        with self._lock:
            return tuple(sorted(self._faults.values(), key=lambda fault: fault.at_seconds))

    def _work(self) -> None:
        for number, appointment in enumerate(self._appointments):
            if self._patience.abandoned.wait(max(0.0, self._began + appointment.at_seconds - time.monotonic())):
                return
            self._futures.append(self._pool.submit(self._keep, number, appointment))

    def _keep(self, number: int, appointment: Appointment) -> None:
        victim = self._victims[appointment.target]
        with self._turns[appointment.target]:
            if self._patience.abandoned.is_set():
                return
            began = time.monotonic()
            fault = Fault(round(began - self._began, 3), appointment.target, appointment.action)
            self._note(number, fault)
            came_back = self._try(number, fault, lambda: self._break(victim, appointment))
        if came_back and self._try(number, fault, lambda: victim.serve(self._patience, _SERVE_SECONDS)):
            self._note(number, replace(fault, recovered_seconds=round(time.monotonic() - began, 3)))

    def _try(self, number: int, fault: Fault, step: Callable[[], None]) -> bool:
        try:
            step()
        except EmbassyError as error:
            self._note(number, replace(fault, error=str(error)))
            return False
        return True

    def _break(self, victim: Victim, appointment: Appointment) -> None:
        if appointment.action is Action.KILL:
            victim.kill9()
        else:
            victim.pause()
            try:
                self._patience.abandoned.wait(appointment.pause_seconds)
            finally:
                victim.resume()
        victim.come_back(self._patience, _RESTART_SECONDS)

    def _note(self, number: int, fault: Fault) -> None:
        with self._lock:
            self._faults[number] = fault
