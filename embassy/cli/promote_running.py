"""Running a plan over all its streams: checks together, the point of no return announced, then on to the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import psycopg

from embassy.cli.options import Options
from embassy.cli.promote_applying import Consumers
from embassy.cli.together import Failure, each
from embassy.model.errors import ConfigurationError, EmbassyError, StaleError
from embassy.pg import replica_opening
from embassy.runtime.config import Settings, Source, Stream
from embassy.wire.enrolment import Enrolment, load_enrolment, load_roster
from embassy.wire.kafka_reader import TopicReader
from embassy.wire.keyring import Identity, load_identity
from embassy.wire.promotion_plan import Plan, PlanFile, PlannedStream, roster_hash
from embassy.wire.verifying import RecordVerifier
from failover.promotion import Mode, Step, Terms
from failover.stream_promotion import StreamPromotion
from failover.wish import Ports, Reverse, Wish

_TOGETHER = 12

Tell = Callable[[str, Step, str], None]
"""Told of a stream's step, and of what it found."""


class Approved(NamedTuple):
    """A plan of this site, and who has approved it."""

    file: PlanFile
    plan: Plan
    persons: frozenset[str]
    same_operators: bool
    """Whether the operators are those of when it was made; else it raises no epoch any more, and nobody approves it."""

    def must_be_of_these_operators(self, place: Path) -> None:
        """Refuse it otherwise.

        Raises:
            StaleError: the operators have changed.
        """
        if not self.same_operators:
            raise StaleError(
                "the operators or their threshold are others than when the plan was made",
                place=str(place),
                hint="make a new plan, and have it approved",
            )


def read_plan(options: Options, settings: Settings, path: Path) -> Approved:
    """Read a plan and compare it with the configuration.

    Raises:
        ConfigurationError: it cannot be read, or is damaged.
        StaleError: it is of another site.
    """
    keys = settings.keys
    roster = load_roster(options.need(keys.operators, "keys.operators"), keys.threshold)
    file = PlanFile.read(path)
    persons = file.signers(roster)  # before anything of it is parsed
    plan = file.parsed(path)
    if plan.site != settings.site:
        raise StaleError(
            f"the plan is for site {plan.site}, and this is {settings.site}",
            place=str(path),
            hint="use that site's configuration",
        )
    return Approved(file, plan, persons, plan.roster == roster_hash(roster, keys.threshold))


def chosen(plan: Plan, options: Options, path: Path) -> tuple[PlannedStream, ...]:
    """The plan's streams that ``-r`` names; without it, all of them.

    Raises:
        ConfigurationError: the plan is not about one that is named.
    """
    known = [planned.name for planned in plan.streams]
    strange = [name for name in options.registries if name not in known]
    if strange:
        raise ConfigurationError(
            f"the plan is not about {', '.join(strange)}", place=str(path), hint=f"it is about {', '.join(known)}"
        )
    return tuple(p for p in plan.streams if not options.registries or p.name in options.registries)


def own_identity(options: Options, settings: Settings, plan: Plan, path: Path) -> Identity:
    """The key that signs what becomes of the plan.

    Raises:
        ConfigurationError: it cannot be read.
        StaleError: it is another one than the plan names, and nobody would believe it.
    """
    identity = load_identity(options.identity_file(settings))
    if identity.public != plan.identity:
        raise StaleError(
            "keys.identity is another one than the plan names",
            place=str(path),
            hint="name the key that it was made with; or make a new plan",
        )
    return identity


def planned_stream(options: Options, settings: Settings, planned: PlannedStream) -> Stream:
    """The configuration's word on a stream of the plan.

    Raises:
        ConfigurationError: there is none, or it is about another stream.
    """
    stream = settings.streams.get(planned.name)
    if stream is None or stream.stream != planned.stream.hex():
        raise ConfigurationError(
            f"the plan's stream {planned.name} is not in the configuration, or is another one",
            place=options.place,
            hint="use the configuration that the plan was made with",
        )
    return stream


class PlanRun:
    """One run of a plan over the streams that it is for; enter it, then `go_on`, `prepare` and `finish`."""

    def __init__(self, options: Options, settings: Settings, approved: Approved, path: Path, tell: Tell) -> None:
        self._options = options
        self._settings = settings
        self._approved = approved
        self._path = path
        self._tell = tell
        self._closing = ExitStack()
        self._roles_lock = threading.Lock()
        self._promotions: list[StreamPromotion] = []
        """Those that are not at their end."""
        self._unfit: list[Failure] = []
        """Those of which this configuration cannot make anything."""

    def __enter__(self) -> Self:
        cluster = self._options.need(self._settings.kafka.foreign, "kafka.foreign")
        consumers = Consumers(self._settings, cluster)
        self._closing.callback(consumers.close)
        for planned in chosen(self._approved.plan, self._options, self._path):
            try:
                promotion = StreamPromotion(self._wish(planned), self._ports(planned, consumers))
            except EmbassyError as error:
                self._unfit.append(Failure(planned.name, error))
            else:
                self._promotions.append(self._closing.enter_context(promotion))
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.close()

    def go_on(self) -> tuple[list[Mapping[str, Any]], list[Failure]]:
        """Go to the end with the streams whose epoch an earlier run of the plan has raised: nothing holds them up.

        Returns what the report says of each, and those that did not get there, or of which it is not known.
        """
        found, failures = self._ended(StreamPromotion.go_on)
        return found, [*self._unfit, *failures]

    def prepare(self) -> tuple[list[str], list[Failure]]:
        """Take every step before the point of no return with the streams that are left.

        Returns those that are ready to pass it, and those that cannot go on.
        """

        def one(promotion: StreamPromotion) -> None:
            self._approved.must_be_of_these_operators(self._path)
            promotion.prepare()

        names = {promotion.name for promotion in self._promotions}
        failures = self._each(one)
        return sorted(names - {failure.name for failure in failures}), failures

    def finish(self) -> tuple[list[Mapping[str, Any]], list[Failure]]:
        """Go on to the end; returns what the report says of each stream, and those that did not get there."""
        return self._ended(StreamPromotion.finish)

    def _ended(
        self, work: Callable[[StreamPromotion], Mapping[str, Any] | None]
    ) -> tuple[list[Mapping[str, Any]], list[Failure]]:
        found: dict[str, Mapping[str, Any]] = {}

        def one(promotion: StreamPromotion) -> None:
            entry = work(promotion)
            if entry is not None:
                found[promotion.name] = entry

        failures = self._each(one)
        over = found.keys() | {failure.name for failure in failures}
        self._promotions = [promotion for promotion in self._promotions if promotion.name not in over]
        return [found[name] for name in sorted(found)], failures

    def _each(self, work: Callable[[StreamPromotion], None]) -> list[Failure]:
        return each(self._promotions, work, at_once=_TOGETHER, what="promote")

    def _stream(self, planned: PlannedStream) -> Stream:
        return planned_stream(self._options, self._settings, planned)

    def _enrolment(self, planned: PlannedStream) -> Enrolment:
        stream = self._stream(planned)
        keys = self._settings.keys
        enrolment = load_enrolment(
            stream.enrolment, operators=keys.operators, threshold=keys.threshold, stream=stream.stream
        )
        if enrolment.hash != planned.enrolment:
            raise StaleError(
                f"the enrolment of {planned.name} is another one than when the plan was made",
                place=str(stream.enrolment),
                hint="make a new plan, and have it approved",
            )
        return enrolment

    def _wish(self, planned: PlannedStream) -> Wish:
        plan, promotion = self._approved.plan, self._settings.promotion
        return Wish(
            planned=planned,
            nonce=plan.nonce,
            document=self._approved.file.render(),
            terms=Terms(
                Mode(plan.mode),
                planned.from_epoch,
                planned.to_epoch,
                planned.minimum_sequence,
                planned.expires_at,
                self._settings.keys.threshold,
            ),
            persons=self._approved.persons,
            accept_loss_seconds=plan.accept_loss_seconds,
            waivers=plan.waivers,
            application_roles=promotion.application_roles,
            sequence_headroom=promotion.sequence_headroom,
            drain_seconds=promotion.drain_seconds,
            reverse=None
            if promotion.reverse_role is None
            else Reverse(
                promotion.reverse_role,
                self._stream(planned).slot,
                Source.model_fields["publication"].default,
            ),
        )

    def _ports(self, planned: PlannedStream, consumers: Consumers) -> Ports:
        stream, enrolment = self._stream(planned), self._enrolment(planned)
        replica = self._options.need(stream.replica, f"streams.{planned.name}.replica")
        cluster = self._options.need(self._settings.kafka.foreign, "kafka.foreign")

        def log() -> AbstractContextManager[TopicReader]:
            return TopicReader(cluster, stream.topic, f"{stream.topic}-promote")

        return Ports(
            dsn=replica.dsn,
            log=log,
            signers=RecordVerifier(enrolment),
            applying=consumers.of(planned.name, stream, replica, enrolment),
            let_in=self._let_in,
            tell=partial(self._tell, planned.name),
            clock=time.monotonic,
            pause=time.sleep,
        )

    def _let_in(self, connection: psycopg.Connection[Any]) -> None:
        """One at a time: registries of one server share their roles, and two sessions cannot alter one at once."""
        with self._roles_lock:
            replica_opening.let_in(connection, self._settings.promotion.application_roles)
