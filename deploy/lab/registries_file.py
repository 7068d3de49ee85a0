"""The file that names the registries of a lab."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embassy.model.errors import ConfigurationError

RegistryName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""A registry's name is also the name of its database on both sides."""

_RESERVED = frozenset({"postgres", "template0", "template1"})


class Registry(BaseModel):
    """One registry.

    Attributes:
        title: for people.
        schema_file: absolute path of the SQL that makes its tables; None leaves the databases empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    schema_file: Path | None = Field(default=None, alias="schema")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    registries: dict[RegistryName, Registry] = Field(min_length=1)


def default_registries_file() -> Path:
    """The file of the demo's registries, shipped with the product."""
    return Path(str(files("deploy.lab") / "registries.toml"))


def read_registries(path: Path) -> dict[str, Registry]:
    """Read a registries file.

    Raises:
        ConfigurationError: it cannot be read, has an unknown key or a bad name, or names an SQL file that does
            not exist.
    """
    try:
        content = _File(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"cannot read the registries: {error.strerror}", place=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"not valid TOML: {error}", place=str(path)) from error
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(
            complaints, place=str(path), hint="a registry is a table [registries.NAME] with title and schema"
        ) from error
    return {name: _located(path, name, registry) for name, registry in content.registries.items()}


def _located(path: Path, name: str, registry: Registry) -> Registry:
    place = f"{path}: registries.{name}"
    if name in _RESERVED:
        raise ConfigurationError(f"{name!r} is a database of PostgreSQL itself", place=place)
    if registry.schema_file is None:
        return registry
    schema_file = (path.absolute().parent / registry.schema_file).resolve()
    if not schema_file.is_file():
        raise ConfigurationError("the schema file does not exist", place=f"{place}: {schema_file}")
    return registry.model_copy(update={"schema_file": schema_file})
