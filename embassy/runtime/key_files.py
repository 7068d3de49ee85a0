"""Which files a list of key files means: a folder in it stands for the key files in that folder.

So a key is added or taken away by adding or moving a file, and a service that is told to reload sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from embassy.model.errors import ConfigurationError

_PUBLIC = ".pub.json"


def secret_files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The secret key files: of a folder, all ``*.json`` but the public ones.

    Raises:
        ConfigurationError: a folder cannot be read.
    """
    return _expanded(paths, public=False)


def public_files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The public key files: of a folder, all ``*.pub.json``.

    Raises:
        ConfigurationError: a folder cannot be read.
    """
    return _expanded(paths, public=True)


def _expanded(paths: Iterable[Path], *, public: bool) -> tuple[Path, ...]:
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            names = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the folder of keys: {error.strerror}",
                place=str(path),
                hint="correct its mode or owner",
            ) from error
        found += [
            path / name
            for name in names
            if name.endswith(_PUBLIC if public else ".json")
            and (public or not name.endswith(_PUBLIC))
            and not name.startswith(".")
        ]
    return tuple(found)
