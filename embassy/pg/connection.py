"""Sessions with PostgreSQL, all with the same settings, so that values look the same whoever reads or writes them."""

from __future__ import annotations

from typing import Any, Literal

import psycopg
from psycopg import errors
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
    "search_path": "",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_LIVENESS = {
    # A half-open connection must not hold a lease: noticed within about 20 s.
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_REFUSALS = (
    (
        "certificate",
        "check sslrootcert, sslcert and sslkey of the dsn, and that the host name is the certificate's",
    ),
    ("SSL", "check sslmode, sslrootcert, sslcert and sslkey of the dsn"),
    ("private key file", "make the key file readable by its owner only"),
    ("no pg_hba.conf entry", "allow the role in pg_hba.conf of the server"),
    ("authentication failed", "check the role and its certificate or password"),
    ("database", "check dbname of the dsn"),
    ("role", "check user of the dsn"),
)


def connect(
    dsn: str,
    *,
    application_name: str,
    autocommit: bool = False,
    replication: Literal["database"] | None = None,
    settings: dict[str, str] | None = None,
) -> psycopg.Connection[Any]:
    """Open a session with the pinned settings.

    Args:
        dsn: a libpq connection string.
        application_name: shown in pg_stat_activity.
        autocommit: whether each statement commits by itself.
        replication: ``database`` for a walsender session.
        settings: further run-time settings; they win over the pinned ones.

    Raises:
        TransientError: the server is unreachable, starting, stopping or out of connections.
        ConfigurationError: the dsn is malformed, or the server will never let us in like this.
    """
    try:
        place = place_of(dsn)
        options = " ".join(
            f"-c {name}={_escaped(value)}" for name, value in {**_PINNED, **(settings or {})}.items()
        )
        extra: dict[str, Any] = {"replication": replication} if replication else {}
        return psycopg.connect(
            make_conninfo(
                dsn,
                application_name=application_name,
                client_encoding="UTF8",
                options=options,
                **_LIVENESS,
                **extra,
            ),
            autocommit=autocommit,
        )
    except psycopg.OperationalError as error:
        raise _family(error, place) from error
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"not a connection string: {error}", hint="write it as libpq does: host=… dbname=… user=…"
        ) from error


def place_of(dsn: str) -> str:
    """A database's place for messages, without secrets: ``user@host:port/dbname``.

    Raises:
        psycopg.ProgrammingError: the dsn is malformed.
    """
    parts = conninfo_to_dict(dsn)
    return f"{parts.get('user', '')}@{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ") if value else "''"


def _family(error: psycopg.OperationalError, place: str) -> EmbassyError:
    text = " ".join(str(error).split())
    if isinstance(error, errors.Error) and (error.sqlstate or "").startswith(("57", "53", "08")):
        return TransientError(text, place=place)
    if "FATAL" in text and ("starting up" in text or "shutting down" in text or "too many" in text):
        return TransientError(text, place=place)
    if "FATAL" in text or "certificate" in text or "private key" in text:
        for word, fix in _REFUSALS:
            if word in text:
                return ConfigurationError(text, place=place, hint=fix)
    return TransientError(text, place=place, hint="is the server up, and reachable from here?")
