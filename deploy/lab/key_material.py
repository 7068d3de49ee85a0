"""The lab's keys and enrolments, where the roles' configurations look for them.

A real site's keys are made by its people, each on a machine of their own; here one folder holds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from deploy.lab import role_configs
from deploy.lab.layout import Layout
from deploy.lab.site import HOME
from deploy.lab.state import LabState
from embassy.model.lsn import Lsn
from embassy.wire.enrolment import EnrolmentFile, load_enrolment, stream_id
from embassy.wire.key_document import PublicHalf
from embassy.wire.keyring import (
    generate_identity,
    generate_operator,
    generate_recipient,
    load_identity,
    load_operator,
    load_recipient,
    write_public,
)
from embassy.wire.secret_file import write_new

_OWNER_ONLY = 0o700
_FIRST_EPOCH = 1
_SLOT_DECIDES = Lsn(0)


class _Key(Protocol):
    @property
    def half(self) -> PublicHalf: ...


def ensure(layout: Layout, state: LabState) -> None:
    """Make the keys and enrolments that a lab of this state needs and does not have.

    Raises:
        ConfigurationError: what is there cannot be used.
    """
    layout.keys.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
    for person in role_configs.OPERATORS:
        _keep(role_configs.operator(layout, person), partial(generate_operator, person=person), load_operator)
    for identity in (role_configs.identity(layout), role_configs.next_identity(layout)):
        _keep(identity, generate_identity, load_identity)
    _keep(role_configs.recipient(layout, HOME), generate_recipient, load_recipient)
    for embassy in state.embassies:
        _keep(role_configs.recipient(layout, embassy), generate_recipient, load_recipient)
        _keep(role_configs.embassy_identity(layout, embassy), generate_identity, load_identity)
    for registry in state.registries.values():
        enrol(layout, registry.stream, state.embassies)


def enrol(layout: Layout, stream: str, embassies: Iterable[str] = ()) -> None:
    """Let the operators enrol a stream's writers, unless they have: home, each embassy when it is promoted, home again.

    Raises:
        ConfigurationError: there is an enrolment, and it does not hold.
    """
    home, after = role_configs.identity(layout), role_configs.next_identity(layout)
    _enrol(layout, stream, role_configs.enrolment(layout, stream), _FIRST_EPOCH, home)
    for embassy in embassies:
        path = role_configs.reverse_enrolment(layout, stream, embassy)
        _enrol(layout, stream, path, _FIRST_EPOCH + 1, role_configs.embassy_identity(layout, embassy))
    _enrol(layout, stream, role_configs.next_enrolment(layout, stream), _FIRST_EPOCH + 2, after)


def _enrol(layout: Layout, stream: str, path: Path, epoch: int, identity: Path) -> None:
    if not path.exists():
        file = EnrolmentFile.draft(
            stream=stream_id(stream),
            epoch=epoch,
            producer=load_identity(identity).public,
            start_lsn=_SLOT_DECIDES,
        )
        for person in role_configs.OPERATORS[: role_configs.THRESHOLD]:
            file = file.signed(load_operator(role_configs.operator(layout, person)))
        path.parent.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        write_new(path, file.render(), mode=0o644)
    load_enrolment(
        path,
        operators=[
            role_configs.public(role_configs.operator(layout, person)) for person in role_configs.OPERATORS
        ],
        threshold=role_configs.THRESHOLD,
        stream=stream,
    )


def _keep(path: Path, generate: Callable[[Path], object], load: Callable[[Path], _Key]) -> None:
    """Make a key, or, where an interrupted start has left it without its public file, that one."""
    if not path.exists():
        generate(path)
    elif not role_configs.public(path).exists():
        write_public(path, load(path).half)
