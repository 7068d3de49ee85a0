"""When what the cluster has acknowledged is confirmed to the slot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from embassy.model.lsn import Lsn
from embassy.pg.replication_session import Keepalive
from embassy.runtime.config import ProducerTuning
from embassy.wire.kafka_writer import Ack
from producers.confirming import Confirming

_DELAY = ProducerTuning().confirm_delay_seconds


class _Idle:
    """A stream of which one record is acknowledged with each turn, and nothing else happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.confirmed: list[tuple[float, int]] = []
        self.asked = False
        self._acks: list[Ack] = []
        self._count = 0
        reader: Any = SimpleNamespace(
            keepalive=Keepalive(Lsn(0), reply_requested=False),
            confirm=lambda lsn: self.confirmed.append((self.now, lsn)),
        )
        self._reader = reader
        appender: Any = SimpleNamespace(acks=self._taken)
        nothing: Any = SimpleNamespace(
            acknowledged=lambda _: None, confirmed=lambda _: None, published=lambda *_: None
        )
        self.confirming = Confirming(
            appender=appender,
            reader=reader,
            tuning=ProducerTuning(),
            copies=nothing,
            gauges=nothing,
            clock=lambda: self.now,
            pulse=lambda: None,
            next_offset=0,
        )

    def _taken(self) -> list[Ack]:
        taken, self._acks = self._acks, []
        return taken

    def turn(self, now: float) -> None:
        """A record that ends at the present second, acknowledged at once."""
        self.now = now
        self.confirming.shipped(self._count, Lsn(int(now)), 0)
        self._acks.append(Ack(self._count, self._count, 1))
        self._count += 1
        self.confirming.take_acks()
        self.confirming.send_status()

    def ask(self) -> None:
        self._reader.keepalive = Keepalive(Lsn(0), reply_requested=True)
        self.confirming.send_status()


def test_nothing_is_confirmed_before_its_time_and_not_much_later() -> None:
    stream = _Idle()
    for second in range(1, 300):
        stream.turn(second)
        told = stream.confirmed[-1][1]
        assert told <= max(second - _DELAY, 0)
        assert told >= second - _DELAY * 1.25 - 1


def test_an_idle_stream_confirms_in_the_turns_that_its_beats_make() -> None:
    stream = _Idle()
    stream.turn(0)
    for beat in range(5, 300, 5):
        assert stream.confirming.due_seconds(6.0) >= 5.0, "no turn is made for it"
        stream.turn(beat)
    assert len({lsn for _, lsn in stream.confirmed}) > 20


def test_the_last_acknowledgement_is_confirmed_without_any_turn_but_its_own() -> None:
    stream = _Idle()
    stream.turn(7)
    while not stream.confirmed[-1][1]:
        stream.now += stream.confirming.due_seconds(6.0)
        stream.confirming.send_status()
    assert stream.now < 7 + _DELAY * 1.5 + 1


def test_a_server_that_asks_is_told_at_once_of_all_that_is_acknowledged() -> None:
    stream = _Idle()
    stream.turn(1)
    stream.turn(2)
    stream.ask()
    assert stream.confirmed[-1] == (2, 2)
