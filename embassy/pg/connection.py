"""Sessions with PostgreSQL, all with the same settings, so that values look the same whoever reads or writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from embassy.model.errors import ConfigurationError, EmbassyError, TransientError

_PINNED = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "search_path": "",
    "row_security": "off",
    # A registry that was fenced is read-only by default; the product's own tables go on.
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # Nothing that the product writes at home may wait for the embassy: it would wait for itself.
    "synchronous_commit": "local",
}
NO_VIEWS: LiteralString = """
SELECT pg_catalog.set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', false)
WHERE pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL"""
"""For a session that reads tables by their names: whoever owns one may put a view in its place at any moment, and have
its functions executed with the session's rights. Servers of August 2024 and later know the setting."""
_TRANSACTION_TIMEOUT_VERSION = 170_000
_LIVENESS = {
    # A half-open connection must not hold a lease: noticed within about 20 s.
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

# The server's code does not reach a client that it does not let in, so its words have to tell the family.
_PASSING = re.compile(
    "the database system is|too many|remaining connection slots|max_wal_senders|canceling authentication|terminating"
)
_EXPIRED = re.compile("certificate (has )?expired")
_REFUSALS = tuple(
    (re.compile(pattern), fix)
    for pattern, fix in (
        ("private key", "make the key file readable by its owner only"),
        ("does not match host name", "connect to a name that the server's certificate has"),
        ("certificate authentication failed", "use the certificate whose common name is the role"),
        (
            "certificate verify failed",
            "the server's certificate is not of the authority in sslrootcert of the dsn, or has expired",
        ),
        ("certificate|unknown ca|alert", "check sslrootcert, sslcert and sslkey of the dsn"),
        ("server does not support SSL|sslmode", "switch TLS on at the server, or check sslmode of the dsn"),
        ("no encryption", "set sslmode=verify-full in the dsn"),
        (r"no pg_hba\.conf entry|pg_hba\.conf rejects", "allow the role in pg_hba.conf of the server"),
        ("authentication failed|no password supplied", "check the role and its password in the dsn"),
        (r"start (WAL sender|walsender)", "let an administrator run ALTER ROLE … REPLICATION for it"),
        ("permission denied to set parameter", "let an administrator grant SET ON PARAMETER to the role"),
        ("unrecognized configuration parameter|invalid value for parameter", "check options of the dsn"),
        (
            'database ".*" (does not exist|is not currently)|permission denied for database',
            "check dbname of the dsn",
        ),
        ('role ".*" (does not exist|is not permitted)', "check user of the dsn"),
    )
)


def connect(
    dsn: str,
    *,
    application_name: str,
    autocommit: bool = False,
    replication: Literal["database"] | None = None,
    settings: Mapping[str, str] | None = None,
    primary: bool = False,
) -> psycopg.Connection[Any]:
    """Open a session with the pinned settings.

    Args:
        dsn: a libpq connection string; its own keepalives and connect_timeout win.
        application_name: shown in pg_stat_activity.
        autocommit: whether each statement commits by itself.
        replication: ``database`` for a walsender session.
        settings: further run-time settings; they win over the pinned ones.
        primary: whether a server in recovery is of no use: a switchover shows one for a moment.

    Raises:
        TransientError: the server is unreachable, starting, stopping, out of connections, or no primary yet.
        ConfigurationError: the dsn is malformed or gives TLS keys away, or the server will never let us in like this.
    """
    try:
        given = conninfo_to_dict(dsn)
        place = place_of(dsn)
        if given.get("sslkeylogfile"):
            raise ConfigurationError(
                "the dsn would have the session's TLS keys written to a file",
                place=place,
                hint="take sslkeylogfile out of it",
            )
        pinned = (f"-c {name}={_escaped(value)}" for name, value in {**_PINNED, **(settings or {})}.items())
        parameters: dict[str, Any] = {
            **_LIVENESS,
            **given,
            "application_name": application_name,
            "client_encoding": "UTF8",
            "options": " ".join([str(given.get("options") or ""), *pinned]),
            **({"replication": replication} if replication else {}),
        }
        connection: psycopg.Connection[Any] = psycopg.connect(make_conninfo(**parameters), autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise _family(error, place, given.get("sslcert")) from error
    except psycopg.ProgrammingError as error:
        # libpq's words quote the place that it stumbled over, which may be a piece of the password
        raise ConfigurationError(
            "not a connection string",
            hint="write it as libpq does: host=… dbname=… user=…; quote values with spaces",
        ) from error
    if primary and connection.info.parameter_status("in_hot_standby") == "on":
        connection.close()
        raise TransientError(
            "the server is in recovery: a standby, and not promoted",
            place=place,
            hint="nothing to do during a switchover; otherwise let the dsn lead to the primary",
        )
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_VERSION:
        connection.pgconn.exec_(b"SET transaction_timeout = 0")  # older servers know no such option
    return connection


def place_of(dsn: str) -> str:
    """A database's place for messages, without secrets: ``user@host:port/dbname``.

    Raises:
        psycopg.ProgrammingError: the dsn is malformed.
    """
    parts = conninfo_to_dict(dsn)
    return f"{parts.get('user', '')}@{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def certificate_of(dsn: str) -> Path | None:
    """The client's certificate that a connection string names; each connection reads the file anew."""
    try:
        named = conninfo_to_dict(dsn).get("sslcert")
    except psycopg.ProgrammingError:
        return None  # whoever connects says so
    return Path(str(named)) if named else None


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _family(error: psycopg.OperationalError, place: str, certificate: Any) -> EmbassyError:
    text = " ".join(str(error).split())
    if _EXPIRED.search(text):  # each attempt reads the file: a stream that waits goes on with what takes its place
        mine = certificate or "the client's certificate"
        return TransientError(text, place=place, hint=f"{mine} has expired: put a valid one in its place")
    if not _PASSING.search(text):
        for pattern, fix in _REFUSALS:
            if pattern.search(text):
                return ConfigurationError(text, place=place, hint=fix)
    answers = "FATAL:" in text  # as a login trigger does, or too many sessions; it may be otherwise in a moment
    return TransientError(
        text,
        place=place,
        hint="the server is up and does not let this session in, for the reason that it names"
        if answers
        else "is the server up, and reachable from here?",
    )
