"""Commands that documents, help texts and errors name are commands, with these options and as many arguments."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from embassy.cli.main import embassy
from tests.unit.test_documents import DOCUMENTS, ROOT

_PROGRAM = re.compile(r"^(?:\$ )?(?:\w+=\S+ )?(?:\.venv/bin/)?(?:embassy(?:-\d)?|home-replica) (?![|→—])")
_INLINE = re.compile(r"`([^`\n]+)`")
_END = re.compile(r"\s{2,}|\s#\s|\s\||\s?;|\s&(?:\s|$)|\s2?>\s")
_SYNOPSIS = re.compile(r"[|]|…|\.\.\.|[\[\]]")
_NAMED = re.compile(r"\bembassy((?: (?:… |-c [\w.-]+ )?(?:[a-z][a-z-]+|--[a-z][a-z-]+))+)")


class NotACommandError(Exception):
    """What is documented does not exist."""


def parse(words: list[str], *, whole: bool) -> None:
    """Parse as the program would; where the words are not a whole command, arguments and options may be missing.

    Raises:
        NotACommandError: the program would refuse them.
    """
    command: click.Command = embassy
    while True:
        context = click.Context(command)
        try:
            given, rest, _ = command.make_parser(context).parse_args(list(words))
        except click.UsageError as error:
            raise NotACommandError(f"{command.name}: {error.format_message()}") from error
        missing = [
            parameter for parameter in command.params if parameter.required and not given.get(parameter.name)
        ]
        if whole and missing:
            raise NotACommandError(f"{command.name}: {', '.join(str(m.name) for m in missing)} missing")
        if not isinstance(command, click.Group) or not rest:
            if whole and rest:
                raise NotACommandError(f"{command.name}: what is {rest}")
            return
        found = command.get_command(context, rest[0])
        if found is None and command.invoke_without_command and not whole:
            return  # the sentence goes on
        if found is None:
            raise NotACommandError(f"{command.name} has no {rest[0]!r}")
        command, words = found, rest[1:]


def _commands(text: str) -> Iterator[tuple[str, bool]]:
    """Each command of a text that begins like one, and whether it is a line of its own."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("    ") and _PROGRAM.match(line.strip()):
            yield line.strip(), True
        for inline in _INLINE.findall(line):
            if _PROGRAM.match(inline):
                yield inline, False


def _words(command: str) -> list[str]:
    """Without what a shell or a reader takes for something else."""
    bare = _END.split(_PROGRAM.sub("", command), maxsplit=1)[0]
    return shlex.split(bare.removeprefix("… "))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_of_a_document_can_be_given(document: Path) -> None:
    for command, whole in _commands((ROOT / document).read_text(encoding="utf-8")):
        try:
            parse(_words(command), whole=whole and not _SYNOPSIS.search(_END.split(command, maxsplit=1)[0]))
        except (NotACommandError, ValueError) as error:
            pytest.fail(f"{document}: {command}: {error}")


def _all(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (child := command.get_command(context, name)) is not None:
                yield from _all(child, f"{path} {name}")


HELPS = list(_all(embassy, "embassy"))


@pytest.mark.parametrize(("path", "command"), HELPS, ids=[path for path, _ in HELPS])
def test_examples_of_a_help_text_can_be_given(path: str, command: click.Command) -> None:
    for paragraph in (command.help or "").split("\n\n"):
        if not paragraph.lstrip().startswith("\b\n"):
            continue  # prose; examples stand as they are
        for line in re.sub(r"\\\n\s*", " ", paragraph).splitlines():
            example = re.sub(r"^.*?:\s+(?=embassy )", "", line.strip())
            if _PROGRAM.match(example):
                try:
                    parse(_words(example), whole=not _SYNOPSIS.search(example))
                except (NotACommandError, ValueError) as error:
                    pytest.fail(f"{path} --help: {example}: {error}")


def _texts(file: Path) -> Iterator[str]:
    """The strings of a module, those with values in them with an ellipsis instead."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_commands_that_messages_name_are_there() -> None:
    top = set(embassy.list_commands(click.Context(embassy)))
    seen = 0
    for room in ("embassy", "producers", "bridge", "consumers", "failover"):
        for file in (ROOT / room).rglob("*.py"):
            for text in _texts(file):
                for named in _NAMED.findall(text):
                    words = [word for word in re.sub(r"… |-c [\w.-]+ ", "", named).split() if word != "…"]
                    if words[0] in top:
                        seen += 1
                        try:
                            parse([*words, "…"] if words[-1].startswith("--") else words, whole=False)
                        except NotACommandError as error:
                            pytest.fail(f"{file.relative_to(ROOT)}: embassy{named}: {error}")
    assert seen > 50


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["promote", "stop"], False),
        (["status", "--fail-rto", "3"], False),
        (["promote", "run", "plan.json"], True),
        (["keys", "list", "all"], True),
    ],
)
def test_what_is_no_command_is_seen(words: list[str], whole: bool) -> None:  # noqa: FBT001
    with pytest.raises(NotACommandError):
        parse(words, whole=whole)
