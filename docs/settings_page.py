"""The page of all settings, from the catalogue that `show` and `--help` read too."""

import re
from collections.abc import Iterator
from typing import Any

from crossclass.cli.catalogue import ONLY_IN_PYTHON, commented
from crossclass.cli.write_catalogue import compute
from crossclass.core.short_names import SHORT, SYNONYMS

_TITLES = {
    "training.run.Run": "Run",
    "checkpoints.load.Source": "Network and images of a checkpoint",
    "core.runtime.Runtime": "Runtime",
    "data": "Data",
    "model": "Models",
    "recipe": "Recipes",
    "attack": "Attacks",
    "threat": "Threats",
    "weight_averaging": "Weight averaging",
}
"""Titles of the classes that several commands take, and of the families of kinds."""

_TYPED = {
    "data": "`data.NAME=...`, and `data.kind=KIND` chooses.",
    "model": "`model.NAME=...`, and `model.kind=KIND` chooses.",
    "recipe": "`recipe.NAME=...`, and `recipe.kind=KIND` chooses.",
    "attack": (
        "`recipe.attack.NAME=...` is the attack in training, `validation.attack.NAME=...` the one after an "
        "epoch, `validation.final.NAME=...` the one at the end. For `measure` it is `attack.NAME=...`. "
        "`...attack.kind=KIND` chooses."
    ),
    "threat": (
        "`recipe.attack.threat.NAME=...` in training, `attack.threat.NAME=...` for `measure`, "
        "`threat.NAME=...` for `doctor`; in short `eps=4/255` and `norm=l2`."
    ),
    "weight_averaging": "`weight_averaging.NAME=...`, and `weight_averaging.kind=KIND` chooses.",
}
"""How settings of a kind are typed."""

PREFACE = """\
# Settings

Every setting with its type, its default and one line. This page is written by `python docs/made.py`.
`crossclass show NAME` prints the settings of a run, an attack, a data set, ... with the same lines:

```bash
crossclass show fgsm
```

```text
{shown}
```

A setting is typed as `path=value`, for example `epochs=20`, `data.path=DIR`, `recipe.attack.steps=20`. In
Python it is a field of the class: `cc.PGD(steps=20)`. Radii and step lengths are in [0, 1] units (images are
in [0, 1], so `8/255` is the usual radius); `null` means that nothing is set. A `kind` exchanges a whole part:
`model.kind=vit` takes another network, and everything below `model` then starts from that network's defaults.
[How values are written](cli.md) has the details.

| you set | section |
|---|---|
{contents}

## Short names

They are understood where they can mean only one thing.

| you type | it is |
|---|---|
{short}

The words of other tools are not settings; the error message says which one is meant: {synonyms}.
"""


def settings() -> str:
    """The whole page."""
    found = compute()
    parts, contents = [], []
    commands = []
    for title, about, body in _sections(found.classes, found.commands):
        link = f"[{title}](#{anchor(title)})"
        if about:
            contents.append(f"| {about} | {link} |")
        else:
            commands.append(link)
        parts.append(f"## {title}\n\n{body}")
    contents.append(f"| what only these commands take | {', '.join(commands)} |")
    shown = "\n".join(commented(found.settings["fgsm"], found.class_of["fgsm"]))
    short = "\n".join(f"| `{name}` | `...{path}` |" for name, path in SHORT.items())
    others = ", ".join(f"`{word}` ({path})" for word, path in SYNONYMS.items())
    preface = PREFACE.format(shown=shown, contents="\n".join(contents), short=short, synonyms=others)
    return "\n\n".join([preface.rstrip(), *parts]) + "\n"


def anchor(title: str) -> str:
    """The anchor of a heading, as code hosts and MyST make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def cell(text: str) -> str:
    """Text in a table of Markdown: nothing in it is mark-up, besides `code`."""
    parts = text.replace("|", "\\|").replace("\n", " ").split("`")
    plain = (re.sub(r"([*<])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))
    return "`".join(plain)


def sections_of_commands() -> dict[str, list[str]]:
    """The titles of the sections with the settings of each command."""
    found = compute()
    shared = _shared(found.commands)
    return {
        command: list(
            dict.fromkeys(_title(key) if key in shared else _title_of(own, found.commands) for key in own)
        )
        for command, own in found.commands.items()
    }


def _shared(commands: dict[str, list[str]]) -> list[str]:
    """The classes with a section of their own."""
    used = [key for own in commands.values() for key in own]
    return [key for key in dict.fromkeys(used) if key in _TITLES]


def _title_of(own: list[str], commands: dict[str, list[str]]) -> str:
    """The title of the settings that only these commands take."""
    return ", ".join(name for name, theirs in commands.items() if theirs == own)


def _sections(classes: dict[str, Any], commands: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """Title, what is set there, and text of every section."""
    shared = _shared(commands)
    run = next(key for key in shared if _TITLES[key] == "Run")
    families = _families(classes, [run])
    yield "Run", "how a network is trained: epochs, learning rate, validation, seed", _class(classes, run)
    for family, kinds in families.items():
        parts = [f"Typed as {_TYPED[family]}" if family in _TYPED else "", *_kinds(classes, family, kinds)]
        yield _title(family), f"`{family}`: {', '.join(kinds)}", "\n\n".join(filter(None, parts))
    runtime = next(key for key in classes if _TITLES.get(key) == "Runtime")
    yield "Runtime", "`runtime`: device, threads, processes", _class(classes, runtime, "runtime.")
    for key in shared:
        if key != run:
            yield _TITLES[key], "whose network, on which images", _class(classes, key)
    for own in dict.fromkeys(map(tuple, commands.values())):
        title = _title_of(list(own), commands)
        rows = [row for key in own if key not in shared for row in _rows(classes, key, "", anchor(title))]
        if rows:
            yield title, "", _table(rows)


def _title(family: str) -> str:
    return _TITLES.get(family, family)


def _families(classes: dict[str, Any], start: list[str]) -> dict[str, dict[str, str]]:
    """The kinds that a setting can be, by the setting's name; each kind once, settings further up first."""
    out: dict[str, dict[str, str]] = {}
    queue, done = list(start), set(start)
    for key in queue:
        for name, field in classes[key]["fields"].items():
            new = {kind: cls for kind, cls in field["kinds"].items() if cls not in done}
            if new and len(field["kinds"]) > 1:
                out.setdefault(name, {}).update(new)
            done.update(new.values())
            queue.extend(new.values())
    order = [family for family in _TYPED if family in out]
    return {family: out[family] for family in [*order, *(name for name in out if name not in order)]}


def _kinds(classes: dict[str, Any], family: str, kinds: dict[str, str]) -> Iterator[str]:
    """A table for each kind, and for the items of lists and mappings in it."""
    items: dict[str, str] = {}
    for kind, key in kinds.items():
        yield f"### {kind}\n\n{_class(classes, key, f'{family}.', kind)}"
        for name, field in classes[key]["fields"].items():
            if len(field["kinds"]) == 1 and not field["type"].startswith("settings"):
                items[name] = next(iter(field["kinds"].values()))
    for name, key in items.items():
        yield f"### inside of {family}.{name}\n\n{_class(classes, key, '', name)}"


def _class(classes: dict[str, Any], key: str, prefix: str = "", id_: str = "") -> str:
    rows = list(_rows(classes, key, prefix, id_ or anchor(_title(key))))
    return f"{cell(classes[key]['doc'])}\n\n{_table(rows) if rows else 'It has no settings.'}"


def _rows(classes: dict[str, Any], key: str, prefix: str, id_: str) -> Iterator[str]:
    """A row for each setting; those of settings without kinds follow, `runtime` has a section of its own."""
    for name, field in classes[key]["fields"].items():
        path, kinds, type_ = prefix + name, field["kinds"], field["type"]
        if name == "runtime" or (not prefix and name in ONLY_IN_PYTHON and id_ != "teachers"):
            continue
        if len(kinds) > 1:
            family = next(f for f, all_ in _known(classes).items() if set(kinds.values()) <= set(all_))
            type_ = type_.replace("a kind", f"one of [{_title(family)}](#{anchor(_title(family))})")
        shown = f"`{field['default']}`" if field["default"] else ""
        type_ = type_.replace("list: settings", "list")
        yield f'| <a id="{id_}-{name}"></a>`{path}` | {cell(type_)} | {shown} | {cell(field["doc"])} |'
        if type_.startswith("settings") and len(kinds) == 1:
            yield from _rows(classes, next(iter(kinds.values())), f"{path}.", f"{id_}-{name}")


def _known(classes: dict[str, Any]) -> dict[str, list[str]]:
    """The classes of every family of kinds."""
    run = next(key for key in classes if _TITLES.get(key) == "Run")
    return {family: list(kinds.values()) for family, kinds in _families(classes, [run]).items()}


def _table(rows: list[str]) -> str:
    return "\n".join(["| setting | type | default | what it is |", "|---|---|---|---|", *rows])
