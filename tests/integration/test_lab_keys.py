"""The keys and enrolments of a lab, as a grown one needs them; no server is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.lab import key_material, role_configs
from deploy.lab.layout import Layout
from deploy.lab.plan import Wish, planned
from deploy.lab.state import LabState
from embassy.model.errors import ConfigurationError
from embassy.wire.enrolment import Enrolment, load_enrolment
from embassy.wire.keyring import load_identity, load_operator, load_public_recipient, load_recipient
from tests.harness.lab import write_registries


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "lab", tmp_path / "cache")


def enrolled(layout: Layout, stream: str) -> Enrolment:
    return load_enrolment(
        role_configs.enrolment(layout, stream),
        operators=[
            role_configs.public(role_configs.operator(layout, person)) for person in role_configs.OPERATORS
        ],
        threshold=role_configs.THRESHOLD,
        stream=stream,
    )


def small(tmp_path: Path, *registries: str, before: LabState | None = None, embassies: int = 1) -> LabState:
    return planned(
        before, Wish(registries=write_registries(tmp_path, *registries), embassies=embassies), "someone"
    )


def test_every_role_finds_its_keys_and_every_stream_is_enrolled(tmp_path: Path, layout: Layout) -> None:
    state = small(tmp_path, "alpha", "beta", embassies=2)
    key_material.ensure(layout, state)
    identity = load_identity(role_configs.identity(layout))
    for registry in state.registries.values():
        enrolment = enrolled(layout, registry.stream)
        assert enrolment.producer == identity.public
        assert enrolment.stream.hex() == registry.stream
    recipients = {load_recipient(role_configs.recipient(layout, name)).public for name in state.embassies}
    assert len(recipients) == 2
    public = [role_configs.public(role_configs.recipient(layout, name)) for name in state.embassies]
    assert {load_public_recipient(path) for path in public} == recipients


def test_secrets_are_the_owners_alone(tmp_path: Path, layout: Layout) -> None:
    key_material.ensure(layout, small(tmp_path, "alpha"))
    assert layout.keys.stat().st_mode & 0o777 == 0o700
    secrets = [path for path in layout.keys.iterdir() if path.is_file() and ".pub" not in path.suffixes]
    assert {path.name for path in secrets} == {
        "anna.operator.json",
        "bert.operator.json",
        "home.identity.json",
        "home-next.identity.json",
        "home.recipient.json",
        "embassy-1.identity.json",
        "embassy-1.recipient.json",
    }
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}


def test_a_second_time_changes_nothing_and_a_grown_lab_gets_what_it_lacks(tmp_path: Path, layout: Layout) -> None:
    before = small(tmp_path, "alpha")
    key_material.ensure(layout, before)
    files = {path: path.read_bytes() for path in layout.keys.rglob("*") if path.is_file()}
    key_material.ensure(layout, before)
    grown = small(tmp_path, "alpha", "beta", before=before, embassies=2)
    key_material.ensure(layout, grown)
    assert {path: path.read_bytes() for path in files} == files
    enrolled(layout, grown.registries["beta"].stream)
    load_recipient(role_configs.recipient(layout, "embassy-2"))


def test_a_public_file_that_an_interrupted_start_did_not_write_is_written(tmp_path: Path, layout: Layout) -> None:
    state = small(tmp_path, "alpha")
    key_material.ensure(layout, state)
    anna = role_configs.operator(layout, "anna")
    for secret in (anna, role_configs.identity(layout), role_configs.recipient(layout, "embassy-1")):
        role_configs.public(secret).unlink()
    key_material.ensure(layout, state)
    assert load_operator(anna).public.person == "anna"
    enrolled(layout, state.registries["alpha"].stream)
    load_public_recipient(role_configs.public(role_configs.recipient(layout, "embassy-1")))


def test_an_enrolment_that_does_not_hold_is_not_replaced(tmp_path: Path, layout: Layout) -> None:
    state = small(tmp_path, "alpha", "beta")
    key_material.ensure(layout, state)
    one, other = (role_configs.enrolment(layout, registry.stream) for registry in state.registries.values())
    one.write_bytes(other.read_bytes())
    with pytest.raises(ConfigurationError, match="is for stream"):
        key_material.ensure(layout, state)
