"""Where everything of a lab is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of a lab.

    Attributes:
        home: the lab's own folder, removed by ``down`` except for a cache in it.
        cache: the unpacked servers, kept.
    """

    home: Path
    cache: Path

    @classmethod
    def choose(cls, home: Path | None = None, cache: Path | None = None) -> Layout:
        """The given folders, else those of EMBASSY_LAB_HOME and EMBASSY_LAB_CACHE, else ``.lab`` of the project."""
        project = _PROJECT if (_PROJECT / "pyproject.toml").is_file() else Path.cwd()
        home = home or _from_environment("EMBASSY_LAB_HOME") or project / ".lab"
        cache = cache or _from_environment("EMBASSY_LAB_CACHE") or project / ".lab" / "cache"
        return cls(home.absolute(), cache.absolute())

    @property
    def state(self) -> Path:
        """The state file."""
        return self.home / "state.json"

    @property
    def lock(self) -> Path:
        """Held while a command changes the lab."""
        return self.home / "lab.lock"

    @property
    def sites(self) -> Path:
        """The servers' folders, or a link to where they are."""
        return self.home / "sites"

    @property
    def certificates(self) -> Path:
        """Authorities and client certificates."""
        return self.home / "certificates"

    @property
    def keys(self) -> Path:
        """Key files and enrolments of the product."""
        return self.home / "keys"

    @property
    def config(self) -> Path:
        """The roles' configuration files."""
        return self.home / "config"

    @property
    def schemas(self) -> Path:
        """The sources' schemas, from which replicas are made."""
        return self.home / "schemas"

    @property
    def roles(self) -> Path:
        """The logs and addresses of roles that run in the lab."""
        return self.home / "roles"

    @property
    def promotion(self) -> Path:
        """A rehearsed promotion's plan, its report, and what home never shipped."""
        return self.home / "promotion"


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None
