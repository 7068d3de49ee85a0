"""The land register: every property has one set of owners, whose shares sum to one.

Locks are taken in this order: a property (with all that belongs to it), creditors by name.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random

from deploy.workload import material
from deploy.workload.registries.land_register_invariants import INVARIANTS
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind

_CREDITORS = ("Coop Pank", "LHV", "Luminor", "Riik", "SEB", "Swedbank", "Šiaulių bankas", "Ühisus")
_SHARES = (
    ((1, 1),),
    ((1, 2), (1, 2)),
    ((1, 3), (2, 3)),
    ((1, 4), (1, 4), (1, 2)),
    ((1, 7), (2, 7), (4, 7)),
    ((1, 6), (1, 3), (1, 2)),
    ((1, 5040), (5039, 5040)),
)
_COMMON_DENOMINATOR = 5040
_INCREMENT = 7


def _properties(scale: Scale) -> int:
    return max(scale.people, 20)


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Enter as many properties as there are people, each with owners and some with mortgages."""
    connection.cursor().executemany(
        "INSERT INTO land_register.creditor_total VALUES (%s, 0)", [(creditor,) for creditor in _CREDITORS]
    )
    for number in range(_properties(scale)):
        _enter_property(connection, rng, f"seed:{number:07d}")


def _enter_property(connection: Connection, rng: Random, cadastral_code: str) -> None:
    (number,) = connection.execute(
        """
        INSERT INTO land_register.property (cadastral_code, description, attributes) VALUES (%s, %s, %s)
        RETURNING number""",
        (
            cadastral_code,
            rng.choice((None, "", material.phrase(rng, 5), material.prose(rng, 5_000))),
            rng.choice(("{}", '{"area": 1.0, "note": "\\u00e4\\n"}', '{"area": 1.00}')),
        ),
    ).fetchone() or (0,)
    _give_to(connection, rng, number)
    if rng.random() < 0.3:
        _add_mortgage(connection, rng, number)


def _give_to(connection: Connection, rng: Random, number: int) -> None:
    """Give a property without owners to new ones."""
    connection.cursor().executemany(
        "INSERT INTO land_register.owner (number, owner, numerator, denominator) VALUES (%s, %s, %s, %s)",
        [
            (number, f"{material.full_name(rng)} {index}", numerator, denominator)
            for index, (numerator, denominator) in enumerate(rng.choice(_SHARES))
        ],
    )
    _enter(connection, rng, number, "II")


def _enter(connection: Connection, rng: Random, number: int, part: str) -> None:
    """Write an entry into a part of the register and count it."""
    connection.execute(
        "INSERT INTO land_register.entry (part, number, made_on, body) VALUES (%s, %s, %s, %s)",
        (
            part,
            number,
            rng.choice(("2025-06-30", "2025-12-31", "2026-01-01", "2026-11-01")),
            material.phrase(rng, 12),
        ),
    )
    connection.execute("UPDATE land_register.property SET entries = entries + 1 WHERE number = %s", (number,))


def _add_mortgage(connection: Connection, rng: Random, number: int) -> None:
    creditor, amount = rng.choice(_CREDITORS), material.euros(rng, 1_000, 300_000)
    connection.execute(
        """
        WITH grown AS (
            UPDATE land_register.property SET mortgages = mortgages + 1, mortgaged = mortgaged + %s WHERE number = %s
            RETURNING mortgages
        )
        INSERT INTO land_register.mortgage (number, rank, creditor, amount) SELECT %s, mortgages, %s, %s FROM grown""",
        (amount, number, number, creditor, amount),
    )
    _enter(connection, rng, number, "IV")
    _owe(connection, {creditor: amount})


def _owe(connection: Connection, changes: dict[str, Decimal]) -> None:
    for creditor in sorted(changes):
        connection.execute(
            "UPDATE land_register.creditor_total SET amount = amount + %s WHERE creditor = %s",
            (changes[creditor], creditor),
        )


def _pick(connection: Connection, rng: Random, ticket: Ticket) -> int | None:
    """Lock a property at random and return its number."""
    found = connection.execute(
        """
        SELECT number FROM land_register.property
        WHERE number >= (SELECT min(number) FROM land_register.property) + %s
        ORDER BY number LIMIT 1 FOR UPDATE""",
        (rng.randrange(_properties(ticket.scale)) * _INCREMENT,),
    ).fetchone()
    return None if found is None else int(found[0])


def enter_property(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A new property is entered."""
    _enter_property(connection, rng, ticket.token.hex)


def sell(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A property is sold: one owner set replaces the other whole."""
    number = _pick(connection, rng, ticket)
    if number is not None:
        connection.execute("DELETE FROM land_register.owner WHERE number = %s", (number,))
        _give_to(connection, rng, number)


def inherit(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An owner has died: the heirs, who may own a part already, divide that share among themselves."""
    number = _pick(connection, rng, ticket)
    deceased = connection.execute(
        "SELECT owner, numerator, denominator FROM land_register.owner WHERE number = %s ORDER BY random() LIMIT 1",
        (number,),
    ).fetchone()
    if number is None or deceased is None:
        return
    owner, numerator, denominator = deceased
    heirs = rng.choice((1, 2, 3))
    if _COMMON_DENOMINATOR % (denominator * heirs):
        heirs = 1
    connection.execute("DELETE FROM land_register.owner WHERE number = %s AND owner = %s", (number, owner))
    for heir in range(heirs):
        connection.execute(
            "INSERT INTO land_register.owner (number, owner, numerator, denominator) VALUES (%s, %s, %s, %s)",
            (number, f"{material.full_name(rng)} {ticket.token.hex[:6]}{heir}", numerator, denominator * heirs),
        )
    _enter(connection, rng, number, "II")


def mortgage(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A property is mortgaged."""
    number = _pick(connection, rng, ticket)
    if number is not None:
        _add_mortgage(connection, rng, number)


def swap_ranks(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Mortgages trade ranks, unique only at the end of the transaction."""
    number = _pick(connection, rng, ticket)
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    ids = [
        row[0]
        for row in connection.execute(
            "SELECT id FROM land_register.mortgage WHERE number = %s ORDER BY id", (number,)
        ).fetchall()
    ]
    rng.shuffle(ids)
    for rank, mortgage_id in enumerate(ids, start=1):
        connection.execute("UPDATE land_register.mortgage SET rank = %s WHERE id = %s", (rank, mortgage_id))


def redeem(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """The first mortgage is paid back; those behind it move up in one statement."""
    number = _pick(connection, rng, ticket)
    paid = connection.execute(
        "DELETE FROM land_register.mortgage WHERE number = %s AND rank = 1 RETURNING creditor, amount", (number,)
    ).fetchone()
    if number is None or paid is None:
        return
    connection.execute("UPDATE land_register.mortgage SET rank = rank - 1 WHERE number = %s", (number,))
    connection.execute(
        "UPDATE land_register.property SET mortgages = mortgages - 1, mortgaged = mortgaged - %s WHERE number = %s",
        (paid[1], number),
    )
    _owe(connection, {paid[0]: -paid[1]})


def renumber(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A property gets another number; owners, mortgages and entries follow."""
    number = _pick(connection, rng, ticket)
    connection.execute(
        """
        UPDATE land_register.property SET number = nextval('land_register.property_number'), description = description
        WHERE number = %s""",
        (number,),
    )


def refile_entry(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An entry stood in the wrong part: it moves to another partition or one of its partitions."""
    number = _pick(connection, rng, ticket)
    connection.execute(
        """
        UPDATE land_register.entry SET part = %s, made_on = %s WHERE (part, id) =
            (SELECT part, id FROM land_register.entry WHERE number = %s ORDER BY id LIMIT 1)""",
        (rng.choice(("I", "II", "III", "IV")), rng.choice(("2020-02-29", "2026-02-28", "infinity")), number),
    )


def describe(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A property's attributes change beside its description, or the description itself."""
    number = _pick(connection, rng, ticket)
    if rng.random() < 0.3:
        text = material.prose(rng, rng.randint(100, ticket.scale.text_bytes // 2))
        connection.execute("UPDATE land_register.property SET description = %s WHERE number = %s", (text, number))
    else:
        connection.execute(
            "UPDATE land_register.property SET attributes = attributes || %s WHERE number = %s",
            (f'{{"use": "{rng.choice(("forest", "field"))}", "price": {rng.random()}}}', number),
        )


def strike_out(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A property ceases to exist, with all that was entered about it."""
    number = _pick(connection, rng, ticket)
    owed = connection.execute(
        "SELECT creditor, sum(amount) FROM land_register.mortgage WHERE number = %s GROUP BY creditor", (number,)
    ).fetchall()
    connection.execute("DELETE FROM land_register.property WHERE number = %s", (number,))
    _owe(connection, {creditor: -amount for creditor, amount in owed})


def set_fees(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """Fees are set; their codes are numbers, whose scale is not part of them."""
    for code in sorted({Decimal(rng.randrange(40)) / 2 for _ in range(5)}):
        connection.execute(
            """
            INSERT INTO land_register.fee VALUES (%s, %s, %s)
            ON CONFLICT (code) DO UPDATE SET euros = excluded.euros, title = excluded.title""",
            (code, material.phrase(rng, 2), rng.choice((None, Decimal("NaN"), material.euros(rng, 1, 50)))),
        )


WORKLOAD = RegistryWorkload(
    name="land_register",
    schema="land_register",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("enter_property", 60, enter_property),
        TransactionKind("sell", 150, sell),
        TransactionKind("inherit", 150, inherit),
        TransactionKind("mortgage", 100, mortgage),
        TransactionKind("swap_ranks", 80, swap_ranks),
        TransactionKind("redeem", 80, redeem),
        TransactionKind("renumber", 30, renumber),
        TransactionKind("refile_entry", 60, refile_entry),
        TransactionKind("describe", 60, describe),
        TransactionKind("strike_out", 50, strike_out),
        TransactionKind("set_fees", 30, set_fees),
    ),
    invariants=INVARIANTS,
)
