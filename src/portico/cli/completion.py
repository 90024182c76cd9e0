"""`portico completion`: what a shell needs to complete commands, options and names of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import unquote

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from portico.cli import options

BUNDLED = "portico-tiny"

INSTALL = {
    "bash": "portico completion bash > ~/.local/share/bash-completion/completions/portico",
    "zsh": "portico completion zsh > ~/.zfunc/_portico        (a folder in $fpath)",
    "fish": "portico completion fish > ~/.config/fish/completions/portico.fish",
    "powershell": "portico completion powershell >> $PROFILE",
}


@click.command()
@click.argument("shell", type=click.Choice(tuple(INSTALL)))
@options.as_json
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the completion script of SHELL.

    \b
    bash        portico completion bash > ~/.local/share/bash-completion/completions/portico
    zsh         portico completion zsh > ~/.zfunc/_portico
    fish        portico completion fish > ~/.config/fish/completions/portico.fish
    powershell  portico completion powershell >> $PROFILE
    """
    found = get_completion_class(shell)
    assert found is not None, shell
    script = found(context.find_root().command, {}, "portico", "_PORTICO_COMPLETE").source()
    if shell == "bash":
        # bash breaks words at colons, so that qwen3:4b would be three of them.
        script = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n" + script
    if as_json:
        script = json.dumps({"schema": 1, "shell": shell, "script": script})
    click.echo(script)


class PowerShell(ShellComplete):
    """The one shell that click does not know. Words arrive a line each; so do completions."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object { $_.ToString() })
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORDS = $words -join "`n"
    $env:COMP_CWORD = $wordToComplete
    & %(prog_name)s | ForEach-Object {
        $value, $help = $_ -split "`t", 2
        if (-not $help) { $help = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
    }
    Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_CWORD
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        import os

        words = os.environ.get("COMP_WORDS", "").split("\n")
        return [word.strip("'\"") for word in words[1:]], os.environ.get("COMP_CWORD", "")

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{' '.join(item.help.split())}" if item.help else str(item.value)


add_completion_class(PowerShell)


def model_names(environ: Mapping[str, str]) -> list[str]:
    """Names of models on this machine, from the names of files alone: a shell waits for this, and reading
    what is in them, or asking a server, would be felt."""
    from portico.config import Config
    from portico.config_file import data_home, places
    from portico.errors import ConfigError
    from portico.ollama_env import model_folders

    try:
        config = places(environ)
    except ConfigError:
        # The command itself will say it; here it would stand between somebody and their Tab key.
        config = Config()
    folder = data_home(config, environ) / "models" / "manifests"
    ours = [unquote(path.stem) for path in folder.glob("*.json")]
    ollamas = [
        f"{path.parent.name}:{path.name}"
        for store in model_folders(str(config.ollama_models or environ.get("OLLAMA_MODELS", "")))
        for path in (store / "manifests").glob("*/library/*/*")
    ]
    return sorted({*ours, *ollamas, BUNDLED})
