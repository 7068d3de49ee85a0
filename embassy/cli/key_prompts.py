"""Passphrases and confirmations asked for, and signatures given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, TypeVar

import click

from embassy.cli.auditing import Audited
from embassy.model.errors import ConfigurationError
from embassy.wire import passphrase
from embassy.wire.keyring import load_operator
from embassy.wire.signed_document import Signer


class _Signable(Protocol):
    """A document that operators sign."""

    def signed(self, operator: Signer, /) -> Self:
        """The same with a signature added."""


D = TypeVar("D", bound=_Signable)


def ask(path: Path) -> Callable[[], bytes] | None:
    """A prompt where there is a terminal, else the default."""
    if passphrase.from_file() is not None or not sys.stdin.isatty():
        return None
    return lambda: str(click.prompt(f"Passphrase of {path}", hide_input=True, err=True)).encode()


def new_passphrase() -> bytes:
    """The passphrase of a new key.

    Raises:
        ConfigurationError: there is neither a file that holds it nor a terminal.
    """
    found = passphrase.from_file()
    if found is not None:
        return found()
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "a passphrase is wanted, and there is no terminal to ask at",
            hint=f"name the file that holds it in {passphrase.VARIABLE}",
        )
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)).encode()


def confirm(question: str) -> None:
    """Ask a person; returns if the answer is yes.

    Raises:
        ConfigurationError: there is neither an answer nor a terminal to ask at.
        click.Abort: the answer is no.
    """
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise ConfigurationError(
            f"nobody answers, and there is no terminal to ask at: {question}",
            hint="read what is shown above; if it is what you mean, run the same command with --yes",
        ) from None
    if not agreed:
        raise click.Abort


def signed_by(document: D, operators: tuple[Path, ...], under_way: Audited) -> D:
    """The document with the signatures of operators' keys; the persons are noted.

    Raises:
        ConfigurationError: a key cannot be used.
        RefusedError: one of them has signed it already.
    """
    persons: list[str] = []
    for path in operators:
        operator = load_operator(path, ask(path))
        persons.append(operator.public.person)
        under_way.note(persons=persons)
        document = document.signed(operator)
    return document
