"""The state gazette: an issue's counts are those of the acts it holds.

Locks are taken in this order: issues by number, acts by id, a kind of notices, a subscriber.
"""

from __future__ import annotations

from random import Random

from deploy.workload import material
from deploy.workload.registry import Connection, Invariant, RegistryWorkload, Scale, Ticket, TransactionKind

_KINDS = ("act", "regulation", "decree", "treaty")
_SUBSCRIBERS = 40
_NOTICES = ("notice", "bankruptcy_notice", "auction_notice")


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Publish a few issues and let people subscribe."""
    connection.cursor().executemany(
        "INSERT INTO state_gazette.notice_count VALUES (%s, 0)", [(kind,) for kind in _NOTICES]
    )
    connection.execute(
        """
        INSERT INTO state_gazette.subscription (subscriber, keywords)
        SELECT 'reader ' || i, ARRAY['tax', 'land', NULL, 'NULL', ''] FROM generate_series(1, %s) AS i""",
        (_SUBSCRIBERS,),
    )
    for _ in range(max(scale.people // 100, 5)):
        _publish(connection, rng, text_bytes=20_000)


def _publish(connection: Connection, rng: Random, text_bytes: int) -> None:
    """Publish an issue; the first of its acts amends the last, which is written after it (a deferred reference)."""
    count = rng.randint(2, 6)
    (number,) = connection.execute("SELECT nextval('state_gazette.issue_number')").fetchone() or (0,)
    bodies = [material.prose(rng, rng.randint(200, text_bytes)) for _ in range(count)]
    pages = [rng.randint(1, 40) for _ in range(count)]
    connection.execute(
        "INSERT INTO state_gazette.issue VALUES (%s, clock_timestamp(), %s, %s, %s)",
        (number, count, sum(pages), sum(len(body.encode()) for body in bodies)),
    )
    ids = [
        row[0]
        for row in connection.execute(
            "SELECT nextval(pg_get_serial_sequence('state_gazette.act', 'id')) FROM generate_series(1, %s)",
            (count,),
        )
    ]
    for index, (act, body) in enumerate(zip(ids, bodies, strict=True)):
        connection.execute(
            """
            INSERT INTO state_gazette.act (id, issue, kind, title, pages, in_force, body, annex, amends)
            OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, tstzrange(%s, %s), %s, %s, %s)""",
            (
                act,
                number,
                rng.choice(_KINDS),
                material.phrase(rng, 8),
                pages[index],
                rng.choice((None, "2026-12-01", "-infinity")),
                rng.choice((None, "infinity")),
                body,
                rng.choice((None, "<annex a='1'>&lt; õ</annex>", "text <b/> and more")),
                ids[-1] if index == 0 else None,
            ),
        )


def publish(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An issue appears, with large texts."""
    _publish(connection, rng, ticket.scale.text_bytes)


def _pick_issue(connection: Connection, rng: Random, ticket: Ticket) -> int | None:
    found = connection.execute(
        "SELECT number FROM state_gazette.issue ORDER BY number OFFSET %s LIMIT 1 FOR UPDATE",
        (rng.randrange(max(ticket.scale.people // 100, 5)),),
    ).fetchone()
    return None if found is None else int(found[0])


def retitle(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Titles of an issue are corrected; the bodies stay as they are."""
    issue = _pick_issue(connection, rng, ticket)
    connection.execute(
        "UPDATE state_gazette.act SET title = %s WHERE issue = %s AND id %% 3 = %s",
        (material.phrase(rng, 6), issue, rng.randrange(3)),
    )


def correct_body(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """The text of an act is corrected, and the issue's size with it."""
    issue = _pick_issue(connection, rng, ticket)
    body = material.prose(rng, rng.randint(100, ticket.scale.text_bytes))
    connection.execute(
        "UPDATE state_gazette.act SET body = %s WHERE id = (SELECT min(id) FROM state_gazette.act WHERE issue = %s)",
        (body, issue),
    )
    connection.execute(
        """
        UPDATE state_gazette.issue SET text_bytes =
            (SELECT sum(octet_length(body)) FROM state_gazette.act WHERE issue = number) WHERE number = %s""",
        (issue,),
    )


def read(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An act is read, which is counted; the act with its large body is a hot row."""
    issue = _pick_issue(connection, rng, ticket)
    for _ in range(rng.choice((1, 1, 1, 10))):
        connection.execute(
            """
            UPDATE state_gazette.act SET readings = readings + 1
            WHERE id = (SELECT max(id) FROM state_gazette.act WHERE issue = %s)""",
            (issue,),
        )


def move_act(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An act goes to another issue; both issues count anew."""
    issues = connection.execute(
        """
        SELECT number, acts FROM state_gazette.issue WHERE number IN (
            SELECT number FROM state_gazette.issue ORDER BY number OFFSET %s LIMIT 2)
        ORDER BY number FOR UPDATE""",
        (rng.randrange(max(ticket.scale.people // 100, 5)),),
    ).fetchall()
    if len(issues) < 2 or issues[1][1] < 2:
        return
    to_issue, from_issue = issues[0][0], issues[1][0]
    pages, size = connection.execute(
        """
        UPDATE state_gazette.act SET issue = %s WHERE id = (SELECT max(id) FROM state_gazette.act WHERE issue = %s)
        RETURNING pages, octet_length(body)""",
        (to_issue, from_issue),
    ).fetchone() or (0, 0)
    for issue, sign in ((to_issue, 1), (from_issue, -1)):
        connection.execute(
            """
            UPDATE state_gazette.issue SET acts = acts + %s, pages = pages + %s, text_bytes = text_bytes + %s
            WHERE number = %s""",
            (sign, sign * pages, sign * size, issue),
        )


def swap_numbers(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Two issues were numbered the wrong way round: three changes of keys, each cascading to the acts."""
    numbers = [
        row[0]
        for row in connection.execute(
            """
            SELECT number FROM state_gazette.issue WHERE number IN (
                SELECT number FROM state_gazette.issue ORDER BY number OFFSET %s LIMIT 2)
            ORDER BY number FOR UPDATE""",
            (rng.randrange(max(ticket.scale.people // 100, 5)),),
        )
    ]
    if len(numbers) == 2:
        one, other = numbers
        for old, new in ((one, -one), (other, one), (-one, other)):
            connection.execute("UPDATE state_gazette.issue SET number = %s WHERE number = %s", (new, old))


def withdraw(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """An issue is withdrawn with all its acts."""
    issue = _pick_issue(connection, rng, ticket)
    connection.execute("DELETE FROM state_gazette.issue WHERE number = %s", (issue,))


def post_notice(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A notice is posted into the parent table or one of its children."""
    kind = rng.choice(_NOTICES)
    row: list[object] = [ticket.token, material.phrase(rng, 20)]
    if kind == "bankruptcy_notice":
        row += [material.full_name(rng), rng.choice((None, "NaN", "-Infinity", "12.50"))]
    if kind == "auction_notice":
        row += ["2027-01-01 10:00+02", rng.choice(("1:30", "P1Y2M", "-3 days"))]
    extra = ", %s" * (len(row) - 2)
    connection.execute(f"INSERT INTO state_gazette.{kind} VALUES (%s, %s, now(){extra})".encode(), row)
    _count_notices(connection, kind, 1)


def _count_notices(connection: Connection, kind: str, change: int) -> None:
    connection.execute(
        "UPDATE state_gazette.notice_count SET notices = notices + %s WHERE kind = %s", (change, kind)
    )


def expire_notices(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """The oldest notices of one table, and of it only, expire."""
    kind = rng.choice(_NOTICES)
    connection.execute("SELECT 1 FROM state_gazette.notice_count WHERE kind = %s FOR NO KEY UPDATE", (kind,))
    gone = connection.execute(
        f"DELETE FROM ONLY state_gazette.{kind} WHERE id IN "
        f"(SELECT id FROM ONLY state_gazette.{kind} ORDER BY posted_at LIMIT 4)".encode()
    ).rowcount
    _count_notices(connection, kind, -gone)


def edit_notices(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """Notices are edited through the parent table, which reaches the children too."""
    connection.execute(
        """
        UPDATE state_gazette.notice SET text = text || %s WHERE id IN (
            SELECT id FROM state_gazette.notice WHERE length(text) < 4000 ORDER BY id DESC LIMIT 3 FOR UPDATE)""",
        (material.phrase(rng, 2),),
    )


def visit(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A subscriber, old or new, looks at the last issue."""
    connection.execute(
        """
        INSERT INTO state_gazette.subscription AS s (subscriber, keywords) VALUES (%s, %s)
        ON CONFLICT (subscriber) DO UPDATE SET visits = s.visits + 1, keywords = excluded.keywords,
            last_issue = (SELECT max(number) FROM state_gazette.issue)""",
        (f"reader {rng.randrange(_SUBSCRIBERS * 2)}", material.phrase(rng, 3).split(" ")),
    )


WORKLOAD = RegistryWorkload(
    name="state_gazette",
    schema="state_gazette",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("publish", 12, publish),
        TransactionKind("retitle", 80, retitle),
        TransactionKind("correct_body", 30, correct_body),
        TransactionKind("read", 250, read),
        TransactionKind("move_act", 40, move_act),
        TransactionKind("swap_numbers", 15, swap_numbers),
        TransactionKind("withdraw", 10, withdraw),
        TransactionKind("post_notice", 150, post_notice),
        TransactionKind("expire_notices", 50, expire_notices),
        TransactionKind("edit_notices", 60, edit_notices),
        TransactionKind("visit", 120, visit),
    ),
    invariants=(
        Invariant(
            "issues_count_their_acts",
            """
            SELECT number FROM state_gazette.issue AS i
            FULL JOIN (SELECT issue AS number, count(*) AS acts, sum(pages) AS pages,
                              sum(octet_length(body)) AS text_bytes
                       FROM state_gazette.act GROUP BY issue) AS a USING (number)
            WHERE (i.acts, i.pages, i.text_bytes) IS DISTINCT FROM (a.acts, a.pages, a.text_bytes)""",
            "UPDATE state_gazette.act SET body = body || '!'",
        ),
        Invariant(
            "amended_acts_exist",
            """
            SELECT a.id FROM state_gazette.act AS a LEFT JOIN state_gazette.act AS b ON b.id = a.amends
            WHERE a.amends IS NOT NULL AND b.id IS NULL""",
            "UPDATE state_gazette.act SET amends = -1",
        ),
        Invariant(
            "notices_are_counted_in_their_own_table",
            """
            SELECT kind FROM state_gazette.notice_count AS c
            LEFT JOIN (SELECT split_part(tableoid::regclass::text, '.', 2) AS kind, count(*) AS notices
                       FROM state_gazette.notice GROUP BY tableoid) AS n USING (kind)
            WHERE c.notices <> coalesce(n.notices, 0)""",
            "INSERT INTO state_gazette.notice VALUES (gen_random_uuid(), '', now())",
        ),
    ),
)
