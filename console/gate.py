"""Whether a plan could promote a replica as it is. What was not seen is not known; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from console.seen import Desk
from embassy.model.health import State
from embassy.model.look import Observed
from embassy.model.look_words import UNKNOWN, Shade
from embassy.model.measures import replica_seen
from embassy.model.observation import ProgressSeen, Side
from embassy.model.wording import span


class Gate(NamedTuple):
    """The answer."""

    words: str
    shade: Shade
    """Good only if it is open, the stream is well, and no more would be lost than the registry may lose."""
    reasons: tuple[str, ...] = ()
    """Why it is closed, or why that is not known."""


def gate_of(entry: Observed, desk: Desk | str | None) -> Gate:
    """Conclude from a look, and from what the replica says stands in the way."""
    if entry.health.state is State.PROMOTING:
        return Gate("passed", Shade.BAD, ("a promotion is under way",))
    if entry.health.state is State.PROMOTED:
        return Gate("passed", Shade.DOUBTFUL, ("it is the registry already",))
    if Side.REPLICA not in entry.observation.sides:
        return _unknown("the replica cannot be seen from here")
    replica = replica_seen(entry.observation)
    if replica is None or not isinstance(desk, Desk):
        return _unknown(desk if isinstance(desk, str) else "the replica was not seen")
    if entry.observation.enrolled_epoch is None:
        return _unknown("the enrolment could not be read")
    reasons = (*desk.obstacles, *_own_reasons(replica.progress, entry.observation.enrolled_epoch))
    return Gate("blocked", Shade.BAD, reasons) if reasons else _open(entry)


def _own_reasons(progress: ProgressSeen | None, enrolled_epoch: int) -> Iterator[str]:
    if progress is None or progress.sequence == 0:
        yield "nothing has been applied yet"
    elif progress.epoch != enrolled_epoch:
        yield f"the replica is of epoch {progress.epoch}, its enrolment of epoch {enrolled_epoch}"


def _open(entry: Observed) -> Gate:
    loss = entry.health.measures.rpo_seconds
    if loss is None:
        return Gate(f"open, loss {UNKNOWN}", Shade.DOUBTFUL, ("what would be lost is not known",))
    if loss > entry.rpo_target_seconds:
        return Gate(f"open, loses {span(loss)}", Shade.DOUBTFUL, ("more than the registry may lose",))
    if not entry.health.state.healthy:
        return Gate(
            f"open, loses {span(loss)}", Shade.DOUBTFUL, ("and more with each second: the stream is not well",)
        )
    return Gate("open", Shade.GOOD)


def _unknown(why: str) -> Gate:
    return Gate(UNKNOWN, Shade.UNKNOWN, (why,))
