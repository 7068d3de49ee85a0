"""The file that carries a database's schema from home to an embassy: SQL, with what it is of in its first lines.

::

    -- embassy schema/1
    -- {"database": …, "server_version": …, "encoding": …, "lsn": …, "roles": […], "sha256": …}
    SQL, to its end

It has no rows, and none of the product's own tables.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from embassy.model.errors import ConfigurationError

_MARK = "-- embassy schema/1\n"


class RoleNeed(NamedTuple):
    """A role that the schema names as an owner, a grantee or in a policy."""

    name: str
    create: str
    """The statement that makes it as it is at home, but for its password."""


class SchemaFile(NamedTuple):
    """A schema, and where and when it was taken."""

    database: str
    server_version: int
    """As PostgreSQL numbers it: 180006."""
    encoding: str
    lsn: str
    """The source's position when it was taken."""
    roles: tuple[RoleNeed, ...]
    script: str

    def text(self) -> str:
        """The file's content."""
        about = {
            "database": self.database,
            "server_version": self.server_version,
            "encoding": self.encoding,
            "lsn": self.lsn,
            "roles": [role._asdict() for role in self.roles],
            "sha256": _digest(self.script),
        }
        return f"{_MARK}-- {json.dumps(about)}\n{self.script}"


def parse_schema_file(text: str, place: str) -> SchemaFile:
    """Read a file's content.

    Raises:
        ConfigurationError: it is not such a file, or not as it was written.
    """
    hint = "write it with embassy provision schema, and bring it whole"
    if not text.startswith(_MARK):
        raise ConfigurationError("not a schema file", place=place, hint=hint)
    about, _, script = text.removeprefix(_MARK).partition("\n")
    try:
        told = json.loads(about.removeprefix("-- "))
        found = SchemaFile(
            str(told["database"]),
            int(told["server_version"]),
            str(told["encoding"]),
            str(told["lsn"]),
            tuple(RoleNeed(str(role["name"]), str(role["create"])) for role in told["roles"]),
            script,
        )
        digest = told["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("the schema file's second line does not hold", place=place, hint=hint) from error
    if digest != _digest(script):
        raise ConfigurationError("the schema file is cut short, or was changed", place=place, hint=hint)
    return found


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()
