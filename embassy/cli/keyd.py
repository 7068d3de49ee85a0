"""``embassy keyd``: the process that alone holds an embassy's recipient keys."""

from __future__ import annotations

import os
import pwd
import signal
import threading
from types import FrameType
from typing import Self

import click
import structlog

from embassy.cli.auditing import audit_log
from embassy.cli.options import Options, pass_options
from embassy.model.errors import ConfigurationError, EmbassyError
from embassy.runtime.audit_line import JSON
from embassy.runtime.config import Keyd
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.hardening import lock_memory, without_core_dumps
from embassy.runtime.systemd import Systemd
from embassy.wire.key_server import KeyServer, Peer
from embassy.wire.recipient_keys import HeldKeys, load_recipients
from embassy.wire.selftest import selftest


@click.group()
def keyd() -> None:
    """Hold the recipient keys in a process of their own, behind a Unix socket."""


@keyd.command()
@pass_options
def run(options: Options) -> ExitCode:
    """Unwrap data keys for the consumer until told to stop.

    Seeds never leave this process, which leaves no core dumps and cannot be traced. Who may ask is told by the
    kernel: this process's user, and those that keyd.users names. Each use is entered into the audit log before it is
    answered. A consumer whose configuration has keyd.socket and no keys.recipient asks here; while keyd is away it
    waits, and loses nothing. On SIGHUP the key files are read again.

    Reads keys.recipient, keyd.socket, keyd.users and audit.file.

    \b
    embassy -c keyd.toml keyd run
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    without_core_dumps()
    locked = lock_memory()
    selftest()
    settings = options.settings()
    section = options.need(settings.keyd, "keyd")
    options.need(settings.keys.recipient, "keys.recipient")
    log = structlog.get_logger(component="keyd")
    audit = audit_log(options)
    assert audit is not None, "settings come from a file"
    audit.check()
    held = HeldKeys(load_recipients(settings.keys.recipient_files))

    def used(peer: Peer, what: str, recipient: str) -> None:
        outcome = "refused" if what == "refused" else "ok"
        if outcome == "refused":
            log.warning("refused: not one of keyd.users", user=peer.user, pid=peer.pid)
        action = "key.unwrap" if what == "unwrap" else "key.ask"
        details: dict[str, JSON] = {"recipient": recipient, "pid": peer.pid}
        audit.append(action, actor=_name(peer.user), outcome=outcome, details=details)

    def reload() -> None:
        try:
            held.replace(load_recipients(options.settings().keys.recipient_files))
            log.info("reloading keys", recipients=[found.hex() for found in held.holds()])
        except EmbassyError as error:
            log.error("reload refused; what was in use stays", error=str(error))  # noqa: TRY400 - no bug of ours

    systemd = Systemd()
    with _Signals() as signals, KeyServer(section.socket, held, users=_users(section), used=used) as server:
        log.info(
            "started",
            socket=str(section.socket),
            recipients=[found.hex() for found in held.holds()],
            memory_locked=locked,
            pid=os.getpid(),
        )
        systemd.ready()

        def tick() -> None:
            systemd.alive()
            if signals.reload.is_set():
                signals.reload.clear()
                reload()

        server.serve(signals.stop, tick)
        systemd.stopping()
    systemd.close()
    log.info("ended", exit_code=0)
    return ExitCode.OK


class _Signals:
    """SIGTERM and SIGINT stop, SIGHUP reloads; as before at the end."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        (self.reload if number == signal.SIGHUP else self.stop).set()


def _users(section: Keyd) -> frozenset[int]:
    found = set()
    for name in section.users:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError as error:
            raise ConfigurationError(
                f"there is no user {name!r}", place="keyd.users", hint="name the users that may ask for data keys"
            ) from error
    return frozenset(found)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
