"""How programs in Java reach the lab's servers: the lab's certificates, in the forms that Java reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from deploy.lab.kafka_broker import ADMIN, KafkaBroker
from deploy.lab.postgres_server import PostgresServer


def kafka_client(broker: KafkaBroker, folder: Path) -> dict[str, str]:
    """What a client of a cluster is configured with, as its administrator; a key file goes into the folder."""
    own = broker.authority.client(ADMIN)
    store = folder / f"{broker.site}.pem"
    _private(store, own.key.read_bytes() + own.certificate.read_bytes())
    return {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(own.ca),
    }


def postgres_client(server: PostgresServer, role: str, folder: Path) -> dict[str, str]:
    """The TLS options of PostgreSQL's JDBC driver for a role, which reads its key in DER only."""
    own = server.authority.client(role)
    key = serialization.load_pem_private_key(own.key.read_bytes(), password=None)
    file = folder / f"{server.site}-{role}.pk8"
    _private(
        file,
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    return {
        "sslmode": "verify-full",
        "sslrootcert": str(own.ca),
        "sslcert": str(own.certificate),
        "sslkey": str(file),
    }


def prefixed(prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The same settings under longer names."""
    return {f"{prefix}{name}": value for name, value in settings.items()}


def properties(settings: Mapping[str, str]) -> str:
    r"""The text of a properties file, in which a backslash escapes what follows it."""
    return "".join(f"{name}={value}\n".replace("\\", "\\\\") for name, value in settings.items())


def _private(file: Path, content: bytes) -> None:
    file.touch(0o600)
    file.write_bytes(content)
