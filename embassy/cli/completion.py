"""``embassy completion``: the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from embassy.cli.options import COMPLETION_VARIABLE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  embassy completion bash > ~/.local/share/bash-completion/completions/embassy
    zsh:   embassy completion zsh > ~/.zfunc/_embassy
    fish:  embassy completion fish > ~/.config/fish/completions/embassy.fish
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    found = get_completion_class(shell)
    assert found is not None, "click knows these three"
    click.echo(found(ctx.find_root().command, {}, "embassy", COMPLETION_VARIABLE).source())
