"""Runs beside each other are named by what differs, such as `eps 4/255, seed 1`."""

from collections.abc import Sequence

from crossclass.analysis.measured_runs import without_seed
from crossclass.analysis.run_record import RunRecord
from crossclass.analysis.setting_names import differing, settings_of, value_of, with_parts, words

SEEDS = ("seed",)


def labels(runs: Sequence[RunRecord]) -> list[str]:
    """A name for each run: its label, the settings in which runs of that label differ, and their seed.

    The label is left out where all runs have the same and settings tell them apart.
    """
    names = [without_seed(_label(run)) for run in runs]
    one = len(set(names)) == 1
    out: list[str] = []
    for run, name in zip(runs, names, strict=True):
        others = [other for other, of in zip(runs, names, strict=True) if of == name]
        parts, label = [], _label(run)
        if len(others) > 1:
            settings = with_parts([settings_of(other.config) for other in others])
            columns = differing(settings, SEEDS)
            said = [[f"{c} {words(value_of(s, p)) or '-'}" for c, p in columns.items()] for s in settings]
            mine = said[[other is run for other in others].index(True)]
            seed = f"seed {run.env.get('seed', run.config.get('seed', 'unknown'))}"
            parts = [*([] if one and mine else [name]), *mine, *([seed] if said.count(mine) > 1 else [])]
            label = ", ".join(parts)
        out.append(label if label not in out else f"{label} ({run.folder})")
    return out


def what_differs(runs: Sequence[RunRecord]) -> list[str]:
    """The short names of the settings in which runs differ, besides their seeds."""
    return list(differing([settings_of(run.config) for run in runs], SEEDS))


def _label(run: RunRecord) -> str:
    return str(run.env.get("label") or run.folder.name)
