"""Pension insurance: the year's budget always equals the pensions it pays, all of them of one generation.

Locks are taken in this order: the budget, a pension, an entitlement; a contribution, counties by name; a payment run.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from random import Random

from deploy.workload import material
from deploy.workload.registry import Connection, Invariant, RegistryWorkload, Scale, Ticket, TransactionKind

_COUNTIES = ("Harju", "Hiiu", "Ida-Viru", "Põlva", "Saare", "Tartu", "Võru")
_COUNT_CONTRIBUTION = """
    INSERT INTO pension_insurance.county_total AS t (county, contributions, amount) VALUES (%s, %s, %s)
    ON CONFLICT (county) DO UPDATE
    SET contributions = t.contributions + excluded.contributions, amount = t.amount + excluded.amount"""


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Grant ``scale.bulk_rows`` pensions and note what they cost."""
    connection.execute(
        """
        INSERT INTO pension_insurance.pension (person_code, kind, monthly, generation, service_length)
        SELECT '4' || lpad(i::text, 10, '0'), (enum_range(NULL::pension_insurance.pension_kind))[1 + i %% 3],
               200 + (i * 37 %% 90000) / 100.0, 1, make_interval(years => i %% 45, days => i %% 31)
        FROM generate_series(1, %s) AS i""",
        (scale.bulk_rows,),
    )
    connection.execute(
        """
        INSERT INTO pension_insurance.budget
        SELECT 2026, 1, count(*), sum(monthly) FROM pension_insurance.pension"""
    )
    connection.execute(
        "INSERT INTO pension_insurance.indexation VALUES (1, 1, %s, '2026-04-01')", (scale.bulk_rows,)
    )
    for number in range(1, scale.people // 10 + 1):
        begin = date(1990, 1, 1) + timedelta(days=rng.randrange(9_000))
        connection.execute(
            "INSERT INTO pension_insurance.entitlement (person_code, during, basis) VALUES (%s, daterange(%s, %s), %s)",
            (f"4{number:010d}", begin, begin + timedelta(days=rng.randrange(400, 4_000)), material.phrase(rng, 3)),
        )
        _contribute(connection, rng, f"4{number:010d}")


def _contribute(connection: Connection, rng: Random, person: str) -> None:
    county, amount = rng.choice(_COUNTIES), material.euros(rng, 1, 900)
    connection.execute(
        "INSERT INTO pension_insurance.contribution (county, person_code, month, amount) VALUES (%s, %s, %s, %s)",
        (county, person, date(2026, rng.randint(1, 12), 1), amount),
    )
    connection.execute(_COUNT_CONTRIBUTION, (county, 1, amount))


def _budget(connection: Connection) -> int:
    """Lock the budget, which serializes all changes of pensions; return their generation."""
    (generation,) = connection.execute(
        "SELECT generation FROM pension_insurance.budget WHERE year = 2026 FOR NO KEY UPDATE"
    ).fetchone() or (0,)
    return int(generation)


def _charge(connection: Connection, pensions: int, monthly: Decimal) -> None:
    connection.execute(
        """
        UPDATE pension_insurance.budget SET pensions = pensions + %s, monthly_total = monthly_total + %s
        WHERE year = 2026""",
        (pensions, monthly),
    )


def index_pensions(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """Every pension changes in one update; the budget and the record of indexations with it."""
    generation = _budget(connection) + 1
    coefficient = Decimal(rng.randint(970_000, 1_030_000)).scaleb(-6)
    updated = connection.execute(
        "UPDATE pension_insurance.pension SET monthly = greatest(round(monthly * %s, 2), 100), generation = %s",
        (coefficient, generation),
    ).rowcount
    connection.execute(
        """
        UPDATE pension_insurance.budget
        SET generation = %s, monthly_total = (SELECT sum(monthly) FROM pension_insurance.pension) WHERE year = 2026""",
        (generation,),
    )
    connection.execute(
        "INSERT INTO pension_insurance.indexation (generation, coefficient, pensions) VALUES (%s, %s, %s)",
        (generation, coefficient, updated),
    )


def grant_pension(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Someone retires."""
    generation = _budget(connection)
    monthly = material.euros(rng, 200, 1_500)
    person = f"5{ticket.token.int % 10**10:010d}"
    connection.execute(
        """
        INSERT INTO pension_insurance.pension (person_code, kind, monthly, generation, service_length)
        VALUES (%s, %s, %s, %s, %s)""",
        (person, "old age", monthly, generation, f"{rng.randrange(46)} years {rng.randrange(12)} mons -1 days"),
    )
    connection.execute(
        """
        INSERT INTO pension_insurance.entitlement (person_code, during, basis)
        VALUES (%s, daterange('2026-01-01', NULL), %s) ON CONFLICT DO NOTHING""",
        (person, material.phrase(rng, 3)),
    )
    _charge(connection, 1, monthly)


def end_pension(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A pension ends and its row goes."""
    _budget(connection)
    ended = connection.execute(
        """
        DELETE FROM pension_insurance.pension WHERE id =
            (SELECT id FROM pension_insurance.pension WHERE id >= %s ORDER BY id LIMIT 1)
        RETURNING monthly""",
        (rng.randint(1, ticket.scale.bulk_rows),),
    ).fetchone()
    if ended is not None:
        _charge(connection, -1, -ended[0])


def adjust_pension(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """One pension is raised by a fixed sum."""
    _budget(connection)
    raised_by = material.euros(rng, 1, 20)
    changed = connection.execute(
        """
        UPDATE pension_insurance.pension SET monthly = monthly + %s, paid_until = %s WHERE id =
            (SELECT id FROM pension_insurance.pension WHERE id >= %s ORDER BY id LIMIT 1)""",
        (raised_by, rng.choice(("infinity", "2030-12-31")), rng.randint(1, ticket.scale.bulk_rows)),
    ).rowcount
    _charge(connection, 0, raised_by * changed)


def contribute(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An employer pays a contribution."""
    _contribute(connection, rng, f"4{rng.randint(1, ticket.scale.people):010d}")


def move_contribution(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A contribution was booked in the wrong county: its key changes and often its partition."""
    found = connection.execute(
        """
        SELECT county, number, amount FROM pension_insurance.contribution WHERE county = %s
        ORDER BY number DESC OFFSET %s LIMIT 1 FOR UPDATE""",
        (rng.choice(_COUNTIES), rng.randrange(30)),
    ).fetchone()
    if found is None:
        return
    old, number, amount = found
    new = rng.choice([county for county in _COUNTIES if county != old])
    connection.execute(
        "UPDATE pension_insurance.contribution SET county = %s WHERE county = %s AND number = %s",
        (new, old, number),
    )
    for county, sign in sorted(((old, -1), (new, 1))):
        connection.execute(_COUNT_CONTRIBUTION, (county, sign, sign * amount))


def run_payments(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A file goes to the banks: keyless lines by COPY, many of them equal."""
    lines = rng.randint(10, 80)
    (run,) = connection.execute(
        "INSERT INTO pension_insurance.payment_run (lines) VALUES (%s) RETURNING run", (lines,)
    ).fetchone() or (0,)
    with connection.cursor().copy("COPY pension_insurance.payment_line (run, bank, amount) FROM STDIN") as copy:
        for _ in range(lines):
            copy.write_row((run, rng.choice(("Swed", "SEB", "LHV")), rng.choice((None, "NaN", "300", "300.00"))))


def return_payment(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A bank sends one payment back: one of several equal rows changes."""
    run = _pick_run(connection, rng)
    if run is None:
        return
    returned = connection.execute(
        """
        UPDATE pension_insurance.payment_line SET returned = true WHERE ctid = (
            SELECT ctid FROM pension_insurance.payment_line WHERE run = %s AND NOT returned LIMIT 1)""",
        (run,),
    ).rowcount
    connection.execute(
        "UPDATE pension_insurance.payment_run SET returned = returned + %s WHERE run = %s", (returned, run)
    )


def _pick_run(connection: Connection, rng: Random) -> int | None:
    found = connection.execute(
        "SELECT run FROM pension_insurance.payment_run ORDER BY run DESC OFFSET %s LIMIT 1 FOR UPDATE",
        (rng.randrange(12),),
    ).fetchone()
    return None if found is None else int(found[0])


def purge_payments(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """An old run and all its lines go."""
    run = _pick_run(connection, rng)
    if run is not None:
        connection.execute("DELETE FROM pension_insurance.payment_line WHERE run = %s", (run,))
        connection.execute("DELETE FROM pension_insurance.payment_run WHERE run = %s", (run,))


def extend_entitlement(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A period grows and gets a suspension; the period is part of the key."""
    connection.execute(
        """
        UPDATE pension_insurance.entitlement
        SET during = daterange(lower(during), upper(during) + %s),
            suspended = suspended + datemultirange(daterange(lower(during) + 10, lower(during) + %s))
        WHERE person_code = %s AND NOT upper_inf(during)""",
        (rng.randint(1, 9), rng.randint(11, 90), f"4{rng.randint(1, ticket.scale.people // 10):010d}"),
    )


WORKLOAD = RegistryWorkload(
    name="pension_insurance",
    schema="pension_insurance",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("index_pensions", 1, index_pensions, heavy=True),
        TransactionKind("grant_pension", 60, grant_pension),
        TransactionKind("end_pension", 60, end_pension),
        TransactionKind("adjust_pension", 120, adjust_pension),
        TransactionKind("contribute", 300, contribute),
        TransactionKind("move_contribution", 50, move_contribution),
        TransactionKind("run_payments", 30, run_payments),
        TransactionKind("return_payment", 60, return_payment),
        TransactionKind("purge_payments", 20, purge_payments),
        TransactionKind("extend_entitlement", 50, extend_entitlement),
    ),
    invariants=(
        Invariant(
            "budget_pays_every_pension",
            """
            SELECT b.*, p.* FROM pension_insurance.budget AS b,
                (SELECT count(*) AS pensions, sum(monthly) AS monthly_total, sum(yearly) AS yearly,
                        min(generation) AS oldest, max(generation) AS newest
                 FROM pension_insurance.pension) AS p
            WHERE (b.pensions, b.monthly_total, b.generation) IS DISTINCT FROM (p.pensions, p.monthly_total, p.oldest)
               OR p.oldest <> p.newest OR p.yearly <> 12 * p.monthly_total""",
            "UPDATE pension_insurance.pension SET generation = generation + 1 WHERE id % 2 = 0",
        ),
        Invariant(
            "budget_is_of_the_last_indexation",
            """
            SELECT b.generation FROM pension_insurance.budget AS b
            WHERE b.generation <> (SELECT max(generation) FROM pension_insurance.indexation)
               OR b.generation <> (SELECT count(*) FROM pension_insurance.indexation)""",
            "DELETE FROM pension_insurance.indexation WHERE generation = 1",
        ),
        Invariant(
            "counties_count_their_contributions",
            """
            SELECT county FROM pension_insurance.county_total AS t
            FULL JOIN (SELECT county, count(*) AS contributions, sum(amount) AS amount
                       FROM pension_insurance.contribution GROUP BY county) AS c USING (county)
            WHERE coalesce(t.contributions, 0) <> coalesce(c.contributions, 0)
               OR coalesce(t.amount, 0) <> coalesce(c.amount, 0)""",
            "UPDATE pension_insurance.contribution SET county = 'Saare' WHERE county = 'Harju'",
        ),
        Invariant(
            "runs_count_their_lines",
            """
            SELECT run FROM pension_insurance.payment_run AS r
            FULL JOIN (SELECT run, count(*) AS lines, count(*) FILTER (WHERE returned) AS returned
                       FROM pension_insurance.payment_line GROUP BY run) AS l USING (run)
            WHERE (r.lines, r.returned) IS DISTINCT FROM (l.lines, l.returned)""",
            "INSERT INTO pension_insurance.payment_run (lines) VALUES (1)",
        ),
    ),
)
