"""The registries whose business is known, by name."""

from __future__ import annotations

from importlib.resources import files
from random import Random

import psycopg

from deploy.workload.registries import (
    business,
    court_files,
    identity_documents,
    land_cadastre,
    land_register,
    pension_insurance,
    population,
    state_gazette,
    taxable_persons,
    treasury,
)
from deploy.workload.registry import RegistryWorkload, Scale, no_rows

_KNOWN = {
    known.name: known
    for known in (
        treasury.WORKLOAD,
        pension_insurance.WORKLOAD,
        business.WORKLOAD,
        population.WORKLOAD,
        land_cadastre.WORKLOAD,
        identity_documents.WORKLOAD,
        land_register.WORKLOAD,
        taxable_persons.WORKLOAD,
        state_gazette.WORKLOAD,
        court_files.WORKLOAD,
    )
}


def names() -> tuple[str, ...]:
    """Return the registries of the demonstration, in its order."""
    return tuple(_KNOWN)


def workload(name: str) -> RegistryWorkload:
    """Return the business of a registry; for one that only its SQL file describes, an empty one."""
    return _KNOWN.get(name) or without_business(name)


def without_business(name: str) -> RegistryWorkload:
    """Return the empty business of a registry that only its SQL file describes."""
    return RegistryWorkload(name=name, schema="", seed_rows=no_rows, transactions=(), invariants=())


def schema_sql(name: str) -> str:
    """Return the DDL of a registry of the demonstration.

    Raises:
        FileNotFoundError: no such registry is part of the demonstration.
    """
    return files("schemas").joinpath("registries", f"{name}.sql").read_text(encoding="utf-8")


def seed(dsn: str, registry: RegistryWorkload, *, seed: int, scale: Scale | None = None) -> None:
    """Fill an empty registry in one transaction; the same seed gives the same business.

    Raises:
        psycopg.Error: the registry is not empty, or its tables are not those of its SQL file.
    """
    rng = Random(f"{seed}/{registry.name}")  # noqa: S311 - believable, not secret
    with psycopg.connect(dsn, application_name=f"seed {registry.name}") as connection:
        registry.seed_rows(connection, rng, scale or Scale())
