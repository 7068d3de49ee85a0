"""The ten registries and their business, on one real PostgreSQL server."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import psycopg
import pytest
from psycopg import sql

from deploy.lab.databases import OWNER
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import SUPERUSER
from deploy.workload import catalogue
from deploy.workload.attempt import Attempt, Habits, now
from deploy.workload.client import Client, crew
from deploy.workload.comparison import compare_sequences, compare_tables
from deploy.workload.ledger import Ledger, Outcome
from deploy.workload.observer import Observer, violated
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind
from deploy.workload.verdict import ledger_verdict, resolve_unknown
from tests.harness.lab import MakeDatabase

SMALL = Scale(people=120, bulk_rows=400, text_bytes=8_000, document_min_bytes=20_000, document_max_bytes=90_000)
DEADLINE_SECONDS = 180.0
INVARIANTS = [
    (name, invariant.name) for name in catalogue.names() for invariant in catalogue.workload(name).invariants
]

WITHOUT_IDENTITY = """
    SELECT c.oid::regclass::text FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
      AND (c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
          SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate))"""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)


def fill(dsn: str, name: str) -> RegistryWorkload:
    """Make a registry's tables in an empty database and seed them."""
    workload = catalogue.workload(name)
    with psycopg.connect(dsn) as connection:
        connection.execute(catalogue.schema_sql(name).encode())
    catalogue.seed(dsn, workload, seed=5, scale=SMALL)
    return workload


@dataclasses.dataclass(frozen=True)
class Sites:
    """A database, and others made from it as they stood."""

    lab: Lab
    database: str
    copies: list[str]

    @property
    def source(self) -> str:
        return self.lab.source_dsn(self.database)

    def dsn(self, database: str, role: str = SUPERUSER) -> str:
        return self.lab.home.postgres.dsn(role, database)

    def copy(self) -> str:
        """Copy the database as a replica in the state of this moment; return the superuser's DSN."""
        name = f"{self.database}_copy{len(self.copies)}"
        with self.lab.home.postgres.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                    sql.Identifier(name), sql.Identifier(self.database), sql.Identifier(OWNER)
                )
            )
        self.copies.append(name)
        return self.dsn(name)


@pytest.fixture
def sites(lab: Lab, make_database: MakeDatabase) -> Iterator[Sites]:
    made = Sites(lab, make_database("home"), [])
    yield made
    with lab.home.postgres.connect() as connection:
        for name in made.copies:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def working(*clients: Client) -> Iterator[None]:
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stop()


@contextlib.contextmanager
def watching(observer: Observer) -> Iterator[None]:
    observer.start()
    try:
        yield
    finally:
        observer.stop()


@pytest.mark.parametrize("name", catalogue.names())
def test_all_kinds_of_business_keep_every_invariant_while_three_clients_write(sites: Sites, name: str) -> None:
    workload = fill(sites.source, name)
    with psycopg.connect(sites.dsn(sites.database), autocommit=True) as connection:
        # A table without a usable replica identity would now make the application's updates fail.
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        assert connection.execute(WITHOUT_IDENTITY).fetchall() == []
    often = dataclasses.replace(
        workload, transactions=tuple(dataclasses.replace(kind, weight=1) for kind in workload.transactions)
    )
    ledger = Ledger()
    observer = Observer(workload, sites.source, ledger, check_interval_seconds=0.05)

    def done() -> bool:
        kinds = Counter(entry.kind for entry in ledger.entries() if entry.outcome is Outcome.COMMITTED)
        return all(kinds[kind.name] >= 25 for kind in workload.transactions) and observer.checks >= 5

    clients = crew(often, sites.source, ledger, clients=3, seed=11, rate_per_second=None, scale=SMALL)
    with watching(observer):
        with working(*clients):
            until(lambda: done() or ledger.failed > 0, f"{name}: 25 of each kind")
        until(lambda: ledger.unseen() == 0, "the observer to see every transaction")
    assert ledger.failures() == ()
    assert ledger.sightings() == ()
    assert ledger.counts()[Outcome.ROLLED_BACK] > 0
    verdict = ledger_verdict(ledger, workload, sites.source, sites.source)
    assert verdict.is_true
    assert verdict.committed == ledger.counts()[Outcome.COMMITTED]
    assert verdict.latency_p50_ms is not None
    with psycopg.connect(sites.source) as connection:
        journal = sql.Identifier(workload.schema, "journal")
        rows = connection.execute(
            sql.SQL("SELECT count(*), count(DISTINCT token) FROM {}").format(journal)
        ).fetchone()
    assert rows == (verdict.committed, verdict.committed)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_invariant_can_fail(sites: Sites, name: str) -> None:
    workload = fill(sites.source, name)
    # Seeding leaves some tables empty; a little of every kind of business fills them.
    with psycopg.connect(sites.source, autocommit=True) as connection:
        rng = Random(3)
        attempt = Attempt(workload, Ledger(), rng, client=1, scale=SMALL, habits=Habits(0, 0, 0, 0))
        for kind in workload.transactions:
            if kind.name not in {"trim_log", "discard_survey", "purge_payments"}:
                attempt.run(connection, kind)
    with psycopg.connect(sites.dsn(sites.database), autocommit=True) as connection:
        assert violated(connection, workload) == []
        for invariant in workload.invariants:
            with connection.transaction(force_rollback=True):
                # As a replica applies changes: no trigger fires, so nothing cascades.
                connection.execute("SET LOCAL session_replication_role = replica")
                connection.execute(invariant.torn_by.encode())
                assert connection.execute(invariant.sql.encode()).fetchall(), f"{invariant.name} cannot fail"


@pytest.mark.parametrize("name", ["treasury", "taxable_persons", "court_files"])
def test_a_copy_equals_its_source_in_every_table(sites: Sites, name: str) -> None:
    fill(sites.source, name)
    replica = sites.copy()
    compared = compare_tables(sites.source, replica)
    assert all(table.equal and table.source_rows == table.replica_rows for table in compared)
    with psycopg.connect(sites.source) as connection:
        (tables,) = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchone() or (0,)
        (roots,) = connection.execute("SELECT count(*) FROM pg_class WHERE relkind = 'p'").fetchone() or (0,)
    assert len(compared) == tables - roots
    sequences = compare_sequences(sites.source, replica)
    assert sequences
    assert all(sequence.source_value == sequence.replica_value for sequence in sequences)


TABLES = """
    CREATE TABLE public.fact (id integer PRIMARY KEY, amount numeric, shape box, note text);
    INSERT INTO public.fact SELECT i, i, '((2,1),(0,0))', 'row ' || i FROM generate_series(1, 20000) AS i;
    CREATE TABLE public.bag (value text);
    INSERT INTO public.bag VALUES ('twice'), ('twice'), (NULL);
    CREATE SCHEMA embassy; CREATE TABLE embassy.progress (head bytea);
    CREATE UNLOGGED TABLE public.passing (value text);
    CREATE SEQUENCE public.counter;
"""


@pytest.mark.parametrize(
    ("change", "table", "differences"),
    [
        ("UPDATE fact SET amount = 7.0 WHERE id = 7", "fact", {("source", "7"), ("replica", "7.0")}),
        ("UPDATE fact SET note = NULL WHERE id = 8", "fact", {("source", "row 8"), ("replica", ",8,,")}),
        (
            "UPDATE fact SET shape = '((1,2),(0,0))' WHERE id = 9",
            "fact",
            {("source", "(2,1)"), ("replica", "(1,2)")},
        ),
        ("DELETE FROM fact WHERE id = 10", "fact", {("source", "row 10")}),
        ("INSERT INTO bag VALUES ('twice')", "bag", {("replica", "(twice)")}),
        ("UPDATE bag SET value = 'twice' WHERE value IS NULL", "bag", {("source", "()"), ("replica", "(twice)")}),
    ],
)
def test_a_difference_that_equality_may_not_see_is_found_and_shown(
    sites: Sites, change: str, table: str, differences: set[tuple[str, str]]
) -> None:
    with psycopg.connect(sites.source) as connection:
        connection.execute(TABLES.encode())
    replica = sites.copy()
    with psycopg.connect(replica) as connection:
        connection.execute(change.encode())
    compared = {comparison.table: comparison for comparison in compare_tables(sites.source, replica)}
    assert set(compared) == {'"public"."fact"', '"public"."bag"'}
    found = compared[f'"public"."{table}"']
    assert {name for name, comparison in compared.items() if not comparison.equal} == {found.table}
    assert len(found.first_differences) == len(differences)
    shown = [(difference.side, difference.row) for difference in found.first_differences]
    assert all(any(side == s and text in row for s, row in shown) for side, text in differences)


def test_only_the_first_differences_are_shown(sites: Sites) -> None:
    with psycopg.connect(sites.source) as connection:
        connection.execute(TABLES.encode())
    replica = sites.copy()
    with psycopg.connect(replica) as connection:
        connection.execute("UPDATE fact SET note = note || '!'")
    found = next(table for table in compare_tables(sites.source, replica) if "fact" in table.table)
    assert (found.equal, found.source_rows, found.replica_rows) == (False, 20_000, 20_000)
    assert len(found.first_differences) == 5


def test_a_table_or_column_on_one_side_only_is_a_mismatch_and_the_order_of_columns_is_not(sites: Sites) -> None:
    with psycopg.connect(sites.source) as connection:
        connection.execute(TABLES.encode())
    replica = sites.copy()
    with psycopg.connect(replica) as connection:
        connection.execute(
            """
            CREATE TABLE other AS SELECT note, shape, amount, id FROM fact; DROP TABLE fact;
            ALTER TABLE other RENAME TO fact;
            ALTER TABLE bag ADD COLUMN more integer;
            CREATE TABLE extra (); SELECT nextval('counter')"""
        )
    with psycopg.connect(sites.source) as connection:
        connection.execute("CREATE TABLE fresh (id integer); INSERT INTO fresh VALUES (1)")
    compared = {table.table.split(".")[1].strip('"'): table for table in compare_tables(sites.source, replica)}
    assert compared["fact"].equal
    assert (compared["fresh"].equal, compared["fresh"].source_rows, compared["fresh"].replica_rows) == (
        False,
        1,
        None,
    )
    assert (compared["extra"].equal, compared["extra"].source_rows, compared["extra"].replica_rows) == (
        False,
        None,
        0,
    )
    assert "more" in compared["bag"].note
    assert [(s.source_value, s.replica_value) for s in compare_sequences(sites.source, replica)] == [(None, 1)]


def test_a_role_that_may_not_see_every_row_is_refused_instead_of_shown_fewer(sites: Sites) -> None:
    fill(sites.source, "population")
    role = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(sites.dsn(sites.database), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} IN ROLE pg_read_all_data".encode())
        try:
            connection.execute(f"GRANT {role} TO {OWNER}".encode())
            restricted = sites.source + f" options='-c role={role}'"
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                compare_tables(restricted, sites.source)
        finally:
            connection.execute(f"DROP ROLE {role}".encode())


def some_business(sites: Sites, name: str = "treasury", transactions: int = 40) -> tuple[RegistryWorkload, Ledger]:
    workload = fill(sites.source, name)
    ledger = Ledger()
    attempt = Attempt(workload, ledger, Random(2), client=1, scale=SMALL, habits=Habits(0.2, 0.2, 0.1, 0.1))
    with psycopg.connect(sites.source, autocommit=True) as connection:
        for turn in range(transactions):
            attempt.run(connection, workload.transactions[turn % len(workload.transactions)])
    return workload, ledger


def test_a_verdict_counts_what_is_lost_and_doubled_and_what_should_not_be_there(sites: Sites) -> None:
    workload, ledger = some_business(sites)
    whole, lossy, doubled, haunted, torn = (sites.copy() for _ in range(5))
    committed = [entry.token for entry in ledger.entries() if entry.outcome is Outcome.COMMITTED]
    rolled_back = [entry.token for entry in ledger.entries() if entry.outcome is Outcome.ROLLED_BACK]
    assert len(rolled_back) > 1
    verdict = ledger_verdict(ledger, workload, sites.source, whole)
    assert verdict.is_true
    assert (verdict.committed, verdict.applied, verdict.rolled_back) == (len(committed),) * 2 + (len(rolled_back),)

    with psycopg.connect(lossy) as connection:
        connection.execute("DELETE FROM treasury.journal WHERE token = ANY (%s)", (committed[:3],))
    verdict = ledger_verdict(ledger, workload, sites.source, lossy)
    assert (verdict.lost, verdict.applied, verdict.duplicated, verdict.torn) == (3, len(committed) - 3, 0, 0)
    assert not verdict.is_true

    with psycopg.connect(doubled) as connection:
        connection.execute(
            "INSERT INTO treasury.journal SELECT * FROM treasury.journal WHERE token = ANY (%s)", (committed[:2],)
        )
    verdict = ledger_verdict(ledger, workload, sites.source, doubled)
    assert (verdict.lost, verdict.duplicated, verdict.torn, verdict.is_true) == (0, 2, 0, False)

    with psycopg.connect(haunted) as connection:
        connection.cursor().executemany(
            "INSERT INTO treasury.journal VALUES (%s, 'transfer', 1, 999)", [(rolled_back[0],), (uuid.uuid4(),)]
        )
    verdict = ledger_verdict(ledger, workload, sites.source, haunted)
    assert (verdict.phantoms, verdict.torn, verdict.lost, verdict.is_true) == (2, 2, 0, False)

    with psycopg.connect(torn) as connection:
        connection.execute("UPDATE treasury.account SET balance = balance + 1 WHERE id = 3")
    verdict = ledger_verdict(ledger, workload, sites.source, torn)
    assert (verdict.torn, verdict.phantoms, verdict.is_true) == (2, 0, False)
    assert "balances_sum_to_zero" in verdict.torn_evidence[0]

    verdict = ledger_verdict(ledger, workload, lossy, lossy)
    assert (verdict.lost_at_source, verdict.is_true) == (3, False)


def test_an_observer_reports_a_transaction_shown_before_an_earlier_one(sites: Sites) -> None:
    workload = fill(sites.source, "business")
    ledger = Ledger()
    tokens = [uuid.uuid4() for _ in range(5)]
    outcomes = [Outcome.COMMITTED, Outcome.UNKNOWN, Outcome.COMMITTED, Outcome.COMMITTED, Outcome.COMMITTED]
    for sequence, (token, outcome) in enumerate(zip(tokens, outcomes, strict=True), start=1):
        ledger.enter(token, "rename", 4, sequence, now())
        ledger.settle(token, outcome, now())
    observer = Observer(workload, sites.source, ledger)

    def show(connection: Connection, *sequences: int) -> list[str]:
        connection.cursor().executemany(
            "INSERT INTO business.journal VALUES (%s, 'rename', 4, %s)", [(tokens[n - 1], n) for n in sequences]
        )
        observer.poll(connection)
        return [sighting.evidence for sighting in ledger.sightings()]

    with psycopg.connect(sites.source, autocommit=True) as connection:
        assert show(connection, 1) == []
        assert show(connection, 3) == []  # nobody knows yet whether 2 was committed
        assert show(connection, 2) == []  # it was, and shows late
        (evidence,) = show(connection, 5)
        assert "sequence 4" in evidence
        assert ledger.unseen() == 1
        assert len(show(connection, 4)) == 1
        assert ledger.unseen() == 0


def test_an_observer_reports_the_first_transaction_too_when_it_is_missing(sites: Sites) -> None:
    workload = fill(sites.source, "business")
    ledger = Ledger()
    for sequence in (8, 9):
        token = uuid.uuid4()
        ledger.enter(token, "rename", 1, sequence, now())
        ledger.settle(token, Outcome.COMMITTED, now())
    with psycopg.connect(sites.source, autocommit=True) as connection:
        connection.execute("INSERT INTO business.journal VALUES (%s, 'rename', 1, 9)", (token,))
        Observer(workload, sites.source, ledger).poll(connection)
    assert [sighting.invariant for sighting in ledger.sightings()] == ["commit_order"]


def test_a_commit_that_was_never_answered_is_settled_by_the_source(sites: Sites) -> None:
    workload = fill(sites.source, "treasury")
    ledger = Ledger()
    client = Client(workload, sites.source, ledger, client=1, seed=1, rate_per_second=None, scale=SMALL)
    with sites.lab.home.postgres.connect() as admin:
        admin.execute("SET synchronous_commit = local")
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            admin.execute("SELECT pg_reload_conf()")
            with working(client):
                for known in range(1, 4):
                    until(lambda: _waiting_for_standby(admin, sites.database) is not None, "a commit that waits")
                    admin.execute(
                        "SELECT pg_terminate_backend(%s, 10000)", (_waiting_for_standby(admin, sites.database),)
                    )
                    until(lambda known=known: len(ledger.unknown()) >= known, "the client to notice")  # type: ignore[misc]
                admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
                admin.execute("SELECT pg_reload_conf()")
                until(lambda: ledger.counts()[Outcome.COMMITTED] > 5, "the client to go on")
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")
    unknown = len(ledger.unknown())
    verdict = ledger_verdict(ledger, workload, sites.source, sites.source)
    assert verdict.resolved == unknown >= 3
    assert verdict.is_true
    assert ledger.unknown() == []
    assert ledger.failures() == ()


def _waiting_for_standby(admin: Connection, database: str) -> int | None:
    row = admin.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event = 'SyncRep'", (database,)
    ).fetchone()
    return None if row is None else int(row[0])


def test_clients_and_observers_outlive_kill_9_of_the_server(sites: Sites) -> None:
    workload = fill(sites.source, "land_register")
    ledger = Ledger()
    observer = Observer(workload, sites.source, ledger, check_interval_seconds=0.1)
    clients = crew(workload, sites.source, ledger, clients=3, seed=4, rate_per_second=None, scale=SMALL)
    with watching(observer), working(*clients):
        for _ in range(3):
            committed, checks = ledger.counts()[Outcome.COMMITTED], observer.checks
            until(lambda c=committed: ledger.counts()[Outcome.COMMITTED] > c + 50, "business")  # type: ignore[misc]
            until(lambda c=checks: observer.checks > c, "checks")  # type: ignore[misc]
            sites.lab.home.postgres.kill9()
            sites.lab.home.postgres.start()
        committed = ledger.counts()[Outcome.COMMITTED]
        until(lambda: ledger.counts()[Outcome.COMMITTED] > committed + 50, "business after the last crash")
    verdict = ledger_verdict(ledger, workload, sites.source, sites.source)
    assert verdict.is_true
    assert ledger.failures() == ()
    assert ledger.sightings() == ()


def test_a_client_that_waits_for_a_lock_stops_all_the_same(sites: Sites) -> None:
    workload = fill(sites.source, "treasury")
    ledger = Ledger()
    only = dataclasses.replace(workload, transactions=workload.transactions[:1])
    client = Client(only, sites.source, ledger, client=1, seed=1, rate_per_second=None, scale=SMALL)
    with psycopg.connect(sites.source) as blocker:
        blocker.execute("LOCK TABLE treasury.account")
        client.start()
        until(lambda: _blocked(sites) == 1, "the client to wait")
        client.stop(timeout_seconds=0.5)
    assert not client.is_alive()
    resolve_unknown(ledger, workload, sites.source)
    assert ledger.counts()[Outcome.COMMITTED] == 0


def _blocked(sites: Sites) -> int:
    with psycopg.connect(sites.dsn(sites.database)) as connection:
        (waiting,) = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() or (0,)
    return int(waiting)


def _fails_at_commit(connection: Connection, _rng: Random, _ticket: Ticket) -> None:
    connection.execute("INSERT INTO treasury.posting VALUES ('2026-01-01', -1, 1, 1, 1)")


def _goes_on_after_an_error(connection: Connection, _rng: Random, _ticket: Ticket) -> None:
    with contextlib.suppress(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    raise psycopg.errors.InFailedSqlTransaction


@pytest.mark.parametrize("body", [_fails_at_commit, _goes_on_after_an_error])
def test_a_transaction_that_fails_is_rolled_back_for_good_and_reported(sites: Sites, body: object) -> None:
    workload = fill(sites.source, "treasury")
    ledger = Ledger()
    kind = TransactionKind("broken", 1, body)  # type: ignore[arg-type]
    broken = dataclasses.replace(workload, transactions=(kind,))
    client = Client(broken, sites.source, ledger, client=1, seed=1, rate_per_second=None, scale=SMALL)
    with working(client):
        until(lambda: ledger.failed >= 10, "ten failures")
    counts = ledger.counts()
    assert counts[Outcome.COMMITTED] == 0
    assert counts[Outcome.ROLLED_BACK] >= 10
    assert "broken" in ledger.failures()[0]
    with psycopg.connect(sites.source) as connection:
        assert connection.execute("SELECT count(*) FROM treasury.journal").fetchone() == (0,)


def test_a_commit_answered_with_rollback_is_no_commit(sites: Sites) -> None:
    workload = fill(sites.source, "treasury")
    ledger = Ledger()

    def swallow(connection: Connection, _rng: Random, _ticket: Ticket) -> None:
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")

    class JournalFirst(Random):
        def random(self) -> float:
            return 0.4

    attempt = Attempt(workload, ledger, JournalFirst(), client=1, scale=SMALL, habits=Habits(0, 0, 0, 0))
    with psycopg.connect(sites.source, autocommit=True) as connection:
        outcome = attempt.run(connection, TransactionKind("swallow", 1, swallow))
    assert outcome is Outcome.ROLLED_BACK
    assert ledger.counts() == {Outcome.ROLLED_BACK: 1}


def test_a_second_run_continues_the_sequences_of_the_first(sites: Sites) -> None:
    workload, first = some_business(sites, transactions=10)
    last = max(entry.sequence for entry in first.entries() if entry.outcome is Outcome.COMMITTED)
    ledger = Ledger()
    observer = Observer(workload, sites.source, ledger)
    attempt = Attempt(workload, ledger, Random(2), client=1, scale=SMALL, habits=Habits(0, 0, 0, 0))
    with psycopg.connect(sites.source, autocommit=True) as connection:
        for kind in workload.transactions[:3]:
            attempt.run(connection, kind)
        observer.poll(connection)
    assert [entry.sequence for entry in ledger.entries()] == [last + 1, last + 2, last + 3]
    assert (ledger.unseen(), ledger.sightings()) == (0, ())
