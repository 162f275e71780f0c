"""Everything that has a name: runs, and the plug-ins of every family."""

from collections.abc import Iterator

from crossclass import attacks, data, models
from crossclass.attacks import norms
from crossclass.core.config import Settings
from crossclass.core.plugins import kind_of, members
from crossclass.paper.entries import ENTRIES
from crossclass.paper.entry import Entry
from crossclass.paper.runs import NAMED
from crossclass.training import recipes
from crossclass.training.run import Run


def lines() -> Iterator[str]:
    """One line each: the full name first, what it is, what it does."""
    width = max(map(len, NAMED))
    for id_, entry in ENTRIES.items():
        yield f"{id_:{width}} paper    {entry.title}"
    for name, run in NAMED.items():
        yield f"{name:{width}} run      {_in_short(run)}"
    for kind, (family, plugin) in plugins().items():
        yield f"{kind:{width}} {family:8} {(plugin.__doc__ or '').splitlines()[0]}"


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
