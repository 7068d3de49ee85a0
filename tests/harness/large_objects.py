"""Large objects as a database has them."""

from __future__ import annotations

from typing import Any

import psycopg

_OBJECTS = """
SELECT m.oid::bigint, pg_get_userbyid(m.lomowner)::text, obj_description(m.oid, 'pg_largeobject'),
       ARRAY(SELECT a.grantee::regrole::text || a.privilege_type
             FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) a ORDER BY 1),
       (SELECT md5(string_agg(p.pageno || ':' || md5(p.data), ',' ORDER BY p.pageno)) || ' of ' || count(*)
        FROM pg_largeobject p WHERE p.loid = m.oid)
FROM pg_largeobject_metadata m ORDER BY 1"""


def objects(connection: psycopg.Connection[Any]) -> list[Any]:
    """Each object with owner, comment, rights, and digests of its pages; an administrator's session sees them."""
    return connection.execute(_OBJECTS).fetchall()
