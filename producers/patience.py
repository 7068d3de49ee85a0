"""How long what is late already may wait for company: a small share of its age.

Behind a backlog each message would be fetched by itself and each acknowledgement would make a small batch, because
both come quickly; and what costs something per turn and per batch would cost it thousands of times. Nothing that is on
time waits.
"""

from __future__ import annotations

_SHIP_SHARE, _SHIP_SECONDS_MOST = 1 / 8, 0.1
_RECEIVE_SHARE, _RECEIVE_SECONDS_MOST = 1 / 64, 0.001


def to_ship(age_seconds: float) -> float:
    """Seconds that a transaction may wait for others to share its batch, by the time since its commit."""
    return min(max(age_seconds, 0.0) * _SHIP_SHARE, _SHIP_SECONDS_MOST)


def to_receive(age_seconds: float) -> float:
    """Seconds that messages may gather in the socket, by the age of the transaction that came last."""
    return min(max(age_seconds, 0.0) * _RECEIVE_SHARE, _RECEIVE_SECONDS_MOST)
