"""Court files: a case counts its documents, and no room is booked twice.

Locks are taken in this order: cases by number, rooms by number.
"""

from __future__ import annotations

import hashlib
from random import Random
from uuid import UUID

from deploy.workload import material
from deploy.workload.registries.court_files_invariants import INVARIANTS
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind

_ROOMS = 12
_CASE_NUMBERS = 10**6
_ROLES = ("plaintiff", "defendant", "third person")


def _cases(scale: Scale) -> int:
    return max(scale.people // 5, 20)


def _seeded_case(scale: Scale, number: int) -> str:
    # Spread over all numbers, so that cases opened later fall between them and any may be picked.
    return f"2-26-{number * (_CASE_NUMBERS // _cases(scale)):06d}"


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Open a fifth as many cases as there are people, some with a document, and furnish the rooms."""
    connection.execute(
        "INSERT INTO court_files.room_calendar SELECT i, 0, '2027-01-01 08:00+02' FROM generate_series(1, %s) AS i",
        (_ROOMS,),
    )
    for number in range(_cases(scale)):
        case = _seeded_case(scale, number)
        _open(connection, rng, case)
        if number % 3 == 0:
            _file(connection, rng, case, UUID(int=rng.getrandbits(128)), rng.choice((0, 700, 9_000)))


def _open(connection: Connection, rng: Random, case: str) -> None:
    parties = [(case, role, 1, material.full_name(rng)) for role in _ROLES[: rng.randint(2, 3)]]
    connection.execute(
        'INSERT INTO court_files."case" (case_no, opened_at, parties, tags) VALUES (%s, now(), %s, %s)',
        (case, len(parties), rng.choice(([], ["urgent"], ["a,b", 'say "no"', "", "NULL"]))),
    )
    connection.cursor().executemany("INSERT INTO court_files.party VALUES (%s, %s, %s, %s)", parties)


def open_case(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A case is opened with its parties."""
    _open(connection, rng, f"2-26-{rng.randrange(_CASE_NUMBERS):06d}-{ticket.token.hex[:8]}")


def _pick(connection: Connection, rng: Random) -> str | None:
    """Lock a case at random and return its number."""
    found = connection.execute(
        'SELECT case_no FROM court_files."case" WHERE case_no >= %s ORDER BY case_no LIMIT 1 FOR UPDATE',
        (f"2-26-{rng.randrange(_CASE_NUMBERS):06d}",),
    ).fetchone()
    return None if found is None else str(found[0])


def _file(connection: Connection, rng: Random, case: str, document: UUID, size_bytes: int) -> None:
    content = rng.randbytes(size_bytes)
    connection.execute(
        "INSERT INTO court_files.document (id, case_no, title, content, sha256) VALUES (%s, %s, %s, %b, %b)",
        (document, case, material.phrase(rng, 5), content, hashlib.sha256(content).digest()),
    )
    _count(connection, case, 1, size_bytes)


def _count(connection: Connection, case: str, documents: int, size_bytes: int) -> None:
    connection.execute(
        """
        UPDATE court_files."case" SET documents = documents + %s, document_bytes = document_bytes + %s
        WHERE case_no = %s""",
        (documents, size_bytes, case),
    )


def file_document(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A document is filed."""
    case = _pick(connection, rng)
    if case is not None:
        _file(connection, rng, case, ticket.token, rng.choice((0, 100, 1_990, 2_010, 8_000, 50_000)))


def file_large_document(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A document of megabytes is filed."""
    case = _pick(connection, rng)
    if case is not None:
        size = rng.randint(ticket.scale.document_min_bytes, ticket.scale.document_max_bytes)
        _file(connection, rng, case, ticket.token, size)


def annotate(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The documents of a case are annotated; their contents stay as they are."""
    case = _pick(connection, rng)
    connection.execute(
        """
        UPDATE court_files.document SET annotations = annotations || to_jsonb(%s::text), sealed = NOT sealed
        WHERE case_no = %s AND jsonb_array_length(annotations) < 50""",
        (material.phrase(rng, 6), case),
    )


def replace_document(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A document gets new contents, or another identifier."""
    case = _pick(connection, rng)
    found = connection.execute(
        "SELECT id, octet_length(content) FROM court_files.document WHERE case_no = %s ORDER BY id LIMIT 1",
        (case,),
    ).fetchone()
    if case is None or found is None:
        return
    document, old_bytes = found
    if rng.random() < 0.5:
        connection.execute("UPDATE court_files.document SET id = %s WHERE id = %s", (ticket.token, document))
    else:
        content = rng.randbytes(rng.randint(1, 30_000))
        connection.execute(
            "UPDATE court_files.document SET content = %b, sha256 = %b WHERE id = %s",
            (content, hashlib.sha256(content).digest(), document),
        )
        _count(connection, case, 0, len(content) - old_bytes)


def schedule(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A hearing is scheduled in the first free hour of a room."""
    case = _pick(connection, rng)
    if case is None:
        return
    connection.execute(
        """
        WITH booked AS (
            UPDATE court_files.room_calendar SET hearings = hearings + 1, booked_until = booked_until + interval '1 hour'
            WHERE room = %s RETURNING room, booked_until
        )
        INSERT INTO court_files.hearing (case_no, room, during)
        SELECT %s, room, tstzrange(booked_until - interval '1 hour', booked_until) FROM booked""",
        (rng.randint(1, _ROOMS), case),
    )
    connection.execute(
        """UPDATE court_files."case" SET state = 'heard' WHERE case_no = %s AND state = 'opened'""", (case,)
    )


def trade_hearings(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """Two hearings of one case trade their times; until both have moved, the rooms are booked twice."""
    case = _pick(connection, rng)
    hearings = connection.execute(
        "SELECT id, room, during FROM court_files.hearing WHERE case_no = %s ORDER BY id LIMIT 2", (case,)
    ).fetchall()
    if len(hearings) == 2:
        (first, first_room, first_time), (second, second_room, second_time) = hearings
        for hearing, room, time in ((first, second_room, second_time), (second, first_room, first_time)):
            connection.execute(
                "UPDATE court_files.hearing SET room = %s, during = %s WHERE id = %s", (room, time, hearing)
            )


def _count_hearings(connection: Connection, changes: dict[int, int]) -> None:
    for room in sorted(changes):
        connection.execute(
            "UPDATE court_files.room_calendar SET hearings = hearings + %s WHERE room = %s", (changes[room], room)
        )


def rule(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The court rules on a case, or corrects its ruling."""
    case = _pick(connection, rng)
    if case is None:
        return
    connection.execute(
        """
        INSERT INTO court_files.ruling VALUES (%s, now(), %s, %s)
        ON CONFLICT (case_no) DO UPDATE SET ruled_at = excluded.ruled_at, costs = excluded.costs""",
        (case, material.prose(rng, rng.choice((50, 9_000))), rng.choice(("NaN", "0.00", "0", "1e3"))),
    )
    connection.execute(
        """UPDATE court_files."case" SET state = 'ruled', closed_at = 'infinity' WHERE case_no = %s""", (case,)
    )


def close(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A case that was ruled on is closed."""
    connection.execute(
        """UPDATE court_files."case" SET state = 'closed', closed_at = now() WHERE case_no = %s AND state = 'ruled'""",
        (_pick(connection, rng),),
    )


def transfer(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Another court takes a case, which gives it another number; everything in it follows."""
    case = _pick(connection, rng)
    connection.execute(
        'UPDATE court_files."case" SET case_no = %s WHERE case_no = %s',
        (f"2-26-{rng.randrange(_CASE_NUMBERS):06d}-{ticket.token.hex[:8]}", case),
    )


def purge(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A case is destroyed with everything in it."""
    case = _pick(connection, rng)
    booked = connection.execute(
        "SELECT room, count(*) FROM court_files.hearing WHERE case_no = %s GROUP BY room", (case,)
    ).fetchall()
    connection.execute('DELETE FROM court_files."case" WHERE case_no = %s', (case,))
    _count_hearings(connection, {room: -count for room, count in booked})


WORKLOAD = RegistryWorkload(
    name="court_files",
    schema="court_files",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("open_case", 80, open_case),
        TransactionKind("file_document", 150, file_document),
        TransactionKind("file_large_document", 3, file_large_document, heavy=True),
        TransactionKind("annotate", 120, annotate),
        TransactionKind("replace_document", 60, replace_document),
        TransactionKind("schedule", 120, schedule),
        TransactionKind("trade_hearings", 80, trade_hearings),
        TransactionKind("rule", 60, rule),
        TransactionKind("close", 40, close),
        TransactionKind("transfer", 30, transfer),
        TransactionKind("purge", 70, purge),
    ),
    invariants=INVARIANTS,
)
