"""The land cadastre: however parcels are split and merged, a municipality's area stays what it is.

Locks are taken in this order: a municipality, parcels by code, a survey; a map sheet.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random

from deploy.workload import material
from deploy.workload.registry import Connection, Invariant, RegistryWorkload, Scale, Ticket, TransactionKind

_MUNICIPALITIES = 12
_FINEST = Decimal("0.0001")
_USES = ("residential", "arable", "forest", "commercial", "water")
_INSERT = """
    INSERT INTO land_cadastre.parcel (cadastral_code, municipality, area_m2, uses, centre, outline, soil, split_from)
    VALUES (%s, %s, %s, %s::land_cadastre.land_use[], point(%s, %s), %s::text::polygon, %s, %s)"""


def seed_rows(connection: Connection, rng: Random, scale: Scale) -> None:
    """Divide the land into parcels and draw a map sheet for every tenth."""
    connection.execute(
        "INSERT INTO land_cadastre.municipality SELECT i, 'Vald ' || i, 0, 0 FROM generate_series(1, %s) AS i",
        (_MUNICIPALITIES,),
    )
    for number in range(max(scale.people, _MUNICIPALITIES)):
        municipality = number % _MUNICIPALITIES + 1
        area = material.euros(rng, 100, 90_000)
        code = f"{municipality}:{number:06d}"
        _add(connection, rng, code, municipality=municipality, area=area, split_from=None)
    connection.execute(
        """
        UPDATE land_cadastre.municipality AS m SET area_m2 = p.area_m2, parcels = p.parcels
        FROM (SELECT municipality, sum(area_m2) AS area_m2, count(*) AS parcels
              FROM land_cadastre.parcel GROUP BY 1) AS p
        WHERE p.municipality = m.code"""
    )
    for number in range(_sheets(scale)):
        connection.execute(
            "INSERT INTO land_cadastre.map_sheet (sheet, revision, extent, drawing) VALUES (%s, 1, box(%s, %s), %s)",
            (f"S{number:05d}", *_extent(number, 0.9), "revision 1\n" + material.prose(rng, 9_000)),
        )


def _sheets(scale: Scale) -> int:
    return max(scale.people // 10, 10)


def _extent(number: int, width: float) -> tuple[str, str]:
    """Return two corners, as texts of points, of a sheet that shares no ground with any other."""
    return f"({number},0)", f"({number + width},{width})"


def _add(
    connection: Connection, rng: Random, code: str, *, municipality: int, area: Decimal, split_from: str | None
) -> None:
    x, y = rng.uniform(5e5, 7e5), rng.uniform(6.4e6, 6.6e6)
    outline = f"(({x},{y}),({x + 40},{y}),({x + 40},{y + 60.5}),({x},{y + 60}))"
    soil = rng.choice((None, [[1.5, -0.0], [float("nan"), float("inf")]], [[rng.random(), None]]))
    uses = rng.sample(_USES, rng.randint(0, 3))
    connection.execute(_INSERT, (code, municipality, area, uses, x, y, outline, soil, split_from))


def _lock_parcels(connection: Connection, rng: Random, count: int) -> tuple[int, list[tuple[str, Decimal]]]:
    """Lock a municipality at random and ``count`` of its parcels, by code; return it and their codes and areas."""
    municipality = rng.randint(1, _MUNICIPALITIES)
    row = connection.execute(
        "SELECT parcels FROM land_cadastre.municipality WHERE code = %s FOR NO KEY UPDATE", (municipality,)
    ).fetchone()
    start = rng.randrange(max(1, (row[0] if row else 1) - count))
    parcels = connection.execute(
        """
        SELECT cadastral_code, area_m2 FROM land_cadastre.parcel WHERE cadastral_code IN (
            SELECT cadastral_code FROM land_cadastre.parcel WHERE municipality = %s
            ORDER BY cadastral_code OFFSET %s LIMIT %s)
        ORDER BY cadastral_code FOR UPDATE""",
        (municipality, start, count),
    ).fetchall()
    return municipality, parcels


def split(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A parcel is split into several; the parts name the one they come from."""
    municipality, parcels = _lock_parcels(connection, rng, 1)
    if not parcels:
        return
    (code, area), parts = parcels[0], rng.randint(1, 3)
    share = (area / (parts + 1)).quantize(_FINEST)
    if not share:
        return
    for part in range(parts):
        new = f"{municipality}:{ticket.token.hex[:12]}:{part}"
        _add(connection, rng, new, municipality=municipality, area=share, split_from=code)
    _resize(connection, code, -share * parts)
    _count(connection, municipality, parts)


def _resize(connection: Connection, code: str, by: Decimal) -> None:
    connection.execute(
        "UPDATE land_cadastre.parcel SET area_m2 = area_m2 + %s WHERE cadastral_code = %s", (by, code)
    )


def _count(connection: Connection, municipality: int, parcels: int) -> None:
    connection.execute(
        "UPDATE land_cadastre.municipality SET parcels = parcels + %s WHERE code = %s", (parcels, municipality)
    )


def merge(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """Some parcels are merged into the first; what was split from those that go, and their surveys, lose the link."""
    municipality, parcels = _lock_parcels(connection, rng, rng.randint(2, 4))
    if len(parcels) < 2:
        return
    gone = [code for code, _ in parcels[1:]]
    connection.execute("DELETE FROM land_cadastre.parcel WHERE cadastral_code = ANY (%s)", (gone,))
    _resize(connection, parcels[0][0], sum((area for _, area in parcels[1:]), Decimal(0)))
    _count(connection, municipality, -len(gone))


def move_boundary(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A strip of land goes from one parcel to its neighbour."""
    _, parcels = _lock_parcels(connection, rng, 2)
    if len(parcels) == 2:
        strip = (parcels[0][1] / 7).quantize(_FINEST)
        _resize(connection, parcels[0][0], -strip)
        _resize(connection, parcels[1][0], strip)


def recode(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A parcel gets another code; surveys and split parts follow."""
    municipality, parcels = _lock_parcels(connection, rng, 1)
    if parcels:
        connection.execute(
            "UPDATE land_cadastre.parcel SET cadastral_code = %s WHERE cadastral_code = %s",
            (f"{municipality}:{ticket.token.hex[:12]}:R", parcels[0][0]),
        )


def change_use(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A parcel is used for something else."""
    _, parcels = _lock_parcels(connection, rng, 1)
    if parcels:
        connection.execute(
            "UPDATE land_cadastre.parcel SET uses = %s::land_cadastre.land_use[] WHERE cadastral_code = %s",
            (rng.sample(_USES, rng.randint(0, 3)), parcels[0][0]),
        )


def survey(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A parcel is surveyed: keyless markers by COPY, among them boxes of equal areas."""
    _, parcels = _lock_parcels(connection, rng, 1)
    markers = rng.randint(1, 20)
    connection.execute(
        "INSERT INTO land_cadastre.survey VALUES (%s, %s, now(), %s, %s, %s, %s)",
        (
            ticket.token,
            parcels[0][0] if parcels else None,
            "23:59:59.999999-03:30",
            f"{rng.randrange(9)} hours {rng.randrange(60)} mins",
            markers,
            rng.choice((None, "NaN", "-Infinity", "1e-320", rng.random())),
        ),
    )
    with connection.cursor().copy("COPY land_cadastre.survey_marker FROM STDIN") as copy:
        for _ in range(markers):
            x = rng.randrange(3)
            copy.write_row((ticket.token, f"({x + 2},1),({x},0)", rng.choice((None, f"({x},-0)")), rng.random()))


def correct_marker(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """One marker of a survey changes, another is struck out; others look the same."""
    found = _pick_survey(connection, rng)
    if found is None:
        return
    one_of = "(SELECT ctid FROM land_cadastre.survey_marker WHERE survey = %s ORDER BY reading {} LIMIT 1)"
    connection.execute(
        "UPDATE land_cadastre.survey_marker SET footprint = '(7,2),(6,0)' WHERE ctid = " + one_of.format("ASC"),
        (found,),
    )
    gone = connection.execute(
        "DELETE FROM land_cadastre.survey_marker WHERE ctid = " + one_of.format("DESC"), (found,)
    ).rowcount
    connection.execute("UPDATE land_cadastre.survey SET markers = markers - %s WHERE id = %s", (gone, found))


def _pick_survey(connection: Connection, rng: Random) -> str | None:
    found = connection.execute(
        "SELECT id FROM land_cadastre.survey ORDER BY measured_at DESC OFFSET %s LIMIT 1 FOR UPDATE",
        (rng.randrange(20),),
    ).fetchone()
    return None if found is None else str(found[0])


def discard_survey(connection: Connection, rng: Random, _ticket: Ticket) -> None:
    """A survey and all of its markers go."""
    found = _pick_survey(connection, rng)
    connection.execute("DELETE FROM land_cadastre.survey_marker WHERE survey = %s", (found,))
    connection.execute("DELETE FROM land_cadastre.survey WHERE id = %s", (found,))


def redraw(connection: Connection, rng: Random, ticket: Ticket) -> None:
    """A sheet is drawn anew, which changes its identity, or only renamed, or its frame only moves."""
    number = rng.randrange(_sheets(ticket.scale))
    sheet = connection.execute(
        "SELECT id, revision FROM land_cadastre.map_sheet WHERE extent && box(%s, %s) FOR UPDATE",
        _extent(number, 0.1),
    ).fetchone()
    if sheet is None:
        return
    row, revision = sheet
    choice = rng.random()
    if choice < 0.4:
        connection.execute(
            "UPDATE land_cadastre.map_sheet SET revision = %s, drawing = %s WHERE id = %s",
            (revision + 1, f"revision {revision + 1}\n{material.prose(rng, ticket.scale.text_bytes // 4)}", row),
        )
    elif choice < 0.7:
        connection.execute(
            "UPDATE land_cadastre.map_sheet SET sheet = %s WHERE id = %s", (f"T{ticket.token.hex[:10]}", row)
        )
    else:
        connection.execute(
            "UPDATE land_cadastre.map_sheet SET extent = box(%s, %s) WHERE id = %s",
            (*_extent(number, rng.uniform(0.2, 0.9)), row),
        )


WORKLOAD = RegistryWorkload(
    name="land_cadastre",
    schema="land_cadastre",
    seed_rows=seed_rows,
    transactions=(
        TransactionKind("split", 100, split),
        TransactionKind("merge", 100, merge),
        TransactionKind("move_boundary", 150, move_boundary),
        TransactionKind("recode", 40, recode),
        TransactionKind("change_use", 150, change_use),
        TransactionKind("survey", 120, survey),
        TransactionKind("correct_marker", 80, correct_marker),
        TransactionKind("discard_survey", 80, discard_survey),
        TransactionKind("redraw", 60, redraw),
    ),
    invariants=(
        Invariant(
            "municipalities_consist_of_their_parcels",
            """
            SELECT m.code FROM land_cadastre.municipality AS m
            LEFT JOIN (SELECT municipality, sum(area_m2) AS area_m2, count(*) AS parcels
                       FROM land_cadastre.parcel GROUP BY municipality) AS p ON p.municipality = m.code
            WHERE (m.area_m2, m.parcels) IS DISTINCT FROM (p.area_m2, p.parcels)""",
            "UPDATE land_cadastre.parcel SET area_m2 = area_m2 + 0.5",
        ),
        Invariant(
            "surveys_count_their_markers",
            """
            SELECT id FROM land_cadastre.survey AS s
            FULL JOIN (SELECT survey AS id, count(*) AS markers
                       FROM land_cadastre.survey_marker GROUP BY survey) AS m USING (id)
            WHERE s.markers IS NULL OR s.markers <> coalesce(m.markers, 0)""",
            "DELETE FROM land_cadastre.survey WHERE markers > 0",
        ),
        Invariant(
            "surveys_and_parts_name_parcels_that_exist",
            """
            SELECT code FROM (SELECT cadastral_code AS code FROM land_cadastre.survey
                              UNION SELECT split_from FROM land_cadastre.parcel) AS named
            WHERE code IS NOT NULL
              AND NOT EXISTS (SELECT FROM land_cadastre.parcel AS p WHERE p.cadastral_code = code)""",
            "UPDATE land_cadastre.parcel SET split_from = 'nowhere'",
        ),
        Invariant(
            "drawings_are_of_their_revision",
            """
            SELECT id, revision FROM land_cadastre.map_sheet
            WHERE split_part(substr(drawing, 1, 40), E'\\n', 1) <> 'revision ' || revision""",
            "UPDATE land_cadastre.map_sheet SET revision = revision + 1",
        ),
    ),
)
