"""What ends an idle loop's wait, and what does not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embassy.model.errors import TransientError
from embassy.model.lsn import Lsn
from embassy.pg.replication_session import Keepalive
from embassy.wire.kafka_writer import Appender
from producers.resting import wait


class Source:
    """Tells keepalives and messages that were put into a pipe, a byte each."""

    keepalive = Keepalive(Lsn(0), reply_requested=False)

    def __init__(self) -> None:
        self.fileno, self._end = os.pipe2(os.O_NONBLOCK)

    def say(self, what: bytes) -> None:
        os.write(self._end, what)

    def drain(self, add: Callable[[bytes], object], messages: int, _size: int) -> bool:
        for _ in range(messages):
            said = os.read(self.fileno, 1)
            if said == b"m":
                add(said)
            self.keepalive = Keepalive(Lsn(1), reply_requested=said == b"?")
        return True

    def close(self) -> None:
        os.close(self.fileno)
        os.close(self._end)


class Delivered:
    """What the cluster has taken."""

    def __init__(self, offset: int) -> None:
        self.offset = lambda: offset


class Stream:
    def __init__(self) -> None:
        self.source = Source()
        self.appender = Appender("topic", lambda _appender, _number, _value: None)
        self.taken = self.acknowledged = 0

    def take_acks(self) -> None:
        self.taken += len(self.appender.acks())

    def wait(self, seconds: float, *, idle: bool = True) -> list[bytes]:
        stream: Any = self
        source: Any = self.source
        readable = [self.appender.wake_fd, source.fileno]
        return wait(readable, seconds, idle=idle, reader=source, appender=self.appender, confirming=stream)

    def acknowledge(self, offset: int, error: Any = None) -> None:
        message: Any = Delivered(offset)
        self.appender.on_delivery(self.acknowledged, error, message, 1)
        self.acknowledged += 1


@pytest.fixture
def stream() -> Iterator[Stream]:
    stream = Stream()
    yield stream
    stream.source.close()
    stream.appender.close()


def later(do: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.05, do)
    timer.start()
    return timer


def test_a_keepalive_does_not_end_it_and_a_message_does(stream: Stream) -> None:
    stream.source.say(b"kkk")
    timer = later(lambda: stream.source.say(b"kmm"))
    assert stream.wait(30) == [b"m"], "one, behind the keepalives"
    assert stream.wait(30) == [b"m"], "and what comes behind it is still there"
    timer.join()


def test_a_keepalive_that_wants_an_answer_ends_it(stream: Stream) -> None:
    stream.source.say(b"k?m")
    assert stream.wait(30) == []
    assert stream.source.keepalive.reply_requested


def test_an_acknowledgement_is_taken_and_does_not_end_it(stream: Stream) -> None:
    stream.appender.append(b"v")
    timer = later(lambda: stream.acknowledge(0))
    begun = time.monotonic()
    assert stream.wait(0.8) == []
    assert time.monotonic() - begun >= 0.8
    assert stream.taken == 1
    timer.join()


def test_whoever_rings_while_acknowledgements_are_taken_ends_it(stream: Stream) -> None:
    take_acks = stream.take_acks

    def rung_meanwhile() -> None:
        stream.appender.wake()
        take_acks()

    stream.take_acks = rung_meanwhile  # type: ignore[method-assign]
    stream.source.say(b"k")
    begun = time.monotonic()
    assert stream.wait(30) == []
    assert time.monotonic() - begun < 15


def test_a_refusal_ends_it_at_once(stream: Stream) -> None:
    stream.appender.append(b"v")
    stream.wait(0.01)
    timer = later(lambda: stream.acknowledge(-1))
    stream.wait(30)
    with pytest.raises(TransientError, match="not behind"):
        stream.take_acks()
    timer.join()


def test_whoever_waits_for_an_acknowledgement_is_woken_by_it(stream: Stream) -> None:
    stream.appender.append(b"v")
    stream.appender.append(b"v")
    timer = later(lambda: stream.acknowledge(0))
    stream.wait(30, idle=False)
    assert stream.appender.acks()
    timer.join()
    stream.appender.hush(hushed=True)
    stream.acknowledge(1)
    stream.wait(30, idle=False)  # it had come when nobody was to be woken
    assert stream.appender.acks()


def test_a_ring_ends_it(stream: Stream) -> None:
    timer = later(stream.appender.wake)
    assert stream.wait(30) == []
    timer.join()
