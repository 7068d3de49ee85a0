"""What the sections of the configuration have in common: frozen values, no unknown key, paths beside the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

_folder: ContextVar[Path] = ContextVar("folder", default=Path())


def _beside_file(path: Path) -> Path:
    return _folder.get() / path


FilePath = Annotated[Path, AfterValidator(_beside_file)]
"""A path; a relative one is relative to the file that it stands in."""


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@contextmanager
def beside(file: Path) -> Iterator[None]:
    """Inside the context, relative paths are relative to this file."""
    token = _folder.set(file.absolute().parent)
    try:
        yield
    finally:
        _folder.reset(token)
