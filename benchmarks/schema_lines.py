"""What only one of two databases' schemas says, as lines of their dumps."""

from __future__ import annotations

import re
from collections import Counter

from embassy.pg.schema_dump import take_schema

# What one site has of its own: the replica guards, and triggers and rules that are silent until promotion; home what
# tells rows of tables without a key apart.
_OF_ONE_SITE = re.compile(
    r'"embassy_guard"|REPLICA IDENTITY FULL|^ALTER TABLE .* (DISABLE|ENABLE|ENABLE ALWAYS|ENABLE REPLICA) (TRIGGER|RULE) '
)
_SILENT = re.compile(r"^(--|SET |SELECT pg_catalog\.set_config|$)")


def schema_differences(source_dsn: str, replica_dsn: str) -> list[str]:
    """Lines of ``pg_dump --schema-only`` that one side has more often, ``-`` before the source's, ``+`` the replica's.

    Raises:
        ConfigurationError: no pg_dump of this machine can read them.
    """
    source, replica = _lines(source_dsn), _lines(replica_dsn)
    only = [f"- {line}" for line in (source - replica).elements()]
    return only + [f"+ {line}" for line in (replica - source).elements()]


def _lines(dsn: str) -> Counter[str]:
    lines = take_schema(dsn).script.splitlines()
    return Counter(line for line in lines if not (_SILENT.search(line) or _OF_ONE_SITE.search(line)))
