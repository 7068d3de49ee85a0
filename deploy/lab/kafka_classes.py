"""A broker's classes as the JVM maps them into memory, written down once instead of being parsed at each start.

A start takes half the CPU with them, 2.5 s instead of 4.8 (JEP 350, dynamic archives of class data). The JVM takes an
archive for what it is only with the same jars, at the same path; with any other it starts as it would without.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deploy.lab.account import Account
from deploy.lab.ports import accepts, free_port
from deploy.lab.waiting import Patience

_START_SECONDS = 120
_END_SECONDS = 60
_LIFE_SECONDS = 300
"""After which the broker ends although nobody is left to end it."""


def write_classes(
    target: Path, java: Sequence[str | Path], jars: Path, account: Account, patience: Patience
) -> None:
    """Let a broker start and end, alone and empty, and leave ``classes.jsa`` of it in a folder; or nothing if that fails.

    Args:
        target: the folder.
        java: the launcher and its options.
        jars: the broker's.
        account: runs it.
        patience: how to wait.

    Raises:
        AbandonedError: the start of the lab was interrupted.
    """
    port = free_port(())
    controller = free_port((port,))
    data, settings = target / "data", target / "server.properties"
    settings.write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
        f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
        f"log.dirs={data}\n",
        encoding="utf-8",
    )
    data.mkdir()
    for path in (target, data):
        account.own(path)
    settings.chmod(0o644)
    command = ["timeout", f"--kill-after={_END_SECONDS}", str(_LIFE_SECONDS), *java]
    formatting = [
        "kafka.tools.StorageTool",
        "format",
        "--cluster-id=AAAAAAAAAAAAAAAAAAAAAA",
        f"--config={settings}",
    ]
    try:
        _run([*command, "-cp", f"{jars}/*", *formatting], account, patience)
        archive = f"-XX:ArchiveClassesAtExit={target / 'classes.jsa'}"
        _run([*command, archive, "-cp", f"{jars}/*", "kafka.Kafka", settings], account, patience, port=port)
    finally:
        shutil.rmtree(data, ignore_errors=True)
        settings.unlink()


def _run(command: Sequence[str | Path], account: Account, patience: Patience, *, port: int | None = None) -> None:
    """Run a program until it ends; or, if it is a server, until somebody answers on its port, and ask it to end then."""
    with subprocess.Popen(
        command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        **account.identity,
    ) as process:  # fmt: skip
        try:
            for _ in patience.looks(_START_SECONDS):
                if process.poll() is not None or (port is not None and accepts(port)):
                    break
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()
