"""The taxable persons register: what a person owes is the sum of their ledger.

Locks are taken in this order: a person (with all that belongs to it), the upload's state.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random

from deploy.workload import material
from deploy.workload.registry import Connection, Invariant, RegistryWorkload, Scale, Ticket, TransactionKind

_CODES = 10**7
_KINDS = ("VAT", "Income tax", 'Excise "special"', "Social, 'other'")


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Register half as many persons as there are people, and a return of each fourth."""
    connection.execute(
        """
        INSERT INTO taxable_persons."Taxable Person" ("Code", "Name", "select")
        SELECT 'T' || lpad((i * %s)::text, 7, '0'), 'Isik ' || i, i %% 2 = 0 FROM generate_series(1, %s) AS i""",
        (_step(scale), _persons(scale)),
    )
    connection.execute('INSERT INTO "Tax Secret"."Upload State" VALUES (true, 0, 0)')
    for number in range(1, _persons(scale), 4):
        _file(connection, rng, _code(number * _step(scale)), f"seed {number}")


def _persons(scale: Scale) -> int:
    return max(scale.people // 2, 20)


def _step(scale: Scale) -> int:
    """Return the distance between the seed's codes, which are spread so that any person may be picked."""
    return (_CODES - 1) // _persons(scale)


def _code(number: int) -> str:
    return f"T{number:07d}"


def _pick(connection: Connection, rng: Random, ticket: Ticket) -> str | None:
    """Lock a person at random and return the code."""
    found = connection.execute(
        """
        SELECT "Code" FROM taxable_persons."Taxable Person" WHERE "Code" >= %s ORDER BY "Code" LIMIT 1 FOR UPDATE""",
        (_code(rng.randrange(_persons(ticket.scale) * _step(ticket.scale))),),
    ).fetchone()
    return None if found is None else str(found[0])


def _book(connection: Connection, code: str, receipt: str, amount: Decimal) -> None:
    """Write a ledger entry and change the balance by it."""
    connection.execute(
        'INSERT INTO taxable_persons."Ledger Entry" ("Receipt", "Code", "Amount") VALUES (%s, %s, %s)',
        (receipt, code, amount),
    )
    connection.execute(
        'UPDATE taxable_persons."Taxable Person" SET "Balance €" = "Balance €" + %s WHERE "Code" = %s',
        (amount, code),
    )


def _file(connection: Connection, rng: Random, code: str, receipt: str) -> None:
    lines = [material.euros(rng, -500, 4_000) for _ in range(rng.randint(1, 6))]
    (number,) = connection.execute(
        """
        INSERT INTO taxable_persons."Tax Return" ("Code", "Period", "Kind", "Total", "VAT %%", "the ""so-called"" note")
        VALUES (%s, daterange('2026-10-01', '2026-11-01'), %s, %s, %s, %s) RETURNING "Id" """,
        (
            code,
            rng.choice(_KINDS),
            sum(lines),
            rng.choice((None, 0, 22, 24)),
            rng.choice((None, material.phrase(rng, 3))),
        ),
    ).fetchone() or (0,)
    _write_lines(connection, number, lines)
    connection.execute(
        'UPDATE taxable_persons."Taxable Person" SET "Returns" = "Returns" + 1 WHERE "Code" = %s', (code,)
    )
    _book(connection, code, receipt, -sum(lines, Decimal(0)))


def _write_lines(connection: Connection, number: int, lines: list[Decimal]) -> None:
    connection.cursor().executemany(
        """
        INSERT INTO taxable_persons."return.line" ("Id", "№", "Amount") VALUES (%s, %s, %s)
        ON CONFLICT ("Id", "№") DO UPDATE SET "Amount" = excluded."Amount" """,
        [(number, line, amount) for line, amount in enumerate(lines, start=1)],
    )


def file_return(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A return is filed: its lines, its total and the debt it makes."""
    code = _pick(connection, rng, ticket)
    if code is not None:
        _file(connection, rng, code, f"return {ticket.token}")


def _pick_return(connection: Connection, code: str | None) -> tuple[int, Decimal] | None:
    return connection.execute(
        'SELECT "Id", "Total" FROM taxable_persons."Tax Return" WHERE "Code" = %s ORDER BY "Id" LIMIT 1', (code,)
    ).fetchone()


def amend_return(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A return's lines are replaced, some by more, some by fewer; the difference goes to the ledger."""
    code = _pick(connection, rng, ticket)
    found = _pick_return(connection, code)
    if code is None or found is None:
        return
    number, old_total = found
    lines = [material.euros(rng, -500, 4_000) for _ in range(rng.randint(1, 6))]
    _write_lines(connection, number, lines)
    connection.execute(
        'DELETE FROM taxable_persons."return.line" WHERE "Id" = %s AND "№" > %s', (number, len(lines))
    )
    total = sum(lines, Decimal(0))
    connection.execute(
        'UPDATE taxable_persons."Tax Return" SET "Total" = %s, "order" = "order" + 1 WHERE "Id" = %s',
        (total, number),
    )
    _book(connection, code, f"amendment {ticket.token}", old_total - total)


def strike_return(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A return is struck out with its lines (cascade); the ledger keeps both entries."""
    code = _pick(connection, rng, ticket)
    found = _pick_return(connection, code)
    if code is None or found is None:
        return
    connection.execute('DELETE FROM taxable_persons."Tax Return" WHERE "Id" = %s', (found[0],))
    connection.execute(
        'UPDATE taxable_persons."Taxable Person" SET "Returns" = "Returns" - 1 WHERE "Code" = %s', (code,)
    )
    _book(connection, code, f"struck {ticket.token}", found[1])


def pay(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A person pays."""
    code = _pick(connection, rng, ticket)
    if code is not None:
        _book(connection, code, f"payment '{ticket.token}'", material.euros(rng, 1, 3_000))


def pay_in_instalments(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """One person pays twenty times in one transaction."""
    code = _pick(connection, rng, ticket)
    for instalment in range(20 if code is not None else 0):
        _book(connection, code or "", f"instalment {ticket.token}/{instalment}", material.euros(rng, 1, 9))


def correct_receipt(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A receipt gets another name: the identity that changes are known by, though not the primary key."""
    code = _pick(connection, rng, ticket)
    connection.execute(
        """
        UPDATE taxable_persons."Ledger Entry" SET "Receipt" = %s WHERE "Surrogate" =
            (SELECT max("Surrogate") FROM taxable_persons."Ledger Entry" WHERE "Code" = %s)""",
        (f'corrected "{ticket.token}" õ', code),
    )


def recode_person(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A person's code changes; returns and ledger follow."""
    code = _pick(connection, rng, ticket)
    connection.execute(
        'UPDATE taxable_persons."Taxable Person" SET "Code" = %s, "select" = NOT "select" WHERE "Code" = %s',
        (f"T{rng.randrange(_CODES):07d}{ticket.token.hex[:8]}", code),
    )


def score(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Persons are scored, in another schema; the first time inserts, later ones update."""
    for number in sorted(rng.sample(range(1, _persons(ticket.scale) + 1), 5)):
        connection.execute(
            """
            INSERT INTO "Tax Secret"."Risk Score" AS s ("Code", "Score", "Reasons") VALUES (%s, %s, %s)
            ON CONFLICT ("Code") DO UPDATE SET "Score" = excluded."Score", "Scored" = s."Scored" + 1""",
            (
                _code(number),
                rng.choice((float("nan"), float("-inf"), rng.random())),
                [material.phrase(rng, 1), None],
            ),
        )


def upload(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """An upload replaces the last one whole: TRUNCATE and COPY, with the state that counts it."""
    rows = [
        (_code(rng.randrange(9)), material.euros(rng, 0, 9), material.phrase(rng, 2))
        for _ in range(rng.randrange(60))
    ]
    connection.execute('SELECT 1 FROM "Tax Secret"."Upload State" FOR NO KEY UPDATE')
    connection.execute('TRUNCATE "Tax Secret"."Upload"')
    with connection.cursor().copy('COPY "Tax Secret"."Upload" FROM STDIN') as copy:
        for row in rows:
            copy.write_row(row)
    connection.execute(
        'UPDATE "Tax Secret"."Upload State" SET "Rows" = %s, "Turnover" = %s',
        (len(rows), sum((row[1] for row in rows), Decimal(0))),
    )


def note(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A note is written, updated or deleted under names as long as names may be."""
    key = rng.randrange(50)
    table = '"A table whose name takes all of the sixty-three bytes there are"'
    column = '"A column whose name takes all of the sixty-three bytes there ar"'
    if rng.random() < 0.3:
        connection.execute(f"DELETE FROM taxable_persons.{table} WHERE {column} = %s".encode(), (key,))
    else:
        connection.execute(
            f"INSERT INTO taxable_persons.{table} VALUES (%s, %s) "
            f'ON CONFLICT ({column}) DO UPDATE SET "Value" = NULL'.encode(),
            (key, material.phrase(rng, 3)),
        )


WORKLOAD = RegistryWorkload(
    name="taxable_persons",
    schema="taxable_persons",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("file_return", 200, file_return),
        TransactionKind("amend_return", 100, amend_return),
        TransactionKind("strike_return", 80, strike_return),
        TransactionKind("pay", 200, pay),
        TransactionKind("pay_in_instalments", 10, pay_in_instalments),
        TransactionKind("correct_receipt", 60, correct_receipt),
        TransactionKind("recode_person", 30, recode_person),
        TransactionKind("score", 60, score),
        TransactionKind("upload", 20, upload),
        TransactionKind("note", 60, note),
    ),
    invariants=(
        Invariant(
            "balance_is_the_sum_of_the_ledger",
            """
            SELECT "Code" FROM taxable_persons."Taxable Person" AS p
            FULL JOIN (SELECT "Code", sum("Amount") AS amount FROM taxable_persons."Ledger Entry"
                       GROUP BY "Code") AS l USING ("Code")
            WHERE p."Balance €" IS NULL OR p."Balance €" <> coalesce(l.amount, 0)""",
            'UPDATE taxable_persons."Taxable Person" SET "Balance €" = "Balance €" + 1',
        ),
        Invariant(
            "returns_are_counted",
            """
            SELECT "Code" FROM taxable_persons."Taxable Person" AS p
            FULL JOIN (SELECT "Code", count(*) AS filed FROM taxable_persons."Tax Return"
                       GROUP BY "Code") AS r USING ("Code")
            WHERE p."Returns" IS NULL OR p."Returns" <> coalesce(r.filed, 0)""",
            'UPDATE taxable_persons."Taxable Person" SET "Returns" = "Returns" + 1',
        ),
        Invariant(
            "lines_add_up_to_their_return",
            """
            SELECT "Id" FROM taxable_persons."Tax Return" AS r
            FULL JOIN (SELECT "Id", sum("Amount") AS total, sum("Half") AS half, max("№") AS last, count(*) AS lines
                       FROM taxable_persons."return.line" GROUP BY "Id") AS l USING ("Id")
            WHERE r."Total" IS DISTINCT FROM l.total OR l.last <> l.lines OR l.half * 2 <> l.total""",
            """DELETE FROM taxable_persons."return.line" WHERE "№" = 1""",
        ),
        Invariant(
            "the_upload_is_whole",
            """
            SELECT s."Rows", u.* FROM "Tax Secret"."Upload State" AS s,
                (SELECT count(*) AS lines, coalesce(sum("Turnover"), 0) AS turnover FROM "Tax Secret"."Upload") AS u
            WHERE (s."Rows", s."Turnover") <> (u.lines, u.turnover)""",
            """INSERT INTO "Tax Secret"."Upload" VALUES ('half', 1, '')""",
        ),
    ),
    truncated=('"Tax Secret"."Upload"',),
)
