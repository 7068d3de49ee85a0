"""Putting a site's parts together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deploy.lab.account import Account, sheltered
from deploy.lab.artifacts import ArtifactCache, KafkaPrograms, PostgresPrograms
from deploy.lab.certificates import Authority
from deploy.lab.kafka_broker import KafkaBroker
from deploy.lab.layout import Layout
from deploy.lab.postgres_server import PostgresServer
from deploy.lab.site import HOME, Site
from deploy.lab.state import Ledger, StateFile
from deploy.lab.waiting import Announce, Patience


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every server of a lab is made with."""

    layout: Layout
    file: StateFile
    account: Account
    patience: Patience
    announce: Announce
    kafka_programs: Callable[[], KafkaPrograms]
    postgres_programs: Callable[[], PostgresPrograms]

    @classmethod
    def at(cls, layout: Layout, announce: Announce) -> Workshop:
        """The workshop of a lab's folders; nothing is made yet."""
        account = Account.for_servers()
        patience = Patience()
        file = StateFile(layout.state)

        @cache
        def artifacts() -> ArtifactCache:
            return ArtifactCache(sheltered(layout.cache, account), account, patience, announce)

        return cls(
            layout=layout,
            file=file,
            account=account,
            patience=patience,
            announce=announce,
            kafka_programs=cache(lambda: artifacts().kafka()),
            postgres_programs=cache(lambda: artifacts().postgres(file.must_read().postgres)),
        )

    def site(self, name: str) -> Site:
        """A site of the lab; its servers may run or not."""
        folder = self.layout.sites.resolve() / name
        return Site(name=name, kafka=self._kafka(name, folder), postgres=self._postgres(name, folder))

    def _kafka(self, site: str, folder: Path) -> KafkaBroker:
        return KafkaBroker(
            site=site,
            folder=folder / "kafka",
            authority=Authority(self.layout.certificates / site / "kafka", f"{site} kafka authority"),
            ledger=Ledger(self.file, site, "kafka"),
            account=self.account,
            patience=self.patience,
            announce=self.announce,
            programs=self.kafka_programs,
        )

    def _postgres(self, site: str, folder: Path) -> PostgresServer:
        return PostgresServer(
            site=site,
            folder=folder / "postgres",
            authority=Authority(self.layout.certificates / site / "postgres", f"{site} postgres authority"),
            ledger=Ledger(self.file, site, "postgres"),
            account=self.account,
            patience=self.patience,
            announce=self.announce,
            programs=self.postgres_programs,
            extra_settings=() if site == HOME else (("track_commit_timestamp", "on"),),
        )
