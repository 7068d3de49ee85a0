"""The operating-system account that the servers run as, and folders that it can reach.

PostgreSQL refuses to run as root. When root starts the lab (a container, a CI machine), the servers run as
``postgres`` or else ``nobody``; anyone else runs them as themselves.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from embassy.model.errors import ConfigurationError

_CANDIDATES = ("postgres", "nobody")


class Identity(TypedDict, total=False):
    """The options of ``subprocess`` that choose who runs a program; none at all keeps the caller."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine.

    Attributes:
        identity: what ``subprocess`` needs to run a program as this user.
    """

    name: str
    uid: int
    gid: int
    identity: Identity

    @classmethod
    def for_servers(cls) -> Account:
        """The account for servers: the caller, or an unprivileged one if the caller is root.

        Raises:
            ConfigurationError: the caller is root and the machine has no unprivileged account.
        """
        uid = os.geteuid()
        if uid != 0:
            return cls(name=str(uid), uid=uid, gid=os.getegid(), identity={})
        for name in _CANDIDATES:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            identity = Identity(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
            return cls(name=name, uid=entry.pw_uid, gid=entry.pw_gid, identity=identity)
        raise ConfigurationError(
            "PostgreSQL refuses to run as root and there is no other account to run it as",
            hint=f"run the lab as an ordinary user, or create the user {_CANDIDATES[0]!r}",
        )

    def own(self, path: Path) -> None:
        """Give a file or folder to this account."""
        if self.identity:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def reaches(self, path: Path) -> bool:
        """Whether this account can enter the folder or read and execute the file."""
        question = subprocess.run(
            ["/bin/sh", "-c", '[ -r "$0" ] && [ -x "$0" ]', path], cwd="/", check=False, **self.identity
        )
        return question.returncode == 0


def sheltered(folder: Path, account: Account) -> Path:
    """Make a folder that the account can enter, and return where it really is.

    It is made in place if the account can get there. If a parent keeps others out (a project under a private
    home folder), it moves to the system's temporary folder and a symbolic link stays in its place.
    """
    if folder.is_symlink() and not folder.exists():
        folder.unlink()  # the temporary folder was cleared, by a reboot for instance
    folder.mkdir(parents=True, exist_ok=True)
    real = folder.resolve()
    if account.reaches(real):
        return real
    elsewhere = Path(tempfile.mkdtemp(prefix="embassy-lab-"))
    elsewhere.chmod(0o755)
    for entry in real.iterdir():
        shutil.move(entry, elsewhere / entry.name)
    if folder.is_symlink():
        folder.unlink()
    else:
        folder.rmdir()
    folder.symlink_to(elsewhere)
    return elsewhere


def remove_sheltered(folder: Path) -> None:
    """Remove a folder made by ``sheltered``, wherever it is, and its link."""
    real = folder.resolve()
    if folder.is_symlink():
        folder.unlink()
    if real.exists():
        shutil.rmtree(real)
