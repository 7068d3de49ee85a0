"""A lossy line between two network namespaces: packets of a real TCP connection, held back and, some, dropped.

Two TUN devices, one here and one in a namespace of its own, and this process between them in the place of the line. What
TCP makes of it is the kernel's doing. It needs root, and Linux with `/dev/net/tun`.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import socket
import struct
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from embassy.model.errors import ConfigurationError

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_HERE, _THERE, _BITS = "10.213.77.1", "10.213.77.2", 30
_PACKET_BYTES = 2048
_MTU = 1500
_QUEUE_PACKETS = 20_000
_PACKETS_A_TURN = 256


class LossyLine:
    """Both ends, and what lies between."""

    def __init__(self, *, delay_seconds: float, loss: float, seed: int = 1) -> None:
        """Lay the line.

        Args:
            delay_seconds: of each packet, in each direction.
            loss: the share of packets that are dropped, in each direction.
            seed: which ones.

        Raises:
            ConfigurationError: this machine does not allow it.
        """
        self._delay_seconds = delay_seconds
        self._loss = loss
        self._random = random.Random(seed)
        self.address = _THERE
        try:
            with _new_namespace():
                self._there = _tun(f"line{os.getpid() % 10_000}b", _THERE)
                self.listener = socket.create_server((_THERE, 0))
            self._here = _tun(f"line{os.getpid() % 10_000}a", _HERE)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigurationError(
                f"a line that loses packets cannot be laid: {error}",
                place="/dev/net/tun",
                hint="it takes root, network namespaces and TUN devices; without --loss none of them is needed",
            ) from error

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Carry packets from now on."""
        _Direction(self, self._here, self._there).start(loop)
        _Direction(self, self._there, self._here).start(loop)

    def drops(self) -> bool:
        """Whether the next packet is lost."""
        return self._random.random() < self._loss

    @property
    def delay_seconds(self) -> float:
        """How long a packet is on its way."""
        return self._delay_seconds


class _Direction:
    def __init__(self, line: LossyLine, source: int, target: int) -> None:
        self._line = line
        self._source = source
        self._target = target
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._due = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._source, self._take)

    def _take(self) -> None:
        due = self._loop.time() + self._line.delay_seconds
        with suppress(BlockingIOError):
            for _ in range(_PACKETS_A_TURN):
                packet = os.read(self._source, _PACKET_BYTES)
                if not self._line.drops():
                    self._waiting.append((due, packet))
        self._wait()

    def _wait(self) -> None:
        if self._waiting and not self._due:
            self._due = True
            self._loop.call_at(self._waiting[0][0], self._pass_on)

    def _pass_on(self) -> None:
        self._due = False
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            with suppress(BlockingIOError):  # its queue is full: lost, as on any line
                os.write(self._target, self._waiting.popleft()[1])
        self._wait()


@contextmanager
def _new_namespace() -> Iterator[None]:
    """Inside, what this thread makes belongs to a network namespace of its own, which lives as long as that does."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "no new network namespace")
        try:
            yield
        finally:
            libc.setns(home, _CLONE_NEWNET)
    finally:
        os.close(home)


def _tun(name: str, address: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    for command in (
        f"ip addr add {address}/{_BITS} dev {name}",
        f"ip link set {name} up mtu {_MTU} txqueuelen {_QUEUE_PACKETS}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    return device
