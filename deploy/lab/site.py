"""A site of the lab: one PostgreSQL server and one Kafka cluster, with the certificates of their roles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deploy.lab import databases, kafka_access
from deploy.lab.certificates import Authority, now_utc
from deploy.lab.kafka_broker import KafkaBroker
from deploy.lab.postgres_server import SUPERUSER, PostgresServer
from deploy.lab.server import Server
from deploy.lab.state import RegistryState
from embassy.model.errors import TransientError

HOME = "home"
_PORT_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Site:
    """One site.

    Attributes:
        name: ``home``, or an embassy's name.
    """

    name: str
    kafka: KafkaBroker
    postgres: PostgresServer

    @property
    def is_home(self) -> bool:
        """Whether the registries live here."""
        return self.name == HOME

    @property
    def kafka_roles(self) -> tuple[str, ...]:
        """The roles that have a certificate for the brokers."""
        return kafka_access.HOME_ROLES if self.is_home else kafka_access.EMBASSY_ROLES

    @property
    def postgres_roles(self) -> tuple[str, ...]:
        """The roles that have a certificate for the databases."""
        return (SUPERUSER, *(databases.HOME_ROLES if self.is_home else databases.EMBASSY_ROLES))

    def bring_up_postgres(self, registries: Mapping[str, RegistryState], taken: set[int]) -> None:
        """Make, start and fill the database server; whatever is there already stays."""
        server = self.postgres
        if not server.alive:
            renew(server.authority, self.postgres_roles)
        _start(server, taken)
        server.announce(f"{self.name} postgres", "making roles and databases")
        databases.make_roles(server, databases.HOME_ROLES if self.is_home else databases.EMBASSY_ROLES)
        databases.make_databases(server, registries, with_tables=self.is_home)
        server.announce(f"{self.name} postgres", "ready")

    def bring_up_kafka(self, taken: set[int]) -> None:
        """Make and start the broker and write its access lists; whatever is there already stays."""
        broker = self.kafka
        if not broker.alive:
            renew(broker.authority, self.kafka_roles)
        _start(broker, taken)
        broker.announce(f"{self.name} kafka", "granting access")
        kafka_access.grant_access(broker.admin_client(), home=self.is_home)
        broker.announce(f"{self.name} kafka", "ready")


def renew(authority: Authority, roles: Iterable[str]) -> None:
    """Make the authority and its roles' certificates anew unless they are valid for long enough."""
    now = now_utc()
    if authority.is_current(now) and all(authority.client(role).certificate.is_file() for role in roles):
        return
    authority.found(now)
    for role in roles:
        authority.issue_client(role)


def _start(server: Server, taken: set[int]) -> None:
    """Start a server; if its port was taken meanwhile, on another one.

    Raises:
        TransientError: it does not start.
    """
    subject = f"{server.site} {server.ledger.kind}"
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        if server.alive:
            break
        if not server.ports_are_free:
            server.relocate(taken)
        server.await_predecessors()
        server.prepare()
        server.announce(subject, "starting")
        try:
            server.start()
        except TransientError:
            if attempt == _PORT_ATTEMPTS or server.alive or server.ports_are_free:
                raise
        else:
            return
    server.wait_ready()
