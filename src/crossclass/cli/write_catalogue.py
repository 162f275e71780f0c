"""Writes what `list`, `show` and `--help` print into `catalogue.json`, so that they need not import torch.

python -m crossclass.cli.write_catalogue
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from crossclass import attacks, data, models
from crossclass.analysis.ablate import Ablate
from crossclass.analysis.features import Features
from crossclass.analysis.measure import Measure
from crossclass.attacks import norms
from crossclass.checkpoints.load import Source
from crossclass.cli import own_settings
from crossclass.cli.catalogue import PATH, Catalogue
from crossclass.core.config import Settings, flat
from crossclass.core.errors import UserError
from crossclass.core.files import write_atomic
from crossclass.core.plugins import kind_of, members
from crossclass.core.setting_docs import describe
from crossclass.core.short_names import SHORT, paths_of
from crossclass.diagnostics import Doctor
from crossclass.paper.entries import ENTRIES
from crossclass.paper.entry import Entry
from crossclass.paper.reproduce import Study
from crossclass.paper.runs import NAMED
from crossclass.training import recipes
from crossclass.training.run import Run

COMMANDS: dict[str, tuple[type[Settings], ...]] = {
    "demo": (own_settings.Train, Run),
    "train": (own_settings.Train, Run),
    "sweep": (own_settings.Sweep, Run),
    "fork": (own_settings.Fork, Run),
    "table": (own_settings.Table,),
    "measure": (own_settings.Measure, Measure, Source),
    "features": (own_settings.Features, Features, Source),
    "ablate": (own_settings.Ablate, Ablate, Source),
    "doctor": (own_settings.Doctor, Doctor, Source),
    "verify": (own_settings.Verify,),
    "report": (own_settings.Report,),
    "reproduce": (Study, own_settings.Execution),
}
"""The settings that each command takes."""


def compute() -> Catalogue:
    """The catalogue of what this process knows, plug-ins that it has registered included."""
    known = plugins()
    settings = {**NAMED} | {
        name: settings for name, (_, cls) in known.items() if (settings := _defaults(cls)) is not None
    }
    classes = dict[str, Any]()
    for cls in [*(cls for _, cls in known.values()), *(cls for many in COMMANDS.values() for cls in many)]:
        _add(cls, classes)
    return Catalogue(
        names=[
            *([id_, "paper", entry.title] for id_, entry in ENTRIES.items()),
            *([name, "run", _in_short(run)] for name, run in NAMED.items()),
            *([name, family, _summary(cls)] for name, (family, cls) in known.items()),
        ],
        settings={name: leaves(one) for name, one in settings.items()},
        class_of={name: key(Run) for name in NAMED} | {name: key(cls) for name, (_, cls) in known.items()},
        classes=classes,
        commands={name: [key(cls) for cls in many] for name, many in COMMANDS.items()},
        entries={id_: list(about(entry)) for id_, entry in ENTRIES.items()},
        short={
            name: {short: paths[0] for short in SHORT if (paths := paths_of(short, many))}
            for name, many in COMMANDS.items()
        },
    )


def leaves(settings: Settings) -> list[list[str]]:
    """Every value of settings by its path, as YAML on one line."""
    return [[path, settings.yaml_of(value)] for path, value in flat(settings.to_dict()).items()]


def plugins() -> dict[str, tuple[str, type[Settings]]]:
    """Every plug-in by its kind (`recipe.trades` where a run has that name), with its family's name."""
    families = {
        "recipe": recipes.AnyRecipe,
        "attack": attacks.AnyAttack,
        "threat": norms.AnyThreat,
        "data": data.AnyData,
        "model": models.AnyModel,
    }
    return {
        f"{family}.{kind}" if (kind := kind_of(m)) in NAMED else kind: (family, m)
        for family, union in families.items()
        for m in members(union)
    }


def about(entry: Entry) -> Iterator[str]:
    """What a figure, table or theorem of the paper says, which runs it needs, and how to reproduce it."""
    yield f"{entry.title}: {entry.claim}"
    for claim in entry.claims:
        yield f"- {claim.text}" + (f" ({claim.where})" if claim.where else "")
    if entry.runs:
        yield f"runs: {', '.join(dict.fromkeys(entry.runs.values()))}"
    yield f"crossclass reproduce {entry.id} plan=true says what would be done (size=smoke, mini or paper)"


def _add(cls: type[BaseModel], classes: dict[str, Any]) -> None:
    """A class and all that its settings take."""
    if key(cls) in classes:
        return
    fields = describe(cls)
    classes[key(cls)] = {
        "doc": _summary(cls),
        "fields": {
            name: {
                "type": field.type_words,
                "default": _default(cls, name),
                "doc": field.doc,
                "kinds": {kind: key(inner) for kind, inner in field.kinds.items()},
            }
            for name, field in fields.items()
        },
    }
    for field in fields.values():
        for inner in field.kinds.values():
            _add(inner, classes)


def key(cls: type[BaseModel]) -> str:
    """What the catalogue calls a settings class."""
    return f"{cls.__module__.removeprefix('crossclass.')}.{cls.__name__}"


def _summary(cls: type[BaseModel]) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]


def _defaults(cls: type[Settings]) -> Settings | None:
    """The settings at their defaults; None where one of them has none."""
    try:
        return cls()
    except (ValueError, UserError):
        return None


def _default(cls: type[BaseModel], name: str) -> str:
    """The default of a setting as it is typed; of settings their kind; empty where it has none."""
    field = cls.model_fields[name]
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if field.is_required() or isinstance(value, Settings):
        return str(getattr(value, "kind", ""))
    dumped = cls.model_construct(**{name: value}).model_dump(mode="json", include={name})
    return Settings.yaml_of(dumped.get(name))


def _in_short(run: Run) -> str:
    attack = run.recipe.crafting_attack or "clean images"
    kinds = " of ".join(kind_of(type(recipe)) for recipe in run.recipe.walk())
    parts = [f"{kinds} on {run.data.kind}: {attack}"]
    if run.label_smoothing:
        parts.append(f"smoothing {run.label_smoothing:g}")
    if run.mix:
        parts.append("mixed labels")
    parts += [part.kind.replace("_", " ") for part in (run.ensembling, run.weight_averaging) if part]
    return "; ".join([*parts, f"{run.epochs} epochs"])


if __name__ == "__main__":
    write_atomic(PATH, json.dumps(compute()._asdict(), indent=0, ensure_ascii=False) + "\n")
