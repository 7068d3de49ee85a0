"""Home is shut before the embassy opens, and finds out when it was superseded."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import psycopg
import pytest

from deploy.lab import databases, role_configs
from deploy.lab.role_configs import OPERATORS as LAB_OPERATORS
from embassy.runtime.failpoints import HOME_BETWEEN_RELEASES, PROMOTION_AFTER_ABORTED
from embassy.wire.enrolment import EnrolmentFile
from embassy.wire.keyring import Operator, load_operator
from embassy.wire.roster import RosterFile
from tests.faults.test_promotion import Ceremony
from tests.harness.pipeline import MakePipeline, Pipeline, Sections

_SCHEMA = "CREATE TABLE public.event (id bigint PRIMARY KEY);"
_SECTIONS: Sections = {"promotion": {"application_roles": []}}


class Application:
    """Writes at home as fast as it is answered, and remembers what it was told."""

    def __init__(self, pipeline: Pipeline, first: int) -> None:
        self.told: list[int] = []
        self.ended = ""
        self._pipeline = pipeline
        self._next = first
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._pipeline.source() as connection:
                while True:
                    self._next += 1
                    connection.execute("INSERT INTO public.event VALUES (%s)", (self._next,))
                    self.told.append(self._next)
        except psycopg.Error as error:
            self.ended = str(error)

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "home let it write on"


def _home(pipeline: Pipeline, command: str, file: Path, code: int = 0, failpoint: str = "") -> str:
    arguments = ("home", command, str(file), "--reason", "a test")
    done = pipeline.embassy_command("home-admin", *arguments, failpoint=failpoint)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def _source_writes(pipeline: Pipeline) -> bool:
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("SET default_transaction_read_only = off")
        try:
            connection.execute("DELETE FROM public.event WHERE false")
        except psycopg.errors.ReadOnlySqlTransaction:
            return False
        return True


def _called_off(ceremony: Ceremony) -> Application:
    """A switchover that is given up: home is shut for it, and opened again by the embassy's signed word only."""
    pipeline = ceremony.pipeline
    given_up = ceremony.plan("--mode", "switchover", loss=0)
    assert "approved by 0" in _home(pipeline, "fence", given_up, 6)
    ceremony.approve(given_up)
    first = Application(pipeline, 0)
    _home(pipeline, "fence", given_up)
    first.join()
    assert first.told
    assert not _source_writes(pipeline)
    proof = given_up.with_suffix(".aborted.json")
    abort = ("abort", str(given_up), "--reason", "a rehearsal")
    assert ceremony.promote(*abort, failpoint=PROMOTION_AFTER_ABORTED).returncode == -9
    assert not proof.exists()
    assert "used up" in ceremony.run(given_up, 7), "without a proof, too, it can never be run"
    assert ceremony.promote(*abort).returncode == 0
    assert "given up" in _home(pipeline, "fence", proof, 5)
    _home(pipeline, "release", proof, -9, failpoint=HOME_BETWEEN_RELEASES)
    assert not ceremony.writes("event")
    _home(pipeline, "release", proof)
    assert _source_writes(pipeline)
    assert not ceremony.writes("event")
    pipeline.wait_level()
    return first


class _Operators:
    """The roster at home, which changes after the lab's operators have approved and enrolled."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._persons = {p: load_operator(role_configs.operator(pipeline.lab.layout, p)) for p in LAB_OPERATORS}
        for number, person in enumerate(("carl", "dora", "emil"), 0x61):
            self._persons[person] = Operator.from_seeds(bytes([number]) * 32, person=person)

    def become(self, *persons: str) -> None:
        """A second version has these; they enrol the stream's producer too."""
        layout = self._pipeline.lab.layout
        path = self._pipeline.folder / "roster.json"
        lab = [self._persons[person] for person in LAB_OPERATORS]
        file = RosterFile.begin([operator.public for operator in lab], 2).signed(lab[0]).signed(lab[1])
        fresh = [self._persons[person] for person in persons]
        file = file.changed([operator.public for operator in fresh], 2, path)
        enrolment = role_configs.enrolment(layout, self._pipeline.stream)
        enrolled = EnrolmentFile.read(enrolment)
        for operator in (*lab, *(operator for operator in fresh if operator not in lab)):
            file = file.signed(operator)
            enrolled = enrolled if enrolled.has(operator) else enrolled.signed(operator)
        path.write_text(file.render())
        enrolment.write_text(enrolled.render())
        for role in ("home-admin", "producer"):
            config = self._pipeline.config(role)
            text = re.sub(r"(?m)^operators = .*$", f"operators = {json.dumps([str(path)])}", config.read_text())
            config.write_text(text)


def test_a_switchover_loses_nothing_that_was_told_and_home_finds_out(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _SECTIONS)
    ceremony = Ceremony(pipeline)
    roles = pipeline.start_all()
    pipeline.wait_level()

    first = _called_off(ceremony)

    # And one that is run.
    plan = ceremony.approve(ceremony.plan("--mode", "switchover", loss=0))
    second = Application(pipeline, 1_000_000)
    _home(pipeline, "fence", plan)
    second.join()
    ceremony.run(plan, 0)
    with pipeline.replica() as connection:
        present = {number for (number,) in connection.execute("SELECT id FROM public.event")}
    told = {*first.told, *second.told}
    assert told <= present, "what clients were told is committed is in the embassy"
    assert ceremony.writes("event"), "the embassy is open"
    assert not _source_writes(pipeline), "and home is not"

    # Who approved it leaves, and it stays approved.
    operators = _Operators(pipeline)
    operators.become("dora", "emil")
    proof = ceremony.plans[0].with_suffix(".aborted.json")
    assert "(anna, bert) nobody is an operator any more" in _home(pipeline, "release", proof, 6)
    operators.become("anna", "carl")

    # Home learns it from its database, and, wherever its producer runs, from the report beside its enrolments.
    report = plan.with_suffix(".report.json")
    _home(pipeline, "fence", report)
    pipeline.kill(roles["producer"])
    again = pipeline.start("producer")
    assert again.exit_code() == 5
    assert "home is superseded" in again.tail()
    folder = str(pipeline.folder / "bundle")
    bundled = pipeline.embassy_command("home-admin", "failback", "bundle", str(report), "-o", folder)
    assert bundled.returncode == 0, bundled.stdout + bundled.stderr
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
        )
    again = pipeline.start("producer")
    assert again.exit_code() == 5, "failback has dropped the slot: that is no doubt about the stream"
    assert "home is superseded" in again.tail()
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("DELETE FROM embassy.fence")
    beside = role_configs.enrolment(pipeline.lab.layout, pipeline.stream).with_name("test.report.json")
    beside.write_text(report.read_text())
    try:
        again = pipeline.start("producer")
        assert again.exit_code() == 5
        assert "approved by anna and bert" in again.tail()
    finally:
        beside.unlink()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), pipeline.source() as connection:
        connection.execute("INSERT INTO public.event VALUES (-1)")
