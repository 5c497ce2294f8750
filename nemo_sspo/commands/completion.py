"""``nemo-sspo completion SHELL``: what a shell reads to complete commands, options, settings and choices with TAB.

The words are written into the script, so that a TAB starts no Python. After an update a new shell has the new ones.
"""

import argparse
import shlex
from collections.abc import Sequence
from typing import Any

from nemo_sspo.config.choices import groups
from nemo_sspo.config.describe import kinds_of_keys
from nemo_sspo.config.load import choices

Parser = argparse.ArgumentParser


def register(commands: "argparse._SubParsersAction[Any]", parser: Parser) -> None:
    """Add the command; it completes those of `parser`."""
    text = "print the script with which a shell completes commands and settings"
    how = 'eval "$(nemo-sspo completion bash)" in ~/.bashrc; zsh alike; nemo-sspo completion fish | source'
    sub = commands.add_parser("completion", help=text, description=f"{text}: {how}.")
    sub.add_argument("shell", choices=tuple(_SCRIPTS))
    sub.set_defaults(command=lambda options: show(options, parser), overrides=[])


def show(options: argparse.Namespace, parser: Parser) -> int:
    """Print the script."""
    print(_SCRIPTS[options.shell](parser))
    return 0


def commands_of(parser: Parser) -> dict[str, Parser]:
    """Sub-commands by name; empty where there are none."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: sub for action in actions for name, sub in action.choices.items()}


def options_of(parser: Parser) -> list[str]:
    """Long options, those of its sub-commands among them."""
    own = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    return list(dict.fromkeys([*own, *(option for sub in commands_of(parser).values() for option in options_of(sub))]))


def settings() -> list[str]:
    """Every group with each choice, and every other setting up to its ``=``."""
    known = [name for name in groups() if choices(name)]
    keys = kinds_of_keys()
    sections = {key.rpartition(".")[0] for key in keys}
    chosen = [f"{group}={choice}" for group in known for choice in choices(group)]
    return [*chosen, *(f"{key}=" for key in keys if key not in sections and not key.endswith(".kind"))]


def words_of(name: str, sub: Parser) -> list[str]:
    """What may follow a command, but for settings."""
    shells = list(_SCRIPTS) if name == "completion" else []
    return [*commands_of(sub), *shells, *options_of(sub)]


def takes_settings(sub: Parser) -> bool:
    """Whether it takes overrides, or the directory of a run."""
    return any(action.dest == "overrides" for action in sub._actions)


def _bash(parser: Parser) -> str:
    # Bash cuts the line at `=` and hands over what stands behind it, which replies must be without.
    return f"""_nemo_sspo() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" known=""
    local word="${{line##*[[:space:]]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        known={_quoted(commands_of(parser))}
    else
        case "${{COMP_WORDS[1]}}" in
{_cases(parser, "            {name}) known={words} ;;")}
        esac
        case "${{COMP_WORDS[1]}}" in
            {_alternatives(parser)}) known="$known "{_quoted(settings())} ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$known" -- "$word"))
    if [ "${{#COMPREPLY[@]}}" -eq 1 ] && [[ "${{COMPREPLY[0]}}" == *= ]]; then compopt -o nospace; fi
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then COMPREPLY=("${{COMPREPLY[@]#"${{word%%=*}}="}}"); fi
}}
complete -o default -F _nemo_sspo nemo-sspo"""


def _zsh(parser: Parser) -> str:
    return f"""_nemo_sspo() {{
    local -a known
    if (( CURRENT == 2 )); then
        known=({_listed(commands_of(parser))})
    else
        case $words[2] in
{_cases(parser, "            {name}) known=({list}) ;;")}
        esac
        case $words[2] in
            {_alternatives(parser)}) known+=({_listed(settings())}) ;;
        esac
    fi
    compadd -- ${{known:#*=}}
    compadd -S '' -- ${{(M)known:#*=}}
    (( CURRENT == 2 )) || _files
}}
compdef _nemo_sspo nemo-sspo"""


def _fish(parser: Parser) -> str:
    first = "complete -c nemo-sspo -n __fish_use_subcommand -f -a"
    lines = [f"{first} {name} -d {shlex.quote(_help(parser, name))}" for name in commands_of(parser)]
    for name, sub in commands_of(parser).items():
        of_command = f"complete -c nemo-sspo -n '__fish_seen_subcommand_from {name}'"
        words = [word for word in words_of(name, sub) if not word.startswith("-")]
        lines += [f"{of_command} -a {_quoted(words)}"] if words else []
        lines += [f"{of_command} -l {option.removeprefix('--')}" for option in options_of(sub)]
    names = _alternatives(parser).replace("|", " ")
    return "\n".join(
        [*lines, f"complete -c nemo-sspo -n '__fish_seen_subcommand_from {names}' -a {_quoted(settings())}"]
    )


def _cases(parser: Parser, line: str) -> str:
    found = {name: words_of(name, sub) for name, sub in commands_of(parser).items()}
    return "\n".join(line.format(name=name, words=_quoted(words), list=_listed(words)) for name, words in found.items())


def _alternatives(parser: Parser) -> str:
    return "|".join(name for name, sub in commands_of(parser).items() if takes_settings(sub))


def _help(parser: Parser, name: str) -> str:
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next((each.help or "" for each in action._choices_actions if each.dest == name), "")


def _quoted(words: Sequence[str] | dict[str, Any]) -> str:
    return shlex.quote(" ".join(words))


def _listed(words: Sequence[str] | dict[str, Any]) -> str:
    return " ".join(map(shlex.quote, words))


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
