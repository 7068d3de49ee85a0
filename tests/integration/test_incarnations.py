"""A source notes each incarnation before it begins, and forgets what was followed."""

from __future__ import annotations

import pytest

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.errors import TransientError
from embassy.model.incarnation import says_noted
from embassy.pg import incarnations, source_schema
from embassy.pg.connection import connect
from embassy.pg.exchange import Exchange
from embassy.pg.incarnations import IncarnationNotes, Noted
from tests.harness.lab import MakeDatabase
from tests.property.test_noted_incarnations import Database

_STREAM = b"s" * 16


def test_names_are_kept_from_the_one_that_is_followed_on(lab: Lab, make_database: MakeDatabase) -> None:
    name = make_database("home")
    postgres = lab.home.postgres
    notes = IncarnationNotes(postgres.dsn(databases.PRODUCER, name), _STREAM, 1, place="deeds")
    with connect(postgres.dsn(databases.ADMIN, name), application_name="embassy-test", autocommit=True) as admin:
        assert not says_noted(notes.begin(b""))
        assert incarnations.noted(admin, _STREAM, 1) == Noted(possible=False)

        source_schema.ensure(admin, producer_role=databases.PRODUCER)
        assert incarnations.noted(admin, _STREAM, 1) == Noted()
        model, made = Database(), [b"another's"]
        # What each one follows, by number: KEYs that were lost on the way, that counted, that came late.
        for follows in (0, 0, 1, 1, 2, 4, 4, 0, 6, 8):
            made.append(notes.begin(made[follows]))
            assert says_noted(made[-1])
            model = model.noting(made[-1], made[follows])
            assert incarnations.noted(admin, _STREAM, 1).names == model.names
        assert len(model.names) == 3
        assert incarnations.noted(admin, _STREAM, 2) == Noted()
        assert incarnations.noted(admin, b"t" * 16, 1) == Noted()

        admin.execute("ALTER TABLE embassy.incarnation ADD CHECK (false) NOT VALID")
        with pytest.raises(TransientError, match="CheckViolation"):
            notes.begin(made[-1])


def test_a_name_that_was_noted_ahead_is_given_once_and_only_behind_what_it_follows(
    lab: Lab, make_database: MakeDatabase
) -> None:
    name = make_database("home")
    postgres = lab.home.postgres
    notes = IncarnationNotes(postgres.dsn(databases.PRODUCER, name), _STREAM, 1, place="deeds")
    with (
        connect(postgres.dsn(databases.ADMIN, name), application_name="embassy-test", autocommit=True) as admin,
        connect(postgres.dsn(databases.PRODUCER, name), application_name="embassy-test", autocommit=True) as heart,
    ):
        exchange, counts = Exchange(heart), b"first"
        ahead = notes.errand(lambda: counts)
        admin.execute("CREATE SCHEMA embassy")
        admin.execute("GRANT USAGE ON SCHEMA embassy TO PUBLIC")
        exchange.run([ahead])  # a source of an earlier version: no harm
        assert notes.lacks(counts)

        source_schema.ensure(admin, producer_role=databases.PRODUCER)
        heart.execute("SET synchronous_commit = off")
        exchange.run([ahead])
        assert heart.execute("SHOW synchronous_commit").fetchone() == ("off",)
        assert not notes.lacks(counts)
        noted = incarnations.noted(admin, _STREAM, 1).names
        assert notes.begin(counts) == noted[-1], "no other one was noted"
        assert incarnations.noted(admin, _STREAM, 1).names == noted
        assert notes.begin(counts) != noted[-1], "a name begins one incarnation: two would share nonces"

        exchange.run([ahead])
        assert notes.lacks(b"second")
        follows_another = notes.begin(b"second")
        assert incarnations.noted(admin, _STREAM, 1).names[-1] == follows_another
        assert notes.lacks(counts), "what was noted ahead of something else is never used"


def test_a_name_that_was_noted_ahead_is_on_disk(lab: Lab, make_database: MakeDatabase) -> None:
    name = make_database("home")
    postgres = lab.home.postgres
    with (
        connect(postgres.dsn(databases.ADMIN, name), application_name="embassy-test", autocommit=True) as admin,
        connect(postgres.dsn(databases.PRODUCER, name), application_name="embassy-test", autocommit=True) as heart,
    ):
        source_schema.ensure(admin, producer_role=databases.PRODUCER)
        admin.execute("CREATE TABLE public.waited (how text)")
        admin.execute("GRANT INSERT ON public.waited TO PUBLIC")
        admin.execute(
            """CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO public.waited VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$"""
        )
        # deferred to the commit, so it sees what the commit goes by
        admin.execute(
            """CREATE CONSTRAINT TRIGGER tell AFTER INSERT OR UPDATE ON embassy.incarnation
               DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.tell()"""
        )
        heart.execute("SET synchronous_commit = off")
        exchange = Exchange(heart)
        notes = IncarnationNotes(postgres.dsn(databases.PRODUCER, name), _STREAM, 1, place="deeds")
        exchange.run([notes.errand(lambda: b"first")])
        assert admin.execute("SELECT how FROM public.waited").fetchall() == [("local",)]
