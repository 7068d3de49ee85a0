"""The workload without a server: what it knows, deals, keeps and computes."""

from __future__ import annotations

import uuid
from collections import Counter
from random import Random

import psycopg
import pytest

from deploy.lab.registries_file import default_registries_file, read_registries
from deploy.workload import catalogue, material
from deploy.workload.attempt import is_expected, now
from deploy.workload.client import Deck, crew
from deploy.workload.ledger import Ledger, Moment, Outcome, Sighting
from deploy.workload.registry import TransactionKind
from deploy.workload.verdict import latencies_ms, percentile

NAMES = catalogue.names()


def test_every_registry_of_the_demonstration_has_a_business() -> None:
    assert set(NAMES) == set(read_registries(default_registries_file()))
    assert all(catalogue.workload(name).has_transactions for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_business_has_many_kinds_and_invariants_under_distinct_names(name: str) -> None:
    workload = catalogue.workload(name)
    assert workload.name == name
    kinds = [kind.name for kind in workload.transactions]
    assert len(kinds) == len(set(kinds)) >= 7
    assert all(kind.weight > 0 for kind in workload.transactions)
    invariants = [invariant.name for invariant in workload.invariants]
    assert len(invariants) == len(set(invariants)) >= 3
    assert f"CREATE TABLE {workload.schema}.journal" in catalogue.schema_sql(name)


def test_a_registry_of_which_only_sql_is_known_has_nothing_to_run() -> None:
    workload = catalogue.workload("eleventh")
    assert (workload.name, workload.schema, workload.transactions, workload.invariants) == ("eleventh", "", (), ())
    assert not workload.has_transactions
    with pytest.raises(FileNotFoundError):
        catalogue.schema_sql("eleventh")


def test_a_deck_deals_every_kind_as_often_as_its_weight_in_each_round() -> None:
    workload = catalogue.workload("pension_insurance")
    weights = {kind.name: kind.weight for kind in workload.transactions}
    deck = Deck(workload.transactions, Random(1))
    rounds = [Counter(deck.deal().name for _ in range(sum(weights.values()))) for _ in range(3)]
    assert rounds == [Counter(weights)] * 3


def test_a_crew_shares_one_deck_so_that_rare_kinds_come_in_every_round() -> None:
    workload = catalogue.workload("pension_insurance")
    clients = crew(workload, "", Ledger(), clients=3, seed=1)
    size = sum(kind.weight for kind in workload.transactions)
    dealt = [clients[turn % 3]._deck.deal().name for turn in range(size)]
    assert dealt.count("index_pensions") == 1


def test_decks_of_one_seed_deal_alike_and_of_another_do_not() -> None:
    kinds = tuple(TransactionKind(str(number), 5, lambda *_: None) for number in range(10))
    first, again, other = (Deck(kinds, Random(seed)) for seed in (1, 1, 2))
    dealt = [[deck.deal().name for _ in range(50)] for deck in (first, again, other)]
    assert dealt[0] == dealt[1] != dealt[2]


@pytest.mark.parametrize("size_bytes", [1, 100, 3_000, 60_000, 300_000])
def test_prose_has_the_size_that_was_asked_for(size_bytes: int) -> None:
    text = material.prose(Random(3), size_bytes)
    assert max(1, size_bytes - 3) <= len(text.encode()) <= size_bytes


def test_material_is_the_same_for_the_same_seed() -> None:
    def some(seed: int) -> tuple[object, ...]:
        rng = Random(seed)
        return (
            material.full_name(rng),
            material.phrase(rng, 5),
            material.euros(rng, 1, 9),
            material.prose(rng, 500),
        )

    assert some(1) == some(1) != some(2)


def test_a_ledger_follows_a_transaction_from_commit_to_the_replica() -> None:
    ledger, token = Ledger(), uuid.uuid4()
    ledger.enter(token, "sell", 2, 7, Moment(100, 1_000_000))
    assert [entry.outcome for entry in ledger.entries()] == [Outcome.PENDING]
    ledger.settle(token, Outcome.COMMITTED, Moment(200, 2_000_000))
    assert (ledger.unseen(), ledger.outcome_of(2, 7)) == (1, Outcome.COMMITTED)
    ledger.see([token, uuid.uuid4()], Moment(300, 6_500_000))
    ledger.see([token], Moment(400, 9_000_000))
    (entry,) = ledger.entries()
    assert (entry.first_seen, ledger.unseen()) == (Moment(300, 6_500_000), 0)
    assert latencies_ms(ledger.entries()) == [5.5]


def test_a_token_seen_before_its_commit_returned_is_not_waited_for() -> None:
    ledger, token = Ledger(), uuid.uuid4()
    ledger.enter(token, "sell", 1, 1, now())
    ledger.see([token], now())
    ledger.settle(token, Outcome.COMMITTED, now())
    assert ledger.unseen() == 0


def test_what_the_source_holds_settles_the_unknown() -> None:
    ledger = Ledger()
    there, gone, sure = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    for sequence, token in enumerate((there, gone, sure), start=1):
        ledger.enter(token, "sell", 1, sequence, now())
        ledger.settle(token, Outcome.COMMITTED if token == sure else Outcome.UNKNOWN, now())
    assert set(ledger.unknown()) == {there, gone}
    assert ledger.resolve({there}) == 2
    assert {entry.token: entry.outcome for entry in ledger.entries()} == {
        there: Outcome.COMMITTED,
        gone: Outcome.ROLLED_BACK,
        sure: Outcome.COMMITTED,
    }
    assert (ledger.unseen(), ledger.outcome_of(1, 2), ledger.unknown()) == (2, None, [])


def test_a_rolled_back_transaction_leaves_its_sequence_to_the_next() -> None:
    ledger, first, second = Ledger(), uuid.uuid4(), uuid.uuid4()
    ledger.enter(first, "sell", 1, 1, now())
    ledger.settle(first, Outcome.ROLLED_BACK, now())
    assert ledger.outcome_of(1, 1) is None
    ledger.roll_back(uuid.uuid4(), "sell", 1, 1)
    ledger.enter(second, "sell", 1, 1, now())
    ledger.settle(second, Outcome.COMMITTED, now())
    assert ledger.outcome_of(1, 1) is Outcome.COMMITTED
    assert ledger.first_sequences() == {1: 1}
    assert ledger.counts() == {Outcome.ROLLED_BACK: 2, Outcome.COMMITTED: 1}


def test_failures_and_sightings_are_kept_as_they_came() -> None:
    ledger = Ledger()
    for number in range(150):
        ledger.report_failure(str(number))
    sighting = Sighting("balances", "1", now())
    ledger.report_torn(sighting)
    assert ledger.sightings() == (sighting,)
    assert ledger.failures() == tuple(str(number) for number in range(100))
    assert ledger.failed == 150


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 5.0), (0.51, 6.0), (0.9, 9.0), (0.99, 10.0), (1.0, 10.0)]
)
def test_a_percentile_is_the_least_value_that_covers_the_share(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 11)], share) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.DeadlockDetected(),
        psycopg.errors.SerializationFailure(),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.ReadOnlySqlTransaction(),
        psycopg.OperationalError("server closed the connection unexpectedly"),
    ],
)
def test_crashes_and_lock_conflicts_are_expected_of_a_server(error: psycopg.Error) -> None:
    assert is_expected(error)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation(),
        psycopg.errors.UndefinedTable(),
        psycopg.errors.CheckViolation(),
        psycopg.ProgrammingError("the last operation did not produce a result"),
    ],
)
def test_a_broken_rule_is_a_defect_of_the_workload(error: psycopg.Error) -> None:
    assert not is_expected(error)
