"""`pillion completion SHELL`: a script that lets the shell complete commands, options and queues."""

from __future__ import annotations

import click

from pillion.cli.exits import Exit

HOWTO = """\b
    bash    eval "$(pillion completion bash)"         in ~/.bashrc
    zsh     eval "$(pillion completion zsh)"          in ~/.zshrc
    fish    pillion completion fish | source          in ~/.config/fish/config.fish
"""


@click.command("completion", help=f"Print a script that makes SHELL complete this command line.\n\n    {HOWTO}")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(shell: str) -> int:
    """Print it."""
    from click.shell_completion import get_completion_class

    from pillion.cli.app import COMPLETION, pillion

    known = get_completion_class(shell)
    if known is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(known(pillion, {}, "pillion", COMPLETION).source())
    return Exit.DONE
