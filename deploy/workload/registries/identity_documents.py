"""The identity documents register: a document's status is the last of its changes, a revoked one is on the list.

Locks are taken in this order: a document, the stock of blanks, a reader, the revocation list.
"""

from __future__ import annotations

from random import Random

from deploy.workload import material
from deploy.workload.registries.identity_documents_invariants import INVARIANTS
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind

_SERIES = ("AA", "KE", "PD", "Õ")
_BLANKS = 10**9
_READERS = 20
_KINDS = ("id card", "passport", "residence permit", "diplomatic passport")
_CHANGE = """
    WITH changed AS (
        UPDATE identity_documents.document SET status = %s, changes = changes + 1 WHERE number = %s
        RETURNING number, changes, status
    )
    INSERT INTO identity_documents.status_change (number, change, status, officer, effective_until)
    SELECT number, changes, status, %s, %s FROM changed"""


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Stock the blanks, install the readers and issue half as many documents as there are people."""
    connection.execute("INSERT INTO identity_documents.revocation_list VALUES (true, 1, 0, '2026-01-01')")
    for index, series in enumerate(_SERIES):
        first = index * _BLANKS
        connection.execute(
            """
            INSERT INTO identity_documents.blank_stock (series, numbers, next_number, kinds)
            VALUES (%s, int8range(%s, %s), %s, %s::identity_documents.document_kind[])""",
            (series, first, first + _BLANKS, first, list(_KINDS[: index + 1])),
        )
    for reader in range(_READERS):
        connection.execute(
            "INSERT INTO identity_documents.reader (reader, network) VALUES (%s, %s)",
            (_reader(reader), f"10.{reader}.0.0/16" if reader % 2 else f"2001:db8:{reader:x}::/48"),
        )
    for _ in range(max(scale.people // 2, 20)):
        _issue(connection, rng)


def _reader(number: int) -> str:
    return f"08:00:2b:01:02:{number:02x}"


def _issue(connection: Connection, rng: Random) -> None:
    series = rng.choice(_SERIES)
    (number,) = connection.execute(
        """
        UPDATE identity_documents.blank_stock SET next_number = next_number + 1, issued = issued + 1 WHERE series = %s
        RETURNING next_number - 1""",
        (series,),
    ).fetchone() or (0,)
    connection.execute(
        """
        WITH issued AS (
            INSERT INTO identity_documents.document (number, series, holder, kind, status, valid_for, certificate, chip)
            VALUES (%s, %s, %s, %s, 'valid', daterange('2026-01-01', %s, '[]'), %s, %s) RETURNING number
        )
        INSERT INTO identity_documents.status_change (number, change, status, officer)
        SELECT number, 1, 'valid', %s FROM issued""",
        (
            f"{series}{number:010d}",
            series,
            material.full_name(rng),
            rng.choice(_KINDS),
            rng.choice((None, "2031-01-01", "infinity")),
            f"-----BEGIN CERTIFICATE-----\n{rng.randbytes(rng.choice((400, 1500))).hex()}\n",
            rng.choice((None, b"", b"\x00\\x00'\xff", rng.randbytes(2_500))),
            _officer(rng),
        ),
    )


def _officer(rng: Random) -> str:
    return f"00000000-0000-4000-8000-{rng.randrange(50):012d}"


def issue(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A document is issued; the stock of blanks is a hot row."""
    _issue(connection, rng)


def _pick(connection: Connection, rng: Random) -> tuple[str, str, str] | None:
    """Lock a document at random; return its number, series and status."""
    series = rng.choice(_SERIES)
    issued = connection.execute(
        "SELECT lower(numbers), next_number FROM identity_documents.blank_stock WHERE series = %s", (series,)
    ).fetchone()
    if issued is None or issued[0] == issued[1]:
        return None
    return connection.execute(
        """
        SELECT number, series, status::text FROM identity_documents.document WHERE number >= %s
        ORDER BY number LIMIT 1 FOR UPDATE""",
        (f"{series}{rng.randrange(issued[0], issued[1]):010d}",),
    ).fetchone()


def suspend_or_reinstate(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A document is suspended, or a suspended one reinstated."""
    found = _pick(connection, rng)
    if found is None or found[2] == "revoked":
        return
    status = "valid" if found[2] == "suspended" else "suspended"
    until = rng.choice(("infinity", "2027-01-01 00:00:00+02", "-infinity"))
    connection.execute(_CHANGE, (status, found[0], _officer(rng), until))


def revoke(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A document is revoked: it goes on the list, whose version and count rise."""
    found = _pick(connection, rng)
    if found is None or found[2] == "revoked":
        return
    connection.execute(_CHANGE, ("revoked", found[0], _officer(rng), "infinity"))
    (version,) = connection.execute(
        """
        UPDATE identity_documents.revocation_list
        SET version = version + 1, entries = entries + 1, signed_at = clock_timestamp() RETURNING version"""
    ).fetchone() or (0,)
    connection.execute(
        "INSERT INTO identity_documents.revocation VALUES (%s, %s, %s)",
        (found[0], version, material.phrase(rng, 4)),
    )


def sign_list(connection: Connection, _rng: Random, _ticket: Ticket) -> None:
    """The list is signed thirty times over: one hot row in one transaction."""
    for _ in range(30):
        connection.execute(
            "UPDATE identity_documents.revocation_list SET version = version + 1, signed_at = clock_timestamp()"
        )


def correct_number(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A number was misread: the document's key changes and its history follows."""
    found = _pick(connection, rng)
    if found is not None:
        connection.execute(
            "UPDATE identity_documents.document SET number = %s WHERE number = %s",
            (f"{found[1]}{ticket.token.int % _BLANKS:010d}-{ticket.token.hex[:4]}", found[0]),
        )


def renew_chip(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The chip is written anew; the certificate stays as it is."""
    found = _pick(connection, rng)
    if found is not None:
        connection.execute(
            "UPDATE identity_documents.document SET chip = %s WHERE number = %s",
            (rng.randbytes(rng.choice((10, 3_000, 20_000))), found[0]),
        )


def forget(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """An expired document goes, with its changes and its entry on the list."""
    found = _pick(connection, rng)
    if found is None:
        return
    number, series, status = found
    connection.execute("DELETE FROM identity_documents.document WHERE number = %s", (number,))
    connection.execute(
        "UPDATE identity_documents.blank_stock SET issued = issued - 1 WHERE series = %s", (series,)
    )
    if status == "revoked":
        connection.execute(
            "UPDATE identity_documents.revocation_list SET version = version + 1, entries = entries - 1"
        )


def read(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A reader uploads its log: keyless lines, some of them equal."""
    reader, lines = _reader(rng.randrange(_READERS)), rng.randint(1, 12)
    connection.execute(
        "UPDATE identity_documents.reader SET log_lines = log_lines + %s WHERE reader = %s", (lines, reader)
    )
    with connection.cursor().copy("COPY identity_documents.reader_log FROM STDIN") as copy:
        for _ in range(lines):
            address = rng.choice(("10.0.0.1", "10.0.0.1/24", "::1", "2001:db8::ff/64"))
            trace = rng.choice((None, "", "101", "1" * rng.randrange(1, 99)))
            copy.write_row((reader, address, rng.choice((None, "AA1")), f"{rng.randrange(256):08b}", trace))


def flag_log(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """Some lines of a reader's log are flagged."""
    reader = _reader(rng.randrange(_READERS))
    connection.execute("SELECT 1 FROM identity_documents.reader WHERE reader = %s FOR NO KEY UPDATE", (reader,))
    connection.execute(
        "UPDATE identity_documents.reader_log SET flags = ~flags WHERE reader = %s AND address = '::1'", (reader,)
    )


def trim_log(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A reader's log is emptied."""
    reader = _reader(rng.randrange(_READERS))
    connection.execute("UPDATE identity_documents.reader SET log_lines = 0 WHERE reader = %s", (reader,))
    connection.execute("DELETE FROM identity_documents.reader_log WHERE reader = %s", (reader,))


WORKLOAD = RegistryWorkload(
    name="identity_documents",
    schema="identity_documents",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("issue", 200, issue),
        TransactionKind("suspend_or_reinstate", 150, suspend_or_reinstate),
        TransactionKind("revoke", 100, revoke),
        TransactionKind("sign_list", 10, sign_list),
        TransactionKind("correct_number", 40, correct_number),
        TransactionKind("renew_chip", 80, renew_chip),
        TransactionKind("forget", 130, forget),
        TransactionKind("read", 120, read),
        TransactionKind("flag_log", 30, flag_log),
        TransactionKind("trim_log", 40, trim_log),
    ),
    invariants=INVARIANTS,
)
