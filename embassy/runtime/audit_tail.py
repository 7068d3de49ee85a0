"""The newest entries of the audit log, for who shows them again and again and cannot read the whole file each time."""

from __future__ import annotations

from pathlib import Path

from embassy.runtime.audit_line import LINE_BYTES_MOST, WHOLE, AuditEntry, broken, parsed, previous_of, unopened

_WINDOW_BYTES = 4 * LINE_BYTES_MOST


def newest_entries(path: Path, most: int) -> tuple[AuditEntry, ...]:
    """So many of the last entries at most, newest first, each proven to follow the one before it among them.

    That nothing before them was changed, only `audit_chain.verify` proves. A line that was torn by a crash is left out.

    Raises:
        IntegrityError: one of them was changed, taken out or put in.
        ConfigurationError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _WINDOW_BYTES))
            lines = file.read(_WINDOW_BYTES).splitlines(keepends=True)
    except OSError as error:
        raise unopened(error, path) from error
    found: list[AuditEntry] = []
    for line in lines[1 if size > _WINDOW_BYTES else 0 :]:
        entry = parsed(line)
        if entry is None:
            if WHOLE.search(line):
                raise broken(path, None, "an entry near its end was changed: its hash does not hold")
            continue
        if found and previous_of(line) != found[-1].hash:
            raise broken(path, None, f"entry {entry.sequence} does not follow the entry before it")
        found.append(entry)
    return tuple(found[: -most - 1 : -1])
