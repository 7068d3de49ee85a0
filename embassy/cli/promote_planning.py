"""Making a promotion's plan: what is seen of each replica, and what a plan binds."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from embassy.cli.options import Options
from embassy.cli.together import Failure, each
from embassy.model.errors import EmbassyError, RefusedError
from embassy.pg import progress_store, promotion_store
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.promotion_obstacles import obstacles
from embassy.pg.reign_setup import reverse_obstacles
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.pg.stream_lock import CONSUMER_LEASE
from embassy.runtime.config import Settings, Stream
from embassy.wire.enrolment import Enrolment, load_enrolment, load_roster
from embassy.wire.kafka_ends import TopicEnds
from embassy.wire.keyring import load_identity
from embassy.wire.promotion_plan import NONCE_BYTES, Plan, PlanFile, PlannedStream, Waivers, roster_hash
from failover.loss import Loss, loss

_APPLICATION = "embassy-promote-plan"
_TOGETHER = 8
_TIMEOUT_SECONDS = 8.0
"""Of the embassy's cluster."""


class Intention(NamedTuple):
    """What the planner asked for."""

    mode: str
    accept_loss_seconds: int | None
    waivers: Waivers
    valid_minutes: int


class Outlook(NamedTuple):
    """What promoting one replica would mean, as it is now."""

    planned: PlannedStream
    last_commit_at: float | None
    """Source time of the newest transaction applied, seconds since 1970 UTC."""
    loss: Loss | None
    """What would be lost if it were sealed now; None: not known."""
    holder: str
    """Who applies the stream now; empty: nobody."""
    obstacles: tuple[str, ...]
    no_reverse: tuple[str, ...]
    """Why nothing would be kept for the way home; empty: it would."""

    def beyond(self, accepted_seconds: float | None) -> bool:
        """Whether more would be lost than is accepted, or it is not known how much; None: nothing is said of that."""
        return accepted_seconds is not None and (self.loss is None or self.loss.seconds > accepted_seconds)

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        planned = self.planned
        return {
            "name": planned.name,
            "from_epoch": planned.from_epoch,
            "to_epoch": planned.to_epoch,
            "sequence": planned.minimum_sequence,
            "lsn": str(planned.minimum_lsn),
            "last_commit_at": None
            if self.last_commit_at is None
            else datetime.fromtimestamp(self.last_commit_at, UTC).isoformat(timespec="milliseconds"),
            "predicted_loss_seconds": self.loss and round(self.loss.seconds, 1),
            "home_clock_ahead_seconds": self.loss and self.loss.home_ahead_seconds,
            "consumer": self.holder,
            "obstacles": list(self.obstacles),
            "reverse_stream": not self.no_reverse,
            "no_reverse_stream": list(self.no_reverse),
        }


def make_plan(options: Options, intention: Intention) -> tuple[PlanFile, list[Outlook]]:
    """Look at the replicas, and write down what is to become of them.

    Raises:
        RefusedError: a replica does not know its stream, or was promoted already.
        ConfigurationError: the configuration lacks something, or an enrolment does not hold.
        TransientError: a replica is unreachable.
    """
    settings = options.settings()
    keys = settings.keys
    operators = options.need(keys.operators, "keys.operators")
    roster = load_roster(operators, keys.threshold)
    identity = load_identity(options.identity_file(settings))
    outlooks = list(_outlooks(options, settings, intention))
    plan = Plan(
        mode=intention.mode,
        site=settings.site,
        nonce=secrets.token_bytes(NONCE_BYTES),
        made_at=int(time.time()),
        accept_loss_seconds=intention.accept_loss_seconds,
        waivers=intention.waivers,
        roster=roster_hash(roster, keys.threshold),
        identity=identity.public,
        streams=tuple(outlook.planned for outlook in outlooks),
    )
    return PlanFile.draft(plan), outlooks


class _Asked(NamedTuple):
    """A stream whose replica is looked at."""

    name: str
    stream: Stream


def _outlooks(options: Options, settings: Settings, intention: Intention) -> Iterator[Outlook]:
    streams = options.streams(settings)
    unread = {} if intention.waivers.undrained else _unread(options, settings, [s.topic for s in streams.values()])
    found: dict[str, Outlook] = {}

    def look(asked: _Asked) -> None:
        name, stream = asked
        replica = options.need(stream.replica, f"streams.{name}.replica")
        with transient(place_of(replica.dsn)), explained(place_of(replica.dsn)):
            enrolment = load_enrolment(
                stream.enrolment,
                operators=settings.keys.operators,
                threshold=settings.keys.threshold,
                stream=stream.stream,
            )
            found[name] = _outlook(settings, name, enrolment, replica.dsn, intention)

    failures = each([_Asked(*entry) for entry in streams.items()], look, at_once=_TOGETHER, what="promote-plan")
    if failures:
        raise _without(failures, [name for name in streams if name in found])
    for name, stream in streams.items():
        why = unread.get(stream.topic)
        yield found[name] if why is None else found[name]._replace(obstacles=(*found[name].obstacles, why))


def _without(failures: Sequence[Failure], others: Sequence[str]) -> EmbassyError:
    """The first one's error, with what is wrong with all of them, and how to plan for the others."""
    first = failures[0].error
    way_out = f"; or a plan of the others: {' '.join(f'-r {name}' for name in others)}" if others else ""
    words = "; ".join(f"{failure.name}: {failure.error.args[0]}" for failure in failures)
    return type(first)(words, place=first.place, hint=f"{first.hint}{way_out}")


def _unread(options: Options, settings: Settings, topics: Iterable[str]) -> dict[str, str]:
    """The streams' topics that nobody can drain now, and why."""
    cluster = options.need(settings.kafka.foreign, "kafka.foreign")
    if options.log_level != "debug":
        logging.getLogger("embassy.kafka").setLevel(logging.CRITICAL)  # the plan tells what did not answer
    way_out = "a plan with --accept-undrained promotes what the replica has"
    try:
        with TopicEnds(cluster, _APPLICATION, timeout_seconds=_TIMEOUT_SECONDS) as ends:
            bounds = ends.bounds(topics)
    except EmbassyError as error:
        why = f"the embassy's log cannot be read: {error.args[0]} [{error.place}] (mend it; or {way_out})"
        return dict.fromkeys(topics, why)
    return {
        topic: f"topic {topic} does not exist in the embassy's cluster ({way_out})"
        for topic, held in bounds.items()
        if held is None
    }


def _outlook(settings: Settings, name: str, enrolment: Enrolment, dsn: str, intention: Intention) -> Outlook:
    with connect(dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as connection:
        promotion_store.require(connection, place_of(dsn))
        progress = progress_store.read(connection, enrolment.stream)
        if progress is None:
            raise RefusedError(
                "the replica does not know this stream", place=name, hint="check streams.NAME.replica.dsn"
            )
        if progress.head.epoch != enrolment.epoch:
            raise RefusedError(
                f"the replica is at epoch {progress.head.epoch}, its enrolment is of epoch {enrolment.epoch}",
                place=name,
                hint="it was promoted already: embassy promote status",
            )
        now = promotion_store.local_now(connection).timestamp()
        last = progress.committed_at / 1e6 if progress.committed_at else None
        planned = PlannedStream(
            name,
            enrolment.stream,
            progress.head.epoch,
            progress.head.epoch + 1,
            enrolment.hash,
            progress.head.sequence,
            progress.head.resume_lsn,
            int(now) + intention.valid_minutes * 60,
        )
        return Outlook(
            planned,
            last,
            loss(progress, now),
            CONSUMER_LEASE.holder(connection, enrolment.stream),
            tuple(
                obstacles(
                    connection,
                    enrolment.stream,
                    roles=settings.promotion.application_roles,
                    accept_undrained=intention.waivers.undrained,
                    accept_differences=intention.waivers.differences,
                    accept_incomplete=intention.waivers.incomplete,
                )
            ),
            tuple(reverse_obstacles(connection, settings.promotion.reverse_role)),
        )
