"""Certificates of the lab's authorities that servers do not take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile

from deploy.lab.certificates import Authority, ClientCertificate, _write_private


def expired(authority: Authority, role: str, folder: Path) -> ClientCertificate:
    """One of a role that has just ended, in a folder of its own."""
    return ending(authority, role, folder, timedelta(seconds=-1))


def ending(authority: Authority, role: str, folder: Path, left: timedelta) -> ClientCertificate:
    """One of a role that ends then, in a folder of its own."""
    key, chain = authority._issue(role, server=False, end=datetime.now(UTC) + left)
    files = ClientCertificate(folder / f"{role}.pem", folder / f"{role}.key", authority.ca)
    _write_private(files.key, key)
    files.certificate.write_text(chain, encoding="ascii")
    return files


def renew(files: ClientCertificate, authority: Authority, role: str) -> None:
    """Put the role's valid one in its place."""
    valid = authority.client(role)
    copyfile(valid.key, files.key)
    copyfile(valid.certificate, files.certificate)
