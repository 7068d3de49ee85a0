"""Looking at streams from wherever the configuration reaches; what `status` and `watch` share.

The places are read in the order that `embassy.model.observation` explains. One that does not answer is a problem to be
told, and takes no other place's answer along.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self, TypeVar

import psycopg

from embassy.cli.options import Options
from embassy.cli.questions import Questions
from embassy.cli.topic_tails import TopicTails
from embassy.model.errors import EmbassyError
from embassy.model.health import Limits, assess
from embassy.model.look import Look, Observed, Problem
from embassy.model.observation import (
    Absent,
    Observation,
    ProgressSeen,
    ReplicaSeen,
    Side,
    SourceSeen,
    TailSeen,
    TopicSeen,
)
from embassy.pg.observation import Databases
from embassy.runtime.config import KafkaCluster, Settings, Stream
from embassy.wire.enrolment import Enrolment, load_enrolment

_AT_ONCE = 8
_ANSWER_SECONDS = 15.0
"""Of all databases of a side together; more than a server that is away takes to be told (connect_timeout)."""
_NO_EPOCH = (1 << 63) - 1
"""Of an enrolment that cannot be read: none is above it."""
_CLIENT = "status"

T = TypeVar("T")


class Observer:
    """Looks as often as it is asked, with the same sessions."""

    def __init__(self, options: Options, *, wall: Callable[[], float] = time.time) -> None:
        """Read the configuration; nothing is connected to yet.

        Raises:
            ConfigurationError: it does not hold, or names no stream.
        """
        self._options = options
        self._settings: Settings = options.settings()
        self._streams: dict[str, Stream] = options.streams(self._settings)
        self._wall = wall
        self._closing = ExitStack()
        self._databases = Databases(wall)
        self._closing.callback(self._databases.close)
        self._questions = Questions(at_once=_AT_ONCE, seconds=_ANSWER_SECONDS)
        self._closing.callback(self._questions.close)
        self._tails: dict[Side, TopicTails] = {}
        self._problems: list[Problem] = []
        self._enrolments: dict[str, Enrolment] = {}
        self._lacking: list[Problem] = []
        for name, stream in self._streams.items():
            self._enrol(name, stream)
        if options.log_level != "debug":  # what they would tell is told as problems
            logging.getLogger("embassy.kafka").setLevel(logging.CRITICAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing.close()

    def look(self) -> Look:
        """See all places of all streams."""
        self._problems = list(self._lacking)
        replicas = self._replicas()
        foreign = self._topics(Side.FOREIGN, self._settings.kafka.foreign)
        foreign |= self._before_copies(foreign, replicas)
        sources = self._sources()
        home = self._topics(Side.HOME, self._settings.kafka.home)
        unsent = self._unsent(home, foreign)
        observed_at = self._wall()
        seen = []
        for name, stream in self._streams.items():
            enrolment = self._enrolments.get(name)
            observation = Observation(
                observed_at,
                self._sides(stream),
                enrolment.epoch if enrolment is not None else None,
                replicas.get(name),
                foreign.get(name),
                sources.get(name),
                home.get(name),
                unsent.get(name),
            )
            slowest = self._settings.slowest_beat_seconds(stream)
            limits = Limits.of(rpo_seconds=stream.rpo_seconds, slowest_beat_seconds=slowest)
            seen.append(Observed(name, stream.rpo_seconds, observation, assess(observation, limits)))
        sides = frozenset(side for entry in seen for side in entry.observation.sides)
        return Look(observed_at, self._settings.site, sides, tuple(seen), tuple(self._problems))

    def ask_replicas(
        self, names: Iterable[str], ask: Callable[[str, psycopg.Connection[Any]], T]
    ) -> dict[str, T | EmbassyError]:
        """Ask replicas for more than a look shows, in its read-only sessions, some at a time.

        Args:
            names: of the streams whose replicas are asked; those without one are left out.
            ask: called in a thread, with the stream's name and the session.
        """

        def answer(name: str, stream: Stream, dsn: str) -> T:
            with self._databases.session(dsn, bytes.fromhex(stream.stream)) as connection:
                return ask(name, connection)

        asked = {name: self._streams[name] for name in names}
        # by the same key as in a look: a session that gives no answer is not asked for something else
        answers = self._questions.ask(
            {
                (Side.REPLICA, name): partial(answer, name, stream, stream.replica.dsn)
                for name, stream in asked.items()
                if stream.replica is not None
            }
        )
        return {name: answers[Side.REPLICA, name] for name in asked if (Side.REPLICA, name) in answers}

    def _enrol(self, name: str, stream: Stream) -> None:
        keys = self._settings.keys
        try:
            operators = self._options.need(keys.operators, "keys.operators")
            self._enrolments[name] = load_enrolment(
                stream.enrolment, operators=operators, threshold=keys.threshold, stream=stream.stream
            )
        except EmbassyError as error:
            self._lacking.append(Problem(None, name, error))

    def _sides(self, stream: Stream) -> frozenset[Side]:
        reached = {
            Side.SOURCE: stream.source,
            Side.HOME: self._settings.kafka.home,
            Side.FOREIGN: self._settings.kafka.foreign,
            Side.REPLICA: stream.replica,
        }
        return frozenset(side for side, section in reached.items() if section is not None)

    def _replicas(self) -> dict[str, ReplicaSeen | Absent]:
        return self._together(
            Side.REPLICA,
            {
                name: partial(self._databases.replica, stream.replica.dsn, stream=bytes.fromhex(stream.stream))
                for name, stream in self._streams.items()
                if stream.replica is not None
            },
        )

    def _sources(self) -> dict[str, SourceSeen | Absent]:
        return self._together(
            Side.SOURCE,
            {
                name: partial(
                    self._databases.source,
                    stream.source.dsn,
                    stream=bytes.fromhex(stream.stream),
                    slot=stream.slot,
                    epoch=self._enrolments[name].epoch if name in self._enrolments else _NO_EPOCH,
                )
                for name, stream in self._streams.items()
                if stream.source is not None
            },
        )

    def _together(self, side: Side, looks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        found: dict[str, T] = {}
        answers = self._questions.ask({(side, name): look for name, look in looks.items()})
        for name in looks:
            answer = answers[side, name]
            if isinstance(answer, EmbassyError):
                self._problems.append(Problem(side, name, answer))
            else:
                found[name] = answer
        return found

    def _topics(self, side: Side, cluster: KafkaCluster | None) -> dict[str, TopicSeen | Absent]:
        if cluster is None:
            return {}
        topics = {name: self._streams[name].topic for name in self._enrolments}
        with self._noted(side):
            tails = self._tails.get(side)
            if tails is None:
                tails = TopicTails(cluster, f"{_CLIENT}-{self._settings.site}", wall=self._wall)
                self._tails[side] = self._closing.enter_context(tails)
            seen = tails.look({topics[name]: enrolment for name, enrolment in self._enrolments.items()})
            return {name: seen[topic] for name, topic in topics.items()}
        return {}

    def _before_copies(
        self, foreign: Mapping[str, TopicSeen | Absent], replicas: Mapping[str, ReplicaSeen | Absent]
    ) -> dict[str, TopicSeen]:
        """Topics that end in copies of what was there before, with the newest record that a replica has had from them.

        A carrier that repeats, or one of two, leaves such an end; a topic that was made anew does not hold that record.
        """
        wanted: dict[str, tuple[TopicSeen, ProgressSeen]] = {}
        for name, topic in foreign.items():
            replica = replicas.get(name)
            progress = replica.progress if isinstance(replica, ReplicaSeen) else None
            if progress is None or not isinstance(topic, TopicSeen) or topic.tail is None:
                continue
            if progress.epoch == topic.tail.epoch and progress.sequence > topic.tail.sequence:
                wanted[self._streams[name].topic] = topic, progress
        if not wanted:
            return {}
        found: dict[str, TailSeen] = {}
        with self._noted(Side.FOREIGN):
            enrolments = {self._streams[name].topic: enrolment for name, enrolment in self._enrolments.items()}
            places = {topic: progress.next_offset - 1 for topic, (_, progress) in wanted.items()}
            found = self._tails[Side.FOREIGN].standing_at(places, enrolments)
        return {
            name: wanted[stream.topic][0]._replace(tail=found[stream.topic])
            for name, stream in self._streams.items()
            if stream.topic in found and found[stream.topic].sequence == wanted[stream.topic][1].sequence
        }

    def _unsent(
        self, home: Mapping[str, TopicSeen | Absent], foreign: Mapping[str, TopicSeen | Absent]
    ) -> dict[str, float]:
        wanted = {}
        for name in self._enrolments:
            here, there = home.get(name), foreign.get(name)
            if isinstance(here, TopicSeen) and isinstance(there, TopicSeen) and here.tail and there.tail:
                wanted[self._streams[name].topic] = (here.tail, there.tail)
        found: dict[str, float] = {}
        if wanted:
            with self._noted(Side.HOME):
                since = self._tails[Side.HOME].unsent_since(wanted)
                found = {n: since[s.topic] for n, s in self._streams.items() if s.topic in since}
        return found

    @contextmanager
    def _noted(self, side: Side, registry: str = "") -> Iterator[None]:
        try:
            yield
        except EmbassyError as error:
            self._problems.append(Problem(side, registry, error))
