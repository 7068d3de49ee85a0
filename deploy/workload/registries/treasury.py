"""The treasury: money only moves, so all balances sum to zero.

Locks are taken in this order: a transfer, accounts by id, days by date.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from random import Random

from deploy.workload import material
from deploy.workload.registry import Connection, Invariant, RegistryWorkload, Scale, Ticket, TransactionKind

_FIRST_DAY = date(2025, 11, 1)
_DAYS = 480
_POST = """
    WITH header AS (
        INSERT INTO treasury.transfer (booked_on, purpose, reference) VALUES (%s, %s, %s)
        RETURNING booked_on, number
    )
    INSERT INTO treasury.posting (booked_on, number, line, account_id, amount)
    SELECT booked_on, number, line, account_id, amount
    FROM header, unnest(%s::integer[], %s::numeric[]) WITH ORDINALITY AS l (account_id, amount, line)"""
_BOOK = """
    UPDATE treasury.account AS a SET balance = a.balance + l.amount, postings = a.postings + 1
    FROM unnest(%s::integer[], %s::numeric[]) AS l (id, amount) WHERE a.id = l.id"""
_COUNT = """
    INSERT INTO treasury.daily_turnover AS d (day, transfers, turnover) VALUES (%s, %s, %s)
    ON CONFLICT (day) DO UPDATE
    SET transfers = d.transfers + excluded.transfers, turnover = d.turnover + excluded.turnover"""
_PICK = """
    SELECT booked_on, number FROM treasury.transfer WHERE booked_on >= %s
    ORDER BY booked_on, number OFFSET %s LIMIT 1"""


def _accounts(scale: Scale) -> int:
    return max(scale.people // 4, 30)


def _day(rng: Random) -> date:
    return _FIRST_DAY + timedelta(days=rng.randrange(_DAYS))


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Open the accounts and give each an opening transfer out of account 1."""
    count = _accounts(scale)
    connection.execute(
        """
        INSERT INTO treasury.account (iban, kind, holder, labels)
        SELECT 'EE' || to_char(i %% 90 + 10, 'FM00') || lpad(i::text, 16, '0'),
               (enum_range(NULL::treasury.account_kind))[1 + i %% 4], 'Office ' || i, ARRAY['opened', 'lot ' || i %% 7]
        FROM generate_series(1, %s) AS i""",
        (count,),
    )
    for account in range(2, count + 1):
        _transfer(connection, rng, [1, account], material.euros(rng, 1, 90_000), date(2026, 1, 2))


def _transfer(connection: Connection, rng: Random, accounts: list[int], each: Decimal, day: date) -> None:
    """Move ``each`` from the first account to every other one; the caller holds the locks it needs."""
    amounts = [-each * (len(accounts) - 1), *[each] * (len(accounts) - 1)]
    connection.execute(_BOOK, (accounts, amounts))
    reference = None if rng.random() < 0.5 else f'{{"no": {rng.randrange(10**6)}, "weight": 1.50}}'
    connection.execute(_POST, (day, material.phrase(rng, 4), reference, accounts, amounts))
    connection.execute(_COUNT, (day, 1, -amounts[0]))


def transfer(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """One account pays another."""
    accounts = rng.sample(range(1, _accounts(ticket.scale) + 1), 2)
    _lock(connection, accounts)
    _transfer(connection, rng, accounts, material.euros(rng, 1, 5_000), _day(rng))


def _lock(connection: Connection, accounts: list[int]) -> None:
    connection.execute(
        "SELECT id FROM treasury.account WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE", (accounts,)
    )


def pay_salaries(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """One account pays twenty others."""
    accounts = rng.sample(range(1, _accounts(ticket.scale) + 1), 21)
    _lock(connection, accounts)
    _transfer(connection, rng, accounts, material.euros(rng, 100, 3_000), _day(rng))


def redate_transfer(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A transfer was booked on the wrong day: its key changes, often together with its partition."""
    picked = _pick_transfer(connection, rng)
    if picked is None:
        return
    old_day, number, turnover = picked
    new_day = _day(rng)
    if new_day == old_day:
        return
    connection.execute(
        "UPDATE treasury.transfer SET booked_on = %s, corrects = number WHERE booked_on = %s AND number = %s",
        (new_day, old_day, number),
    )
    for day, sign in sorted(((old_day, -1), (new_day, 1))):
        connection.execute(_COUNT, (day, sign, sign * turnover))


def _pick_transfer(connection: Connection, rng: Random) -> tuple[date, int, Decimal] | None:
    """Lock a transfer at random; return its key and turnover, or None if another client was there first."""
    found = connection.execute(_PICK, (_day(rng), rng.randrange(50))).fetchone()
    if found is None:
        return None
    locked = connection.execute(
        "SELECT 1 FROM treasury.transfer WHERE booked_on = %s AND number = %s FOR UPDATE", found
    ).fetchone()
    if locked is None:
        return None
    (turnover,) = connection.execute(
        "SELECT sum(amount) FROM treasury.posting WHERE booked_on = %s AND number = %s AND amount > 0", found
    ).fetchone() or (None,)
    return None if turnover is None else (found[0], found[1], turnover)


def void_transfer(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A transfer is struck out: its postings go with it (cascade), the balances go back."""
    picked = _pick_transfer(connection, rng)
    if picked is None:
        return
    day, number, turnover = picked
    rows = connection.execute(
        "SELECT account_id, amount FROM treasury.posting WHERE booked_on = %s AND number = %s", (day, number)
    ).fetchall()
    accounts = [row[0] for row in rows]
    _lock(connection, accounts)
    connection.execute(
        """
        UPDATE treasury.account AS a SET balance = a.balance - l.amount, postings = a.postings - 1
        FROM unnest(%s::integer[], %s::numeric[]) AS l (id, amount) WHERE a.id = l.id""",
        (accounts, [row[1] for row in rows]),
    )
    connection.execute("DELETE FROM treasury.transfer WHERE booked_on = %s AND number = %s", (day, number))
    connection.execute(_COUNT, (day, -1, -turnover))


def quote_rates(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The day's exchange rates arrive, for some currencies twice."""
    currencies = sorted(rng.sample(("USD", "GBP", "SEK", "NOK", "PLN", "JPY", "XAU"), 4))
    day = _day(rng)
    for currency in currencies:
        rate = rng.choice(("NaN", "Infinity", "1.10", "1.1", f"{rng.random():.17f}", f"{rng.getrandbits(90)}"))
        spread = rng.choice((None, float("nan"), -0.0, 1e-300, rng.random()))
        connection.execute(
            """
            INSERT INTO treasury.exchange_rate (currency, valid_on, rate, spread) VALUES (%s, %s, %s, %s)
            ON CONFLICT (currency, valid_on) DO UPDATE
            SET rate = excluded.rate, spread = excluded.spread, quoted_for = '1 mon -1 day +02:03:04.5'""",
            (currency, day, rate, spread),
        )


def clear(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The clearing house's file replaces the last one: TRUNCATE, COPY, then repairs among equal rows."""
    connection.execute("TRUNCATE treasury.clearing_scratch")
    with connection.cursor().copy("COPY treasury.clearing_scratch (iban, amount, note) FROM STDIN") as copy:
        for _ in range(rng.randint(5, 60)):
            row = (f"EE{rng.randrange(10)}", Decimal(rng.randrange(5)), rng.choice((None, "", "\\N", "a\tb\n")))
            copy.write_row(row)
            copy.write_row(row)
    connection.execute(
        """
        UPDATE treasury.clearing_scratch SET amount = 'NaN'
        WHERE ctid = (SELECT ctid FROM treasury.clearing_scratch WHERE note IS NULL LIMIT 1)"""
    )
    connection.execute(
        """
        DELETE FROM treasury.clearing_scratch
        WHERE ctid = (SELECT ctid FROM treasury.clearing_scratch WHERE amount = 2 LIMIT 1)"""
    )


def receive_batches(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The batches of the day replace those of yesterday, whose numbers begin anew."""
    connection.execute("TRUNCATE treasury.clearing_batch RESTART IDENTITY CASCADE")
    for bank in rng.sample(("SEB", "LHV", "Coop", "Luminor"), rng.randint(0, 4)):
        connection.execute(
            """
            WITH batch AS (INSERT INTO treasury.clearing_batch (received_from) VALUES (%s) RETURNING id)
            INSERT INTO treasury.clearing_item (batch_id, amount)
            SELECT id, %s / n FROM batch, generate_series(1, %s) AS n""",
            (bank, material.euros(rng, 1, 100), rng.randint(1, 9)),
        )


def print_statements(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """One partition of the statements is emptied and some of it is printed again."""
    partition = rng.choice(("statement_0", "statement_1"))
    connection.execute(f"TRUNCATE treasury.{partition}".encode())
    connection.execute(
        """
        INSERT INTO treasury.statement SELECT id, now(), %s FROM treasury.account WHERE id %% 5 = %s
        ON CONFLICT (account_id) DO UPDATE SET printed_at = excluded.printed_at""",
        (material.prose(rng, rng.randint(10, ticket.scale.text_bytes // 20)), rng.randrange(5)),
    )


def relabel_hot_account(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """One account is touched many times in one transaction."""
    for _ in range(40):
        connection.execute(
            "UPDATE treasury.account SET labels = %s WHERE id = 1",
            ([material.phrase(rng, 1), 'with "quotes"', "with,comma", "NULL", ""][: rng.randint(0, 5)],),
        )


WORKLOAD = RegistryWorkload(
    name="treasury",
    schema="treasury",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("transfer", 600, transfer),
        TransactionKind("pay_salaries", 30, pay_salaries),
        TransactionKind("redate_transfer", 40, redate_transfer),
        TransactionKind("void_transfer", 40, void_transfer),
        TransactionKind("quote_rates", 40, quote_rates),
        TransactionKind("clear", 15, clear),
        TransactionKind("receive_batches", 10, receive_batches),
        TransactionKind("print_statements", 5, print_statements),
        TransactionKind("relabel_hot_account", 10, relabel_hot_account),
    ),
    invariants=(
        Invariant(
            "balances_sum_to_zero",
            "SELECT sum(balance) FROM treasury.account HAVING sum(balance) <> 0",
            "UPDATE treasury.account SET balance = balance + 0.01 WHERE id = 2",
        ),
        Invariant(
            "balance_is_the_sum_of_postings",
            """
            SELECT a.id FROM treasury.account AS a
            LEFT JOIN (SELECT account_id, sum(amount) AS amount, count(*) AS lines
                       FROM treasury.posting GROUP BY account_id) AS p ON p.account_id = a.id
            WHERE a.balance <> coalesce(p.amount, 0) OR a.postings <> coalesce(p.lines, 0)""",
            "UPDATE treasury.account SET balance = balance + CASE id WHEN 2 THEN 1 ELSE -1 END WHERE id IN (2, 3)",
        ),
        Invariant(
            "postings_of_a_transfer_sum_to_zero",
            "SELECT booked_on, number FROM treasury.posting GROUP BY booked_on, number HAVING sum(amount) <> 0",
            "UPDATE treasury.posting SET amount = amount + 1 WHERE line = 2",
        ),
        Invariant(
            "turnover_counts_every_transfer",
            """
            SELECT day, d.transfers, t.transfers, d.turnover, p.turnover
            FROM treasury.daily_turnover AS d
            FULL JOIN (SELECT booked_on AS day, count(*) AS transfers
                       FROM treasury.transfer GROUP BY booked_on) AS t USING (day)
            FULL JOIN (SELECT booked_on AS day, sum(amount) AS turnover
                       FROM treasury.posting WHERE amount > 0 GROUP BY booked_on) AS p USING (day)
            WHERE coalesce(d.transfers, 0) <> coalesce(t.transfers, 0)
               OR coalesce(d.turnover, 0) <> coalesce(p.turnover, 0)""",
            "UPDATE treasury.daily_turnover SET transfers = transfers + 1",
        ),
    ),
)
