"""The business register: every company has one chair, and its shares add up.

Locks are taken in this order: a company (with all that belongs to it), statuses in their order.
"""

from __future__ import annotations

import json
from random import Random

from deploy.workload import material
from deploy.workload.registries.business_invariants import INVARIANTS
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind

_STATUSES = ("founded", "active", "liquidation", "bankrupt")


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Found a quarter as many companies as there are people."""
    connection.cursor().executemany(
        "INSERT INTO business.status_count VALUES (%s, 0)", [(status,) for status in _STATUSES]
    )
    for _ in range(max(scale.people // 4, 20)):
        _found(connection, rng)


def _found(connection: Connection, rng: Random) -> None:
    (code,) = connection.execute("SELECT nextval('business.registry_code')").fetchone() or (0,)
    holders = rng.randint(1, 4)
    shares = [rng.randint(1, 400) for _ in range(holders)]
    status = rng.choice(_STATUSES[:2])
    connection.execute(
        """
        INSERT INTO business.company (registry_code, name, status, seat, shares, activity_codes, contacts)
        VALUES (%s, %s, %s, ROW(%s, %s, %s), %s, %s, %s)""",
        (
            code,
            material.company_name(rng, code),
            status,
            rng.choice(("Harju", None, "Ida-Viru, Narva")),
            material.phrase(rng, 2),
            f"{rng.randrange(10**5):05d}",
            sum(shares),
            sorted(rng.sample(range(1000, 99999), rng.randint(0, 4))),
            rng.choice(("", 'phone=>"+372 5555"', 'note=>NULL, "a=>b"=>"x,y"')),
        ),
    )
    board = [(code, _person(rng, n), n == 1, n, "2026-01-01") for n in range(1, rng.randint(2, 6))]
    connection.cursor().executemany("INSERT INTO business.board_member VALUES (%s, %s, %s, %s, %s)", board)
    connection.cursor().executemany(
        "INSERT INTO business.shareholder VALUES (%s, %s, %s)",
        [(code, _person(rng, n), count) for n, count in enumerate(shares)],
    )
    _count(connection, {status: 1})


def _person(rng: Random, distinct: int) -> str:
    return f"{rng.randrange(3, 7)}{rng.randrange(10**8):08d}{distinct:02d}"


def _count(connection: Connection, changes: dict[str, int]) -> None:
    for status in _STATUSES:
        if status in changes:
            connection.execute(
                "UPDATE business.status_count SET companies = companies + %s WHERE status = %s",
                (changes[status], status),
            )


def _pick(connection: Connection, rng: Random, ticket: Ticket) -> int | None:
    """Lock a company at random and return its code."""
    spread = max(ticket.scale.people // 4, 20)
    found = connection.execute(
        """
        SELECT registry_code FROM business.company
        WHERE registry_code >= (SELECT min(registry_code) FROM business.company) + %s
        ORDER BY registry_code LIMIT 1 FOR UPDATE""",
        (rng.randrange(spread),),
    ).fetchone()
    return None if found is None else int(found[0])


def found_company(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A company is founded, with its board and its shareholders."""
    _found(connection, rng)


def change_chair(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Another member of the board takes the chair; a partial unique index allows one at any time."""
    code = _pick(connection, rng, ticket)
    connection.execute(
        "UPDATE business.board_member SET chairs = false WHERE registry_code = %s AND chairs", (code,)
    )
    connection.execute(
        """
        UPDATE business.board_member SET chairs = true WHERE registry_code = %s AND person_code =
            (SELECT person_code FROM business.board_member WHERE registry_code = %s ORDER BY random() LIMIT 1)""",
        (code, code),
    )


def replace_board(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """The whole board goes and another comes."""
    code = _pick(connection, rng, ticket)
    if code is None:
        return
    connection.execute("DELETE FROM business.board_member WHERE registry_code = %s", (code,))
    size = rng.randint(1, 6)
    chair = rng.randint(1, size)
    connection.cursor().executemany(
        "INSERT INTO business.board_member VALUES (%s, %s, %s, %s, %s)",
        [(code, _person(rng, n), n == chair, n, "2026-11-01") for n in range(1, size + 1)],
    )
    _revise(connection, code)


def _revise(connection: Connection, code: int) -> None:
    connection.execute("UPDATE business.company SET revision = revision + 1 WHERE registry_code = %s", (code,))


def reorder_board(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Positions on the board are turned round, unique only at commit."""
    code = _pick(connection, rng, ticket)
    connection.execute(
        """
        UPDATE business.board_member AS b SET position = 1 + (SELECT count(*) FROM business.board_member AS o
            WHERE o.registry_code = b.registry_code) - position
        WHERE registry_code = %s""",
        (code,),
    )


def sell_shares(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A holder sells some shares, or all, to someone who may hold some already."""
    code = _pick(connection, rng, ticket)
    seller = connection.execute(
        "SELECT holder, shares FROM business.shareholder WHERE registry_code = %s ORDER BY random() LIMIT 1",
        (code,),
    ).fetchone()
    if code is None or seller is None:
        return
    holder, held = seller
    sold = held if rng.random() < 0.3 else rng.randint(1, held)
    if sold == held:
        connection.execute(
            "DELETE FROM business.shareholder WHERE registry_code = %s AND holder = %s", (code, holder)
        )
    else:
        connection.execute(
            "UPDATE business.shareholder SET shares = shares - %s WHERE registry_code = %s AND holder = %s",
            (sold, code, holder),
        )
    connection.execute(
        """
        INSERT INTO business.shareholder AS s VALUES (%s, %s, %s)
        ON CONFLICT (registry_code, holder) DO UPDATE SET shares = s.shares + excluded.shares""",
        (code, rng.choice((holder, "Riigi Fond AS", _person(rng, 99))), sold),
    )


def issue_shares(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """The capital is raised; every holder gets a part."""
    code = _pick(connection, rng, ticket)
    if code is None:
        return
    each = rng.randint(1, 10)
    holders = connection.execute(
        "UPDATE business.shareholder SET shares = shares + %s WHERE registry_code = %s", (each, code)
    ).rowcount
    connection.execute(
        "UPDATE business.company SET shares = shares + %s, revision = revision + 1 WHERE registry_code = %s",
        (each * holders, code),
    )


def file_report(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An annual report is filed, or replaced."""
    code = _pick(connection, rng, ticket)
    if code is None:
        return
    figures = json.dumps({"turnover": rng.random() * 1e9, " spaced ": [1, None, 1], "õ": material.phrase(rng, 2)})
    connection.execute(
        """
        INSERT INTO business.annual_report AS r VALUES (%s, %s, %s, %s)
        ON CONFLICT (registry_code, year) DO UPDATE SET figures = excluded.figures""",
        (code, rng.randint(2022, 2026), figures, rng.choice((None, "", material.prose(rng, 6_000)))),
    )


def rename(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A company's name changes, at times only in its letters' case."""
    code = _pick(connection, rng, ticket)
    if code is None:
        return
    if rng.random() < 0.5:
        connection.execute(
            "UPDATE business.company SET name = upper(name::text), revision = revision + 1 WHERE registry_code = %s",
            (code,),
        )
    else:
        connection.execute(
            "UPDATE business.company SET name = %s, revision = revision + 1 WHERE registry_code = %s",
            (material.company_name(rng, code), code),
        )


def renumber(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A company gets another code; every row that belongs to it follows."""
    code = _pick(connection, rng, ticket)
    connection.execute(
        """
        UPDATE business.company SET registry_code = nextval('business.registry_code'), revision = revision + 1
        WHERE registry_code = %s""",
        (code,),
    )


def change_status(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A company becomes active, bankrupt..."""
    code = _pick(connection, rng, ticket)
    found = connection.execute(
        "SELECT status::text FROM business.company WHERE registry_code = %s", (code,)
    ).fetchone()
    if code is None or found is None:
        return
    new = rng.choice([status for status in _STATUSES if status != found[0]])
    connection.execute("UPDATE business.company SET status = %s WHERE registry_code = %s", (new, code))
    _revise(connection, code)
    _count(connection, {found[0]: -1, new: 1})


def dissolve(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A company is struck off with all that belongs to it."""
    code = _pick(connection, rng, ticket)
    gone = connection.execute(
        "DELETE FROM business.company WHERE registry_code = %s RETURNING status::text", (code,)
    ).fetchone()
    if gone is not None:
        _count(connection, {gone[0]: -1})


def reserve_name(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Someone reserves a name; the oldest reservations lapse."""
    connection.execute(
        "INSERT INTO business.name_reservation VALUES (%s, %s, %s) ON CONFLICT (wanted, branch) DO NOTHING",
        (
            ticket.token,
            rng.choice(("MERI", "Meri", "meri", material.surname(rng))),
            rng.choice((None, "", "Tartu")),
        ),
    )
    if rng.random() < 0.2:
        connection.execute(
            """
            DELETE FROM business.name_reservation WHERE id IN (
                SELECT id FROM business.name_reservation ORDER BY id LIMIT 5 FOR UPDATE SKIP LOCKED)"""
        )


WORKLOAD = RegistryWorkload(
    name="business",
    schema="business",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("found_company", 60, found_company),
        TransactionKind("change_chair", 150, change_chair),
        TransactionKind("replace_board", 60, replace_board),
        TransactionKind("reorder_board", 60, reorder_board),
        TransactionKind("sell_shares", 150, sell_shares),
        TransactionKind("issue_shares", 50, issue_shares),
        TransactionKind("file_report", 80, file_report),
        TransactionKind("rename", 40, rename),
        TransactionKind("renumber", 30, renumber),
        TransactionKind("change_status", 60, change_status),
        TransactionKind("dissolve", 50, dissolve),
        TransactionKind("reserve_name", 60, reserve_name),
    ),
    invariants=INVARIANTS,
)
