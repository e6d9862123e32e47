"""Completion of `data2vec2` by a shell: `data2vec2 completion bash|zsh|fish`. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from data2vec2.commands.flags import all_flags, own_flags
from data2vec2.config.run import FinetuneConfig, RunConfig

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_data2vec2() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} first="" flags=""
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then first="{verbs}"; elif [ "$COMP_CWORD" -ne 2 ]; then first=""; fi
    case $word in -*) first=$flags ;; esac
    COMPREPLY=($(compgen -W "$first" -- "$word"))
}}
complete -o default -F _data2vec2 data2vec2
"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def script(shell: str, verbs: Mapping[str, type], first: Mapping[str, Iterable[str]]) -> str:
    """What the shell should read: verbs, then what may come `first` after one, flags after a dash, else files."""
    configs = {**dict.fromkeys(("pretrain", "estimate", "bench", "demo"), RunConfig), "finetune": FinetuneConfig}
    words = {
        verb: " ".join([*own_flags(kind), "--help", *(all_flags(configs[verb]) if verb in configs else ())])
        for verb, kind in verbs.items()
    } | {"help": "", "completion": ""}
    following = {verb: " ".join(first.get(verb, ())) for verb in words}
    following |= {"help": " ".join(verbs), "completion": " ".join(SHELLS)}
    if shell == "fish":
        lines = [f'complete -c data2vec2 -n __fish_use_subcommand -f -a "{" ".join(words)}"']
        for verb, flags in words.items():
            after = f'complete -c data2vec2 -n "__fish_seen_subcommand_from {verb}"'
            lines += [f'{after} -a "{following[verb]}"', *(f"{after} -l {flag[2:]}" for flag in flags.split())]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f'        {verb}) first="{following[verb]}" flags="{flags}" ;;' for verb, flags in words.items())
    return _ZSH * (shell == "zsh") + _BASH.format(cases=cases, verbs=" ".join(words))
