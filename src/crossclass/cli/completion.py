"""`crossclass completion SHELL`: what the Tab key offers for commands, names, settings, values and files.

The script of a shell calls this command with the words typed so far. All that is offered is read from the
catalogue, so that torch is not imported.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from crossclass.cli.app import app, names
from crossclass.cli.catalogue import ONLY_IN_PYTHON, Catalogue, first_sentence, stored
from crossclass.core.errors import UserError

Offer = tuple[str, str]
"""A word that may stand there, and one line about it."""
_GOES_ON = ("=", ".", "/", "@")
"""Behind a word that ends so the shells put no blank."""
_TYPES = ("integer", "number", "text", "path", "value", "mapping", "settings", "list", "null", "a kind")
"""Words of `setting_docs.type_words` that are no values."""

_BASH = r"""
_crossclass() {
    local line=${COMP_LINE:0:COMP_POINT} words word start offer
    read -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[${#words[@]}-1]}
    start=${COMP_WORDBREAKS//[[:space:]]/}  # bash replaces what stands behind the last of these, such as =
    start=${word%"${word##*[$start]}"}
    start=${start%@}  # but keeps an @
    COMPREPLY=()
    while IFS= read -r offer; do
        COMPREPLY+=("${offer#"$start"}")
    done < <("${1/#\~/$HOME}" completion bash -- "${words[@]:1}" 2> /dev/null)
}
complete -o nospace -o bashdefault -o default -F _crossclass crossclass
"""
_ZSH = r"""#compdef crossclass
_crossclass() {
    local line word
    local -a whole open
    local program=${words[1]/#\~/$HOME}
    for line in "${(@f)$("$program" completion zsh -- "${(@Q)words[2,CURRENT]}" 2> /dev/null)}"; do
        word=${line%%$'\t'*}
        line="${word//:/\\:}:${line#*$'\t'}"
        if [[ $word == *[=./@] ]]; then open+=("$line"); else whole+=("$line"); fi
    done
    _describe crossclass whole -- open -S ''
}
if [[ ${funcstack[1]} == _crossclass ]]; then _crossclass "$@"; else compdef _crossclass crossclass; fi
"""
_FISH = r"""
function __crossclass
    set -l words (commandline -opc) (string unescape -- (commandline -ct))
    set -l program (string replace -r '^~' $HOME -- $words[1])
    $program completion fish -- $words[2..-1] 2> /dev/null
end
complete -c crossclass -f -a '(__crossclass)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Your shell")],
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> None:
    """Print the script of completion with the Tab key.

    It completes commands, names of runs, settings and their values, files, and the checkpoints behind RUN@,
    in new shells (in zsh after compinit).

    \b
    Examples:
      crossclass completion bash >> ~/.bashrc
      crossclass completion zsh >> ~/.zshrc
      crossclass completion fish > ~/.config/fish/completions/crossclass.fish
    """
    if shell not in _SCRIPTS:
        raise UserError(f"there is no completion for '{shell}'; say bash, zsh or fish")
    if words is None:
        print(_SCRIPTS[shell].strip())
        return
    for word, about in offers(words):
        if shell == "bash":
            word = re.sub(r"([^\w@%+=:,./~-])", r"\\\1", word)
            print(word if word.endswith(_GOES_ON) else f"{word} ")
        else:
            print(f"{word}\t{about}")


def offers(words: Sequence[str]) -> list[Offer]:
    """What may stand in the place of the last word.

    Args:
        words: The command line so far without the program's name; the last word may be begun or empty.
    """
    *before, word = words or [""]
    found = _commands() if not before or before == ["help"] else _of_command(before[0], before[1:], word)
    return list({word_: about for word_, about in found if word_.startswith(word)}.items())


def _commands() -> Iterator[Offer]:
    for command in app.registered_commands:
        text = command.help or (command.callback.__doc__ if command.callback else "") or ""
        name = command.name or str(getattr(command.callback, "__name__", ""))
        yield name, text.strip().split("\n")[0]
    yield from (("help", "Show the help of a command."), ("--help", ""), ("--version", ""))


def _of_command(name: str, before: Sequence[str], word: str) -> Iterator[Offer]:
    if name not in names():
        return
    parameters = typer.main.get_command(app).commands[name].params  # type: ignore[attr-defined]
    if word.startswith("-"):
        for option in parameters:
            if option.param_type_name == "option":
                yield from ((typed, getattr(option, "help", "") or "") for typed in option.opts)
        yield "--help", "Show this message and exit."
        return
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    position = sum(not one.startswith("-") for one in before)
    if position >= len(arguments) and not (arguments and arguments[-1].nargs == -1):
        return
    argument, found = arguments[min(position, len(arguments) - 1)], stored()
    target = "shapes-demo" if name == "demo" else next((one for one in before if one in found.settings), "")
    yield from _targets(name, argument.metavar or "", word, found)
    if name == "show" and position:  # how it differs from others
        yield from _targets(name, "NAME", word, found)
    if argument.nargs == -1:
        classes = [found.class_of[target]] if name == "show" and target else found.commands.get(name, [])
        command = "train" if name == "show" and target and found.class_of[target].endswith(".Run") else name
        typed = dict(found.settings.get(target, ()))
        typed |= {path: text for path, sign, text in (one.partition("=") for one in before) if sign}
        short = found.short.get(command, {})
        yield from _settings(word, typed, before, classes, short, several=name == "sweep")


def _targets(command: str, metavar: str, word: str, found: Catalogue) -> Iterator[Offer]:
    """What the words of an argument's metavar stand for, such as `NAME|FILE.yaml|RUN`."""
    words = metavar.removesuffix("...").split("|")
    families = {"ID": ("paper",), "NAME": ("run",)}
    for one in words:
        if one == "NAME" and command == "show":
            yield from ((name, text) for name, _, text in found.names)
        elif one in families:
            yield from ((name, text) for name, family, text in found.names if family in families[one])
        elif one.islower():
            yield one, ""
    if "ID" in words:
        yield "all", "all of the paper"
    if {"RUN", "FILE", "FILE.yaml"} & set(words):
        yield from _files(
            word, None if "FILE" in words else (".yaml", ".yml") if "FILE.yaml" in words else ()
        )


def _files(word: str, endings: tuple[str, ...] | None = None) -> Iterator[Offer]:
    """Files and folders that begin so, and the checkpoints of a run behind an `@`.

    Of files those with one of the endings; None is all.
    """
    run, at, _ = word.rpartition("@")
    with suppress(OSError):
        if at and os.path.isdir(os.path.expanduser(run)):
            for name in sorted(os.listdir(os.path.expanduser(run))):
                if name.endswith(".safetensors"):
                    yield f"{run}@{name.removesuffix('.safetensors')}", "checkpoint"
    folder, name = os.path.split(word)
    with suppress(OSError):
        for entry in sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda e: e.name):
            path = word.removesuffix(name) + entry.name if name else word + entry.name
            if entry.name.startswith(".") and not name.startswith("."):
                continue
            if os.path.isfile(os.path.join(entry.path, "config.yaml")):
                yield path, "run"
                if entry.name == name:
                    yield path + "@", "a checkpoint of it"
            elif entry.is_dir():
                yield path + "/", ""
            elif endings is None or entry.name.endswith(endings):
                yield path, ""


def _settings(
    word: str,
    typed: Mapping[str, str],
    before: Iterable[str],
    classes: Sequence[str],
    short: Mapping[str, str],
    several: bool,
) -> Iterator[Offer]:
    """Settings that begin so, one level of dots at a time, or values if there is a `=`.

    Args:
        word: What is typed of it.
        typed: Values by path that decide which kinds there are: those of a named run, and typed ones.
        before: The other words; a setting that is among them is not offered.
        classes: The settings classes of the command.
        short: Short names and the paths that they stand for.
        several: Whether a value may be a list of values, as in a sweep.
    """
    path, sign, text = word.partition("=")
    if sign:
        for value, about in _values(short.get(path, path), text, typed, classes, several):
            yield f"{path}={value}", about
        return
    given = {one.partition("=")[0] for one in before if "=" in one}
    parents = path.split(".")[:-1]
    for name, field in _fields(parents, typed, classes).items():
        whole, about = ".".join([*parents, name]), first_sentence(field["doc"])
        if whole in given or name in ONLY_IN_PYTHON:
            continue
        if not field["kinds"] or len(field["kinds"]) > 1 or "null" in field["type"]:
            yield f"{whole}=", about
        if field["kinds"] and name != "kind":
            yield f"{whole}.", about
    if not parents:
        yield from ((f"{name}=", whole) for name, whole in short.items() if name not in given)


def _values(
    path: str, text: str, typed: Mapping[str, str], classes: Sequence[str], several: bool
) -> Iterator[Offer]:
    """Values of a setting that is a choice, or files where it is a path."""
    *parents, name = path.split(".")
    field = _fields(parents, typed, classes).get(name)
    if field is None:
        return
    words = [one for one in re.split(r" \| | or |list: ", field["type"]) if one]
    choices = list(field["kinds"]) if len(field["kinds"]) > 1 else []
    choices += [one for one in words if one not in _TYPES and " " not in one]
    if choices and "null" in words:
        choices.append("null")
    listed = several or "list: " in field["type"]
    head = text[: re.search(r"[^,\[]*$", text).start()] if listed else ""  # type: ignore[union-attr]
    docs = stored().classes
    for choice in choices:
        if choice not in re.split(r"[,\[]", head):
            yield head + choice, docs[field["kinds"][choice]]["doc"] if choice in field["kinds"] else ""
    if "path" in words:
        yield from _files(text)


def _fields(parents: Sequence[str], typed: Mapping[str, str], classes: Sequence[str]) -> dict[str, Any]:
    """The settings at a path by name: of the kind that is typed there, else of all kinds."""
    known, current, kinds = stored().classes, list(classes), dict[str, str]()
    for depth, part in enumerate(parents):
        above = ".".join(parents[: depth + 1])
        kind = next((typed[p] for p in (f"{above}.kind", above) if p in typed), "")
        kinds = {}
        for cls in current:
            kinds |= known[cls]["fields"].get(part, {}).get("kinds", {})
        current = [kinds[kind]] if kind in kinds else list(dict.fromkeys(kinds.values()))
    own = {"kind": {"type": "a kind", "doc": "Which kind it is.", "kinds": kinds}} if len(kinds) > 1 else {}
    return own | {name: field for cls in reversed(current) for name, field in known[cls]["fields"].items()}
