"""Telling the statements of a query string apart, as PostgreSQL does."""

from __future__ import annotations

import pytest

from embassy.model.sql_text import (
    Unreadable,
    innermost,
    is_tagged,
    pick,
    statements,
    validated_constraint,
    without_concurrently,
    without_validation,
)

_STRING = """
-- a comment; with a semicolon, and 'a quote
CREATE TABLE a (id int, t text DEFAULT 'x;y''z', u text DEFAULT E'it\\'s;'); /* nested /* ; */ ; */
INSERT INTO a VALUES (1);
create or replace function f() returns int language sql begin atomic
  select case when true then 1 else 2 end; select 1; end;
CREATE FUNCTION g() RETURNS text AS $body$ SELECT ';$$' $body$ LANGUAGE sql;
CREATE UNIQUE INDEX CONCURRENTLY "I;" ON a (id);
GRANT one TO other; GRANT SELECT ON a TO other; GRANT CONNECT ON DATABASE d TO other;
CREATE TABLE b AS SELECT 1; CREATE TEMP TABLE "b;c" (a$b$c int); CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2);;
"""


def test_statements_end_where_they_end() -> None:
    found = [statement.text for statement in statements(_STRING)]
    assert len(found) == 11
    assert found[0].endswith("E'it\\'s;')")
    assert found[2].endswith("select 1; end")
    assert found[4] == 'CREATE UNIQUE INDEX CONCURRENTLY "I;" ON a (id)'
    assert found[10] == "CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2)"


@pytest.mark.parametrize(
    ("tag", "nth", "begins"),
    [
        ("CREATE TABLE", 2, "CREATE TEMP TABLE"),
        ("CREATE FUNCTION", 1, "create or replace function f"),
        ("CREATE FUNCTION", 2, "CREATE FUNCTION g"),
        ("GRANT", 1, "GRANT SELECT ON a"),
        ("CREATE INDEX", 1, "CREATE UNIQUE INDEX"),
        ("CREATE RULE", 1, "CREATE RULE"),
    ],
)
def test_the_nth_command_of_a_tag(tag: str, nth: int, begins: str) -> None:
    assert pick(_STRING, tag, nth).text.startswith(begins)


@pytest.mark.parametrize(
    ("text", "tag", "fits"),
    [
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x", "ALTER DEFAULT PRIVILEGES", True),
        ("CREATE DEFAULT CONVERSION c FOR 'a' TO 'b' FROM f", "CREATE CONVERSION", True),
        ("CREATE OPERATOR CLASS c FOR TYPE t USING btree AS STORAGE t", "CREATE OPERATOR", False),
        ("CREATE OPERATOR CLASS c FOR TYPE t USING btree AS STORAGE t", "CREATE OPERATOR CLASS", True),
        ("CREATE CONSTRAINT TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f()", "CREATE TRIGGER", True),
        ("COMMENT ON ROLE x IS 'y'", "COMMENT", False),
        ("COMMENT ON TABLE x IS 'y'", "COMMENT", True),
        ("GRANT SELECT ON role TO x", "GRANT", True),
        ("REVOKE ALL ON parameter, a FROM x", "REVOKE", True),
        ("GRANT SELECT ON parameter.database TO x", "GRANT", True),
        ("GRANT SET ON PARAMETER a.b TO x", "GRANT", False),
        ("GRANT CREATE ON TABLESPACE a, b TO x", "GRANT", False),
        ("CREATE TABLE x (g int GENERATED ALWAYS AS (1) STORED)", "CREATE TABLE", True),
        ("SELECT 'CREATE TABLE x()'", "CREATE TABLE", False),
    ],
)
def test_tags_are_told_by_the_first_words(text: str, tag: str, *, fits: bool) -> None:
    (statement,) = statements(text)
    assert is_tagged(statement, tag) is fits


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE a (x int",
        "SELECT 'x",
        'SELECT "x',
        "/* /* */",
        "SELECT $a$ $b$",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
    ],
)
def test_a_text_that_ends_too_early_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        statements(text)


def test_a_string_that_rolls_back_does_not_tell_which_of_several_it_was() -> None:
    text = "BEGIN; CREATE TABLE a (); ROLLBACK; CREATE TABLE b ()"
    with pytest.raises(Unreadable):
        pick(text, "CREATE TABLE", 1)
    assert pick(text.replace("CREATE TABLE a ()", "SELECT 1"), "CREATE TABLE", 2).text == "CREATE TABLE b ()"


def test_a_plain_string_may_have_backslashes() -> None:
    text = r"COMMENT ON TABLE a IS 'it\'s; '; SELECT 1"
    assert len(statements(text, backslashes=True)) == 2


def test_the_innermost_statement_of_a_context_is_taken_whole() -> None:
    statement = 'CREATE TABLE "odd ""name""" (a text DEFAULT \'"\nPL/pgSQL function fake\', b int)'
    context = (
        f'SQL statement "{statement}"\nPL/pgSQL function inline_code_block line 1 at EXECUTE\n'
        'SQL statement "SELECT public.f()"\nPL/pgSQL function public.g() line 2 at PERFORM'
    )
    found = innermost(context, "CREATE TABLE")
    assert found is not None
    assert found.text == statement
    with pytest.raises(Unreadable):
        innermost('SQL function "f" statement 1', "CREATE TABLE")
    with pytest.raises(Unreadable):
        innermost(context, "DROP TABLE")


def test_a_context_with_several_statements_tells_which_if_they_were_counted() -> None:
    context = (
        'SQL statement "ALTER TABLE a ADD b int; SELECT 1; ALTER TABLE a ADD c int"\nPL/pgSQL function f() line 1'
    )
    wanted = ["ALTER TABLE a ADD b int", "ALTER TABLE a ADD c int"] * 2
    found = [innermost(context, "ALTER TABLE", nth) for nth in (1, 2, 3, 4)]
    assert [statement and statement.text for statement in found] == wanted
    with pytest.raises(Unreadable):
        innermost(context, "ALTER TABLE")


@pytest.mark.parametrize(
    "context",
    [
        'SQL statement "DROP OPERATOR @ (a, b)"\nextension script file "h--1--2.sql", near line 5',
        'SQL statement "CREATE EXTENSION h"\nPL/pgSQL function inline_code_block line 1 at SQL statement',
    ],
)
def test_what_an_extensions_script_runs_is_told_apart(context: str) -> None:
    assert innermost(context, "DROP OPERATOR") is None


def test_an_index_is_made_within_a_transaction_too() -> None:
    assert without_concurrently(pick(_STRING, "CREATE INDEX", 1)) == 'CREATE UNIQUE INDEX  "I;" ON a (id)'


@pytest.mark.parametrize("rest", ["b", "finalize", "s.finalize", "b FINALIZE", 's."b" finalize'])
def test_what_was_begun_concurrently_is_done_as_a_whole(rest: str) -> None:
    (statement,) = statements(f"ALTER TABLE a DETACH PARTITION {rest}")
    whole = rest.split(" ", maxsplit=1)[0]
    assert without_concurrently(statement).rstrip() == f"ALTER TABLE a DETACH PARTITION {whole}"


@pytest.mark.parametrize(
    ("text", "unproven"),
    [
        (
            "ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b",
            "ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b NOT VALID",
        ),
        (
            'ALTER TABLE a ADD CONSTRAINT "f," FOREIGN KEY (x) REFERENCES b (x) DEFERRABLE, DROP y',
            'ALTER TABLE a ADD CONSTRAINT "f," FOREIGN KEY (x) REFERENCES b (x) DEFERRABLE NOT VALID, DROP y',
        ),
        (
            "ALTER TABLE a ADD x int, ADD FOREIGN KEY (z) REFERENCES c ON DELETE SET NULL (z) -- and so on",
            "ALTER TABLE a ADD x int, ADD FOREIGN KEY (z) REFERENCES c ON DELETE SET NULL (z) NOT VALID",
        ),
        ("ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b NOT VALID", None),
        ('ALTER TABLE "FOREIGN" ADD "FOREIGN" int, ADD CHECK (x > 0)', None),
        ("ALTER TABLE a ADD x int REFERENCES b", None),
        ("ALTER FOREIGN TABLE a ADD FOREIGN KEY (x) REFERENCES b", None),
        ("CREATE TABLE a (x int, FOREIGN KEY (x) REFERENCES b)", None),
    ],
)
def test_new_foreign_keys_are_added_without_a_look_at_rows(text: str, unproven: str | None) -> None:
    assert without_validation(text) == unproven


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ALTER TABLE s.a VALIDATE CONSTRAINT "f k"', '"f k"'),
        ("alter table a validate constraint fk", "fk"),
        ("ALTER TABLE a VALIDATE CONSTRAINT f, VALIDATE CONSTRAINT g", None),
        ("ALTER TABLE a ADD CONSTRAINT validate CHECK (true)", None),
    ],
)
def test_what_a_statement_validates_is_told_if_it_does_nothing_else(text: str, name: str | None) -> None:
    assert validated_constraint(text) == name
