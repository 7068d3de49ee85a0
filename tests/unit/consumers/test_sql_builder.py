"""The statements, as text. What they do is tested on servers (tests/integration/test_applier.py)."""

from __future__ import annotations

import pytest

from consumers import row_sql, sql_builder
from consumers.sql_builder import Access
from consumers.sql_terms import Target, target, typed
from embassy.model.errors import IntegrityError
from embassy.model.relation import ReplicaIdentity
from embassy.model.replica_table import Function, IndexColumn
from tests.harness.replica_tables import column, index, relation, table


def keyed() -> Target:
    found = table(
        [
            column("id", 1, "integer", not_null=True),
            column('a "b"', 2),
            column("n", 3, "numeric", type_modifier=917510),
        ],
        index(1),
    )
    return target(relation(found, ["id"]), found)


def whole(*indexes: int) -> Target:
    found = table(
        [column("a", 1, "integer", not_null=True), column("b", 2)], *([index(*indexes)] if indexes else [])
    )
    return target(relation(found, identity=ReplicaIdentity.FULL), found)


def test_inserts_are_copied() -> None:
    assert sql_builder.copy(keyed(), (0, 1)) == 'COPY "s"."t" ("id", "a ""b""") FROM STDIN'
    assert sql_builder.copy(keyed(), ()) == 'COPY "s"."t" FROM STDIN'


def test_an_update_by_the_new_key_leaves_the_key_alone() -> None:
    built = sql_builder.update(keyed(), (0, 1, 2), ())
    assert built is not None
    assert built.access is Access.BY_COLUMN
    assert built.sql == (
        'UPDATE ONLY "s"."t" AS t SET "a ""b""" = v.c1, "n" = v.c2::numeric FROM (SELECT c0::integer AS k0, c0, c1, c2 '
        "FROM (SELECT pg_catalog.unnest($1) AS c0, pg_catalog.unnest($2) AS c1, pg_catalog.unnest($3) AS c2) AS u "
        'ORDER BY c0 COLLATE pg_catalog."C" OFFSET 0) AS v WHERE t."id" OPERATOR("pg_catalog".=) v.k0'
    )


def test_an_update_that_changes_the_key_is_matched_by_the_old_one() -> None:
    built = sql_builder.update(keyed(), (0, 2), (0,))
    assert built is not None
    assert 'SET "id" = v.c0::integer, "n" = v.c2::numeric FROM' in built.sql
    assert "(SELECT o0::integer AS k0, c0, c2 FROM" in built.sql
    assert "pg_catalog.unnest($3) AS o0" in built.sql


def test_a_key_of_several_columns_is_planned_each_time() -> None:
    built = sql_builder.delete(keyed(), (0, 1))
    assert built is not None
    assert built.access is Access.BY_KEY


def test_an_update_that_changes_nothing_only_looks() -> None:
    built = sql_builder.update(keyed(), (0,), ())
    assert built is not None
    assert built.sql.startswith('SELECT 1 FROM ONLY "s"."t" AS t, (SELECT')


def test_a_delete_by_key() -> None:
    built = sql_builder.delete(keyed(), (0,))
    assert built is not None
    assert built.sql == (
        'DELETE FROM ONLY "s"."t" AS t USING (SELECT o0::integer AS k0 FROM (SELECT pg_catalog.unnest($1) AS o0) AS u '
        'ORDER BY o0 COLLATE pg_catalog."C" OFFSET 0) AS v WHERE t."id" OPERATOR("pg_catalog".=) v.k0'
    )


def test_without_an_index_rows_are_found_in_one_scan() -> None:
    bare = keyed()._replace(indexes=())
    built = sql_builder.delete(bare, (0,))
    assert built is not None
    assert built.access is Access.BY_SCAN
    assert 't."id" OPERATOR(pg_catalog.=) v.k0' in built.sql


def test_an_index_on_other_columns_first_is_of_no_use() -> None:
    bare = keyed()._replace(indexes=(index(2, 1),))
    built = sql_builder.delete(bare, (0,))
    assert built is not None
    assert built.access is Access.BY_SCAN


def test_the_index_gives_the_operator() -> None:
    own = keyed()._replace(indexes=(index(1)._replace(columns=(IndexColumn(1, 'my "ops"', "==="),)),))
    built = sql_builder.delete(own, (0,))
    assert built is not None
    assert 'OPERATOR("my ""ops""".===)' in built.sql


def test_the_image_is_of_all_columns_and_each_is_matched_once() -> None:
    built = sql_builder.delete(whole(), (0, 1))
    assert built is not None
    assert built.access is Access.BY_SCAN
    assert 'ROW(t."a", t."b")::text COLLATE "C" = i.image' in built.sql
    assert 'ROW(o0, o1)::text COLLATE "C" AS image' in built.sql
    assert "r FULL JOIN m ON m.image = r.image AND m.n = r.n" in built.sql


def test_an_index_narrows_the_image_down() -> None:
    built = sql_builder.update(whole(1), (1,), (0, 1))
    assert built is not None
    assert built.access is Access.BY_INDEX_AND_IMAGE
    assert 't."a" OPERATOR("pg_catalog".=) i.k0 AND ROW(t."a", t."b")' in built.sql
    assert 'UPDATE ONLY "s"."t" AS t SET "b" = v.c1 FROM p AS v' in built.sql


def test_an_index_on_a_column_that_may_be_null_does_not() -> None:
    built = sql_builder.update(whole(2, 1), (1,), (0, 1))
    assert built is not None
    assert built.access is Access.BY_SCAN


def test_identity_columns_are_compared_and_one_that_differs_is_inserted() -> None:
    found = table(
        [column("k", 1, not_null=True), column("id", 2, "integer", identity_always=True), column("v", 3)], index(1)
    )
    destination = target(relation(found, ["k"]), found)
    built = sql_builder.update(destination, (0, 1, 2), ())
    assert built is not None
    assert 'SET "v" = v.c2 FROM' in built.sql
    assert built.sql.endswith('AND t."id" OPERATOR(pg_catalog.=) v.c1::integer')
    assert row_sql.update(destination, (0, 1), ()).sql == (
        'WITH t AS (DELETE FROM ONLY "s"."t" AS t WHERE t."k" OPERATOR("pg_catalog".=) $1 RETURNING t.*) '
        'INSERT INTO "s"."t" ("k", "id", "v") OVERRIDING SYSTEM VALUE SELECT t."k", $2, t."v" FROM t'
    )


def test_an_unproven_domain_is_asked_only_about_what_changes() -> None:
    odd = column("d", 2, "integer", type_name='s."Odd"', unproven_domain=True)
    found = table([column("id", 1, "integer", not_null=True), odd], index(1))
    built = sql_builder.update(target(relation(found, ["id"]), found), (0, 1), ())
    assert built is not None
    assert (
        'SET "d" = CASE WHEN ROW(t."d")::text COLLATE "C" = ROW(v.c1)::text COLLATE "C" THEN t."d"'
        ' ELSE (v.c1::integer)::s."Odd" END FROM'
    ) in built.sql


@pytest.mark.parametrize(
    ("casts", "result_oid", "arguments", "expected"),
    [
        ((), 1700, 3, "x::numeric"),
        (("text",), 1700, 3, '"pg_catalog"."numeric_in"(pg_catalog.textout(x), 1700, -1)'),
        (("text", "varchar", "bpchar"), 1700, 1, '"pg_catalog"."numeric_in"(pg_catalog.textout(x))'),
        (("text",), 3500, 2, "x::pg_catalog.varchar::numeric"),
        (("text", "varchar"), 3500, 2, "x::pg_catalog.bpchar::numeric"),
        (("text", "varchar", "bpchar"), 3500, 2, None),
        (("varchar",), 3500, 2, "x::numeric"),
    ],
)
def test_a_text_becomes_a_value_by_the_input_function(
    casts: tuple[str, ...], result_oid: int, arguments: int, expected: str | None
) -> None:
    odd = column(
        "c",
        1,
        "numeric",
        casts_from=frozenset(casts),
        input=Function("pg_catalog", "numeric_in", arguments, result_oid, 1700),
    )
    assert typed(odd, "x") == expected


def test_where_no_expression_is_right_there_is_no_statement() -> None:
    odd = column(
        "c",
        2,
        "numeric",
        casts_from=frozenset({"text", "varchar", "bpchar"}),
        input=Function("s", "enum_in", 2, 3500, 1700),
    )
    found = table([column("id", 1, "integer", not_null=True), odd], index(1), index(2))
    destination = target(relation(found, ["id"]), found)
    assert sql_builder.update(destination, (0, 1), ()) is None
    assert sql_builder.update(destination, (0,), ()) is not None
    by_odd = target(relation(found, ["c"]), found)
    assert sql_builder.delete(by_odd, (1,)) is None
    image = target(relation(found, identity=ReplicaIdentity.FULL), found)
    assert sql_builder.delete(image, (0, 1)) is not None


@pytest.mark.parametrize(("columns", "key"), [((1, 2), ()), ((), ())])
def test_an_update_without_its_key_halts(columns: tuple[int, ...], key: tuple[int, ...]) -> None:
    for build in (sql_builder.update, row_sql.update):
        with pytest.raises(IntegrityError, match="without the values that its row is matched by"):
            build(keyed(), columns, key)
    with pytest.raises(IntegrityError):
        sql_builder.update(whole(), (0, 1), ())


def test_truncate_names_each_table_and_no_other() -> None:
    two = [keyed(), whole()._replace(name='"s"."u"')]
    assert (
        sql_builder.truncate(two, restart_identity=True) == 'TRUNCATE ONLY "s"."t", ONLY "s"."u" RESTART IDENTITY'
    )
    assert sql_builder.truncate(two[:1], restart_identity=False) == 'TRUNCATE ONLY "s"."t" CONTINUE IDENTITY'


def test_rows_have_parameters_of_their_columns_types() -> None:
    insert = row_sql.insert(keyed(), (0, 1, 2))
    assert insert.sql == 'INSERT INTO "s"."t" ("id", "a ""b""", "n") OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)'
    assert insert.types == (23, 25, 1700)
    update = row_sql.update(keyed(), (0, 2), (0,))
    assert update.sql.endswith('SET "id" = $1, "n" = $2 WHERE t."id" OPERATOR("pg_catalog".=) $3')
    assert update.types == (23, 1700, 23)
    delete = row_sql.delete(whole(1), (0, 1))
    assert delete.types == (25, 25)
    assert 't."a" OPERATOR("pg_catalog".=) $1::integer AND ROW(t."a", t."b")::text' in delete.sql
    assert delete.sql.endswith('= ROW($1, $2)::text COLLATE "C" LIMIT 1)')
    assert row_sql.insert(keyed(), ()).sql == 'INSERT INTO "s"."t" DEFAULT VALUES'
