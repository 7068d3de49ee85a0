"""One role under supervision: started, started again when it dies, killed on purpose, drained."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException

from deploy.demo.role_log import Halt, halts, last_failure
from deploy.lab.roles import Role
from deploy.lab.waiting import Patience
from embassy.model.errors import TransientError

FINAL_CODES = frozenset({2, 5, 9})
"""Configuration, refusal, integrity: another start would end the same way (RestartPreventExitStatus of systemd)."""
_RESTART_SECONDS = 0.5
_DRAIN_SECONDS = 20.0
_PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a role's process that nobody asked for, or that did not go as asked."""

    role: str
    code: int
    """As ``subprocess`` counts: the negative number of a signal, or the exit code."""
    last_error: str
    restarted: bool


class SupervisedRole:
    """Keeps a role running as systemd would; it is also the role's end, on purpose or at the end of the demo."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._lock = threading.Condition()
        self._running: subprocess.Popen[bytes] | None = None
        self._killed: subprocess.Popen[bytes] | None = None
        self._gave_up = False
        self._stopping = threading.Event()
        self._exits: list[Exit] = []
        self._thread = threading.Thread(target=self._watch, name=f"supervisor {role.name}", daemon=True)

    @property
    def name(self) -> str:
        """For people."""
        return self._role.name

    @property
    def role(self) -> Role:
        """What is supervised."""
        return self._role

    @property
    def exits(self) -> tuple[Exit, ...]:
        """Every end of a process so far that was neither a kill of ours nor a clean stop."""
        with self._lock:
            return tuple(self._exits)

    @property
    def pid(self) -> int | None:
        """Its process, if one runs."""
        with self._lock:
            return None if self._running is None else self._running.pid

    @property
    def gave_up(self) -> bool:
        """Whether it ended with a code after which nobody starts it again."""
        with self._lock:
            return self._gave_up

    def start(self) -> None:
        """Start the role with an empty log and begin to watch it."""
        self._role.folder.mkdir(parents=True, exist_ok=True)
        self._role.log.unlink(missing_ok=True)
        self._thread.start()

    @property
    def halts(self) -> tuple[Halt, ...]:
        """What it has given up so far."""
        return halts(self._role.log)

    def come_back(self, patience: Patience, limit_seconds: float) -> None:
        """Wait until its process answers.

        Raises:
            TransientError: it does not within the limit, or the role has given up.
        """
        self._await("/livez", "does not answer", patience, limit_seconds)

    def serve(self, patience: Patience, limit_seconds: float) -> None:
        """Wait until it says of itself that all its streams are served.

        Raises:
            TransientError: it does not within the limit, or the role has given up.
        """
        self._await("/readyz", "is not ready", patience, limit_seconds)

    def kill9(self) -> None:
        """Kill it and wait until it is dead; the supervisor starts it again.

        Raises:
            TransientError: it does not run.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        with self._lock:
            while self._running is None and not self._gave_up and time.monotonic() < deadline:
                self._lock.wait(0.1)  # it has died by itself and is about to be started again
            running = self._running
            if running is None:
                raise TransientError(f"{self.name} does not run: {self._last_error()}", place=str(self._role.log))
            self._killed = running
            running.kill()
            while self._running is running:
                self._lock.wait(0.1)

    def end(self) -> None:
        """Kill it, and never start it again."""
        with self._lock:
            self._stopping.set()
            running = self._running
            if running is not None:
                self._killed = running
                running.kill()

    def pause(self) -> None:
        """Stop it where it is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Let it drain and end; kill it if it does not. Does nothing if it was never started."""
        if self._thread.ident is None:
            return
        self._stopping.set()
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)  # once: a second one means at once
        self._thread.join(_DRAIN_SECONDS)
        if self._thread.is_alive():
            self._signal(signal.SIGKILL)
            self._thread.join()

    def let_go(self) -> None:
        """Watch it no longer; its process goes on."""
        self._stopping.set()

    def _await(self, path: str, otherwise: str, patience: Patience, limit_seconds: float) -> None:
        place = str(self._role.log)
        for _ in patience.looks(limit_seconds):
            if self._answers(path):
                return
            if self.gave_up:
                raise TransientError(f"{self.name} has given up: {self._last_error()}", place=place)
        raise TransientError(
            f"{self.name} {otherwise} after {limit_seconds:g} s: {self._last_error()}", place=place
        )

    def _answers(self, path: str) -> bool:
        try:
            address = self._role.address.read_text(encoding="ascii").strip()
            with urllib.request.urlopen(f"http://{address}{path}", timeout=_PROBE_SECONDS) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except (OSError, ValueError, HTTPException):  # urllib's own errors are OSErrors
            return False

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._running is not None:
                self._running.send_signal(number)

    def _watch(self) -> None:
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                running = self._spawn()
                self._running = running
                self._lock.notify_all()
            code = running.wait()
            with self._lock:
                self._role.address.unlink(
                    missing_ok=True
                )  # whoever asks for it now must not reach another process
                self._running = None
                self._gave_up = self._judge(code, asked=self._killed is running)
                self._lock.notify_all()
                if self._gave_up:
                    return
            self._stopping.wait(_RESTART_SECONDS)

    def _judge(self, code: int, *, asked: bool) -> bool:
        """Note an end that is not as it should be; returns whether it is the last."""
        stopping = self._stopping.is_set()
        final = code in FINAL_CODES
        fine = code == -signal.SIGKILL if asked else code == 0 and stopping
        if not fine:
            self._exits.append(Exit(self.name, code, self._last_error(), restarted=not (final or stopping)))
        return final

    def _last_error(self) -> str:
        return last_failure(self._role.log)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the process, out of reach of the terminal's Ctrl-C."""
        self._role.address.unlink(missing_ok=True)
        with self._role.log.open("ab") as log:
            return subprocess.Popen(
                self._role.command,
                cwd=self._role.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
