"""The population register: people are born, move, marry and die, and every count follows.

Locks are taken in this order: a marriage, persons by code, residences by id, the year's statistics.
"""

from __future__ import annotations

from random import Random

from deploy.workload import material
from deploy.workload.registries.population_invariants import INVARIANTS
from deploy.workload.registry import Connection, RegistryWorkload, Scale, Ticket, TransactionKind

_STEP = 9_973
_CHARACTERISTICS = ('{"protected": true}', '{"mobile": null, "e": 1e400}', '{"languages": ["et", "ru"]}', "{}")


def _homes(scale: Scale) -> int:
    return max(scale.people // 3, 10)


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Settle ``scale.people`` people in a third as many homes and marry a tenth of them."""
    connection.execute(
        "INSERT INTO population.residence SELECT i, 'Pikk ' || i || ', Tallinn' FROM generate_series(1, %s) AS i",
        (_homes(scale),),
    )
    people = [
        (
            _seeded_code(number),
            material.given_name(rng),
            material.surname(rng),
            rng.choice("FM"),
            rng.randint(0, 20_000),
            ["EST"] if rng.random() < 0.9 else ["EST", "FIN"][: rng.randrange(3)],
            rng.randint(1, _homes(scale)),
            rng.choice(_CHARACTERISTICS),
            rng.randbytes(rng.choice((0, 10, 3_000, 9_000))),
        )
        for number in range(1, scale.people + 1)
    ]
    connection.cursor().executemany(
        """
        INSERT INTO population.person (personal_code, given_name, surname, sex, born, citizenships, residence_id,
                                       details, photo)
        VALUES (%s, %s, %s, %s, date '1950-01-01' + %s, %s, %s, %s, %s)""",
        people,
    )
    connection.execute(
        """
        UPDATE population.residence AS r SET residents = p.residents
        FROM (SELECT residence_id, count(*) AS residents FROM population.person GROUP BY 1) AS p
        WHERE p.residence_id = r.id"""
    )
    connection.execute("INSERT INTO population.vital_statistics (year, living) VALUES (2026, %s)", (scale.people,))
    for number in range(1, scale.people // 10, 2):
        _wed(connection, _seeded_code(number), _seeded_code(number + 1))


def _seeded_code(number: int) -> str:
    return f"3{number * _STEP:010d}"


def _code(ticket: Ticket) -> str:
    """Return a code between those of the seed, so that whoever is born later may be picked too."""
    return f"3{ticket.token.int % ((ticket.scale.people + 1) * _STEP):010d}"


def _wed(connection: Connection, first: str, second: str) -> int:
    connection.execute(
        "UPDATE population.person SET status = 'married' WHERE personal_code = ANY (%s)", ([first, second],)
    )
    (marriage,) = connection.execute(
        """
        INSERT INTO population.marriage (first_spouse, second_spouse, during)
        VALUES (%s, %s, daterange('2026-06-01', NULL))
        RETURNING id""",
        (first, second),
    ).fetchone() or (0,)
    return int(marriage)


def _pick(connection: Connection, rng: Random, ticket: Ticket, *, where: str = "died = 'infinity'") -> str | None:
    """Return the code of a person at random, not locked."""
    found = connection.execute(
        f"SELECT personal_code FROM population.person WHERE personal_code >= %s AND {where} "
        "ORDER BY personal_code LIMIT 1".encode(),
        (_seeded_code(rng.randint(1, ticket.scale.people)),),
    ).fetchone()
    return None if found is None else str(found[0])


def _lock(
    connection: Connection, people: list[str], strength: str = "NO KEY UPDATE"
) -> list[tuple[str, str, int]]:
    """Lock living people by code and return (code, marital status, residence) of each that is still there."""
    return connection.execute(
        "SELECT personal_code::text, status::text, residence_id FROM population.person "
        f"WHERE personal_code = ANY (%s) AND died = 'infinity' ORDER BY personal_code FOR {strength}".encode(),
        (people,),
    ).fetchall()


def _settle(connection: Connection, changes: dict[int, int]) -> None:
    for residence in sorted(changes):
        connection.execute(
            "UPDATE population.residence SET residents = residents + %s WHERE id = %s",
            (changes[residence], residence),
        )


def bear(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A child is born to two people and lives with the first."""
    parents = [_pick(connection, rng, ticket), _pick(connection, rng, ticket)]
    known = _lock(connection, [code for code in parents if code is not None], "KEY SHARE")
    if len(known) < 2:
        return
    home = known[0][2]
    (child,) = connection.execute(
        """
        INSERT INTO population.person (personal_code, given_name, surname, sex, born, citizenships, residence_id)
        VALUES (%s, %s, %s, %s, '2026-11-01', '{EST}', %s) ON CONFLICT DO NOTHING RETURNING personal_code""",
        (_code(ticket), material.given_name(rng), material.surname(rng), rng.choice("FM"), home),
    ).fetchone() or (None,)
    if child is None:
        return
    connection.cursor().executemany(
        "INSERT INTO population.kinship VALUES (%s, %s)", [(code, child) for code, _, _ in known]
    )
    _settle(connection, {home: 1})
    connection.execute(
        "UPDATE population.vital_statistics SET births = births + 1, living = living + 1 WHERE year = 2026"
    )


def die(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Someone dies; a marriage ends and leaves a widow or widower."""
    person = _pick(connection, rng, ticket)
    if person is None:
        return
    marriage = _lock_marriage(connection, person)
    spouses = [person] if marriage is None else list(marriage[1:])
    present = {code: (status, home) for code, status, home in _lock(connection, spouses)}
    if person not in present or (present[person][0] == "married") != (marriage is not None):
        return  # another client was faster; the marriage seen is no longer the one that is
    connection.execute("UPDATE population.person SET died = '2026-11-02' WHERE personal_code = %s", (person,))
    if marriage is not None:
        _end_marriage(connection, marriage, dict.fromkeys(spouses, "widowed"))
    _settle(connection, {present[person][1]: -1})
    connection.execute(
        "UPDATE population.vital_statistics SET deaths = deaths + 1, living = living - 1 WHERE year = 2026"
    )


def _lock_marriage(connection: Connection, spouse: str) -> tuple[int, str, str] | None:
    return connection.execute(
        """
        SELECT id, first_spouse::text, second_spouse::text FROM population.marriage
        WHERE %s IN (first_spouse, second_spouse) AND upper_inf(during) FOR UPDATE""",
        (spouse,),
    ).fetchone()


def _end_marriage(connection: Connection, marriage: tuple[int, str, str], statuses: dict[str, str]) -> None:
    connection.execute(
        "UPDATE population.marriage SET during = daterange(lower(during), '2026-11-02') WHERE id = %s",
        (marriage[0],),
    )
    for person in sorted(statuses):
        connection.execute(
            "UPDATE population.person SET status = %s WHERE personal_code = %s", (statuses[person], person)
        )


def marry(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Two people marry, usually with a ceremony that no other may overlap."""
    free = "died = 'infinity' AND status <> 'married'"
    couple = sorted(
        {_pick(connection, rng, ticket, where=free) or "", _pick(connection, rng, ticket, where=free) or ""}
    )
    present = _lock(connection, couple)
    if len(present) < 2 or any(status == "married" for _, status, _ in present):
        return
    marriage = _wed(connection, couple[0], couple[1])
    connection.execute(
        """
        INSERT INTO population.ceremony
        SELECT %s, tstzrange(t, t + interval '30 min'), %s
        FROM (SELECT timestamptz '2026-01-01' + %s * interval '10 min' AS t) AS slot ON CONFLICT DO NOTHING""",
        (ticket.token, marriage, rng.randrange(100_000)),
    )


def divorce(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A marriage is dissolved, or struck out with its ceremony."""
    person = _pick(connection, rng, ticket, where="status = 'married' AND died = 'infinity'")
    marriage = None if person is None else _lock_marriage(connection, person)
    if marriage is None or len(_lock(connection, list(marriage[1:]))) < 2:
        return
    _end_marriage(connection, marriage, dict.fromkeys(marriage[1:], "divorced"))
    if rng.random() < 0.3:
        connection.execute("DELETE FROM population.marriage WHERE id = %s", (marriage[0],))


def move(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Up to four people move together; their photographs stay as they are."""
    people = [_pick(connection, rng, ticket) or "" for _ in range(rng.randint(1, 4))]
    present = _lock(connection, people)
    target = rng.randint(1, _homes(ticket.scale))
    changes: dict[int, int] = {}
    for code, _, home in present:
        connection.execute(
            "UPDATE population.person SET residence_id = %s WHERE personal_code = %s", (target, code)
        )
        changes[home] = changes.get(home, 0) - 1
        changes[target] = changes.get(target, 0) + 1
    _settle(connection, changes)


def photograph(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Someone gets a new photograph."""
    photo = rng.randbytes(rng.randint(1_000, ticket.scale.text_bytes))
    connection.execute(
        "UPDATE population.person SET photo = %s WHERE personal_code = %s", (photo, _pick(connection, rng, ticket))
    )


def amend_details(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """Someone's details change several times in a row."""
    person = _pick(connection, rng, ticket)
    for _ in range(rng.choice((1, 1, 1, 12))):
        connection.execute(
            """
            UPDATE population.person SET details = details || jsonb_build_object(%s::text, %s::text)
            WHERE personal_code = %s""",
            (rng.choice(("e-mail", "note", "ключ")), material.phrase(rng, 3), person),
        )


def correct_code(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A personal code was wrong; kin and marriages follow the new one."""
    person = _pick(connection, rng, ticket)
    if person is None:
        return
    connection.execute(
        "SELECT 1 FROM population.marriage WHERE %s IN (first_spouse, second_spouse) ORDER BY id FOR UPDATE",
        (person,),
    )
    connection.execute(
        """
        UPDATE population.person SET personal_code = '6' || lpad(nextval('population.birth_number')::text, 10, '0')
        WHERE personal_code = %s""",
        (person,),
    )


WORKLOAD = RegistryWorkload(
    name="population",
    schema="population",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("bear", 130, bear),
        TransactionKind("die", 60, die),
        TransactionKind("marry", 80, marry),
        TransactionKind("divorce", 50, divorce),
        TransactionKind("move", 250, move),
        TransactionKind("photograph", 20, photograph),
        TransactionKind("amend_details", 150, amend_details),
        TransactionKind("correct_code", 20, correct_code),
    ),
    invariants=INVARIANTS,
)
