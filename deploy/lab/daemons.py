"""Servers that outlive the command that starts them, known by process id and start time.

A process id alone is reused; with its start time and the machine's boot it names one process for ever, so the
lab only ever signals what it started.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.account import Account
from deploy.lab.waiting import Patience
from embassy.model.errors import TransientError

_ASK_AGAIN_SECONDS = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")

# The shell ends at once, so the server belongs to init and not to the caller; it has a session of its own, so
# the terminal's Ctrl-C does not reach it.
_DETACH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


@dataclass(frozen=True, slots=True)
class Daemon:
    """One running or past process.

    Attributes:
        started: boot and start time of the process (clock ticks since boot), opaque.
    """

    pid: int
    started: str

    @classmethod
    def me(cls) -> Daemon:
        """The process that asks."""
        found = cls.find(os.getpid())
        assert found is not None
        return found

    @classmethod
    def find(cls, pid: int) -> Daemon | None:
        """The process that has this id now; None if none has, or it is dead and only waits to be reaped."""
        status = _status(pid)
        if status is None or status[0] in "ZX":
            return None
        return cls(pid, f"{_boot()}/{status[19]}")

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Daemon.find(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def ask(self, number: signal.Signals, patience: Patience, limit_seconds: float) -> bool:
        """Ask the process to end, and again each second; returns whether it ended within the limit.

        A server that has only just started may not listen yet: a detached process starts with SIGINT ignored.
        """
        ask_again_at = limit_seconds
        for left in patience.looks(limit_seconds):
            if not self.alive:
                return True
            if left <= ask_again_at:
                self.send(number)
                ask_again_at = left - _ASK_AGAIN_SECONDS
        return not self.alive

    def descendants(self) -> list[Daemon]:
        """Every living process below this one."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (status := _status(int(entry.name))):
                parents.setdefault(int(status[1]), []).append(int(entry.name))
        found: list[Daemon] = []
        queue = [self.pid]
        while queue:
            for child in parents.get(queue.pop(), ()):
                queue.append(child)
                if daemon := Daemon.find(child):
                    found.append(daemon)
        return found

    def cut_power(self, patience: Patience, limit_seconds: float = 20) -> None:
        """Kill the process and everything below it without a word, and wait until all are gone.

        The parent is frozen first, so that it cannot start another child meanwhile.
        """
        self.send(signal.SIGSTOP)
        family = [self, *self.descendants()]
        for member in family:
            member.send(signal.SIGKILL)
        for member in family:
            member.wait_gone(patience, limit_seconds)

    def wait_gone(self, patience: Patience, limit_seconds: float) -> None:
        """Wait until the process has ended.

        Raises:
            TransientError: it still runs after the limit.
        """
        for _ in patience.looks(limit_seconds):
            if not self.alive:
                return
        raise TransientError(f"process {self.pid} still runs {limit_seconds:g} s after it was told to stop")


def spawn(argv: Sequence[str | Path], *, account: Account, folder: Path, log: Path) -> Daemon:
    """Start a server as ``account`` in ``folder``, detached, its output appended to ``log``.

    Raises:
        TransientError: it ended at once; the message has the log's last lines.
    """
    shell = subprocess.run(
        ["/bin/sh", "-c", _DETACH, "sh", log, *argv],
        cwd=folder,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        **account.identity,
    )
    daemon = Daemon.find(int(shell.stdout))
    if daemon is None:
        raise TransientError(f"{Path(argv[0]).name} ended at once: {last_lines(log)}", place=str(log))
    return daemon


def running_as(*ending: str) -> list[Daemon]:
    """The running processes whose command line ends with these arguments."""
    wanted = [os.fsencode(argument) for argument in ending]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().removesuffix(b"\0").split(b"\0")
        except OSError:
            continue
        if arguments[-len(wanted) :] == wanted and (daemon := Daemon.find(int(entry.name))):
            found.append(daemon)
    return found


def last_lines(log: Path, lines: int = 5) -> str:
    """The end of a log, for a message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"(no log: {error.strerror})"
    return " | ".join(text.strip().splitlines()[-lines:])


def running_in(folder: Path, program: str) -> list[Daemon]:
    """The running processes of this program whose working folder is this one.

    These are a server and its children. Somebody's shell that looks around there is not among them.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            ours = (entry / "cwd").readlink() == folder and (entry / "exe").readlink().name == program
        except OSError:
            continue
        if ours and (daemon := Daemon.find(int(entry.name))):
            found.append(daemon)
    return found


def _status(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third (state) on, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()[:8]
    except OSError:
        return "boot"


def running_with(program: str, last_argument: str) -> Daemon | None:
    """The running process of this program whose last argument is this one.

    Finds a server that was started but never recorded, because the command that started it was killed between
    the two. The argument is a path of the lab, so no other server has it.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        if Path(os.fsdecode(arguments[0])).name == program and os.fsdecode(arguments[-1]) == last_argument:
            return Daemon.find(int(entry.name))
    return None
