"""The statements that take rows out of the way of rows to come: those that have a value which only one row may have.

Pure: strings from facts. Whatever makes a value unique is understood, expressions, predicates and exclusion constraints
included; the new rows are asked the same question as the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from consumers.sql_terms import quoted
from embassy.model.replica_table import Unique, UniquePart, Uniques


def deletions(table: str, uniques: Uniques, given: Mapping[str, str], source: str, spared: str = "") -> list[str]:
    """A DELETE for each thing that is unique in a table.

    Args:
        table: quoted and qualified.
        uniques: what is unique in it.
        given: an expression for each column that the new rows are known to have; other columns are NULL.
        source: the FROM clause that the expressions need, if any.
        spared: a condition of the table's rows, called ``t``: those that are not in the way.
    """
    new_rows = _new_rows(uniques, given, source)
    return [_deletion(table, unique, new_rows, spared) for unique in uniques.uniques]


def _new_rows(uniques: Uniques, given: Mapping[str, str], source: str) -> str:
    plain, generated = [], []
    for column in uniques.columns:
        name = quoted(column.name)
        if column.generated_as:
            generated.append(f", {column.generated_as} AS {name}")
        else:
            value = given.get(column.name, f"NULL::{column.type_name}")
            collated = f" COLLATE {column.collation}" if column.collation else ""
            plain.append(f"({value}){collated} AS {name}")
    return f"(SELECT x.*{''.join(generated)} FROM (SELECT {', '.join(plain)}{source}) AS x) AS n"


def _deletion(table: str, unique: Unique, new_rows: str, spared: str) -> str:
    names = [f"embassy_new_{i}" for i in range(len(unique.parts))]
    selected = ", ".join(f"{part.expression} AS {name}" for part, name in zip(unique.parts, names, strict=True))
    within = f" WHERE {unique.predicate}" if unique.predicate else ""
    conditions = [_same(part, name, unique) for part, name in zip(unique.parts, names, strict=True)]
    if unique.predicate:
        conditions.append(f"({unique.predicate})")
    if spared:
        conditions.append(f"({spared}) IS NOT TRUE")
    return (
        f"DELETE FROM ONLY {table} AS t USING (SELECT {selected} FROM {new_rows}{within}) AS v "
        f"WHERE {' AND '.join(conditions)}"
    )


def _same(part: UniquePart, name: str, unique: Unique) -> str:
    collated = f" COLLATE {part.collation}" if part.collation else ""
    same = f"{part.expression}{collated} OPERATOR({quoted(part.equals_schema)}.{part.equals_name}) v.{name}"
    return f"({same} OR {part.expression} IS NULL AND v.{name} IS NULL)" if unique.nulls_equal else same
