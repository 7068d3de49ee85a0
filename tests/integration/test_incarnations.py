"""A source notes each incarnation before it begins, and forgets what was followed."""

from __future__ import annotations

import pytest

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.errors import TransientError
from embassy.model.incarnation import says_noted
from embassy.pg import incarnations, source_schema
from embassy.pg.connection import connect
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
