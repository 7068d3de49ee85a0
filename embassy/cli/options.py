"""The options before the command, and the configuration they lead to."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from embassy.model.errors import ConfigurationError
from embassy.runtime import config
from embassy.runtime.config import Settings, Stream

COMPLETION_VARIABLE = "_EMBASSY_COMPLETE"
"""Set by the shell's script when it asks for completions."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What stands before the command: ``embassy -c FILE -r NAME --json COMMAND``."""

    config: Path | None = None
    registries: tuple[str, ...] = ()
    as_json: bool = False
    log_level: str = "info"

    @property
    def place(self) -> str:
        """The configuration file, for messages."""
        return str(self.config or "")

    def settings(self) -> Settings:
        """Read the configuration.

        Raises:
            ConfigurationError: no file was named, or it does not hold; a misspelt override in the
                environment is an error like a misspelt key in the file.
        """
        if self.config is None:
            raise ConfigurationError("no configuration file was named", hint="pass -c FILE or set EMBASSY_CONFIG")
        strange = unknown_overrides(os.environ)
        if strange:
            raise ConfigurationError("; ".join(strange), place="environment")
        return config.load(self.config)

    def streams(self, settings: Settings) -> dict[str, Stream]:
        """The configured streams, or those that ``-r`` names.

        Raises:
            ConfigurationError: there are none, or one that ``-r`` names is not in the file.
        """
        if not settings.streams:
            raise ConfigurationError(
                "no stream is configured", place=self.place, hint="add a [streams.NAME] table"
            )
        for name in self.registries:
            if name not in settings.streams:
                known = sorted(settings.streams)
                near = difflib.get_close_matches(name, known, n=1)
                raise ConfigurationError(
                    f"no stream {name!r}" + (f", did you mean {near[0]!r}?" if near else ""),
                    place=self.place,
                    hint=f"configured are {', '.join(known)}",
                )
        return {name: s for name, s in settings.streams.items() if not self.registries or name in self.registries}

    def need(self, value: T | None, key: str) -> T:
        """A value that this command cannot do without.

        Raises:
            ConfigurationError: it is not in the file; the message names its key.
        """
        if value is None or value == ():
            raise ConfigurationError(
                f"{key} is missing", place=self.place, hint=f"this command needs it: add {key} to the file"
            )
        return value

    def identity_file(self, settings: Settings) -> Path:
        """The one secret identity file of a site that signs as itself.

        Raises:
            ConfigurationError: there is none, or there are several.
        """
        files = self.need(settings.keys.identity_files, "keys.identity")
        if len(files) > 1:
            raise ConfigurationError(
                f"keys.identity leads to {len(files)} files, and this command signs with one",
                place=self.place,
                hint="name the one",
            )
        return files[0]


def complete_stream(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """For a shell: the streams of the configuration that the line, or the environment, names; none if it has no such."""
    named = ctx.find_root().params.get("config") or os.environ.get("EMBASSY_CONFIG")
    try:
        streams = tomllib.loads(Path(named).expanduser().read_text(encoding="utf-8"))["streams"] if named else {}
    except (OSError, ValueError, KeyError):
        return []
    return [name for name in streams if name.startswith(incomplete)]


pass_options = click.make_pass_decorator(Options)


def unknown_overrides(environment: Mapping[str, str]) -> list[str]:
    """Overrides (EMBASSY_SECTION__KEY) of sections that do not exist; of unknown keys, `config.load` tells."""
    known = [name.upper() for name in Settings.model_fields]
    complaints = []
    for name in sorted(environment):
        section, override, _ = name.upper().removeprefix("EMBASSY_").partition("__")
        if not name.upper().startswith("EMBASSY_") or not override or section in known:
            continue
        near = difflib.get_close_matches(section, known, n=1)
        complaints.append(
            f"{name}: no section {section.lower()!r}"
            + (f", did you mean {near[0].lower()!r}?" if near else f"; known are {', '.join(known).lower()}")
        )
    return complaints
