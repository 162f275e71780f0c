"""The paper's tables, and what it says of soft labels without a figure."""

from collections.abc import Mapping
from typing import Any

from crossclass.paper.claims import has_more, keeps_more, loses_more
from crossclass.paper.entry import Entry, Numbers, RunEvidence, Size
from crossclass.paper.run_numbers import percent
from crossclass.paper.verdict import Verdict, Word

RADII = {f"eps {e}/255": f"wei2025-at-linf-{e}" for e in (8, 12, 16)}
"""Each of the larger radii is compared with the first."""

TABLE1 = Entry(
    "table1",
    "Radii beyond 8/255",
    "With a very large eps fewer cross-class features are learned, so fewer are lost, and less accuracy.",
    runs=RADII,
    stages=(0.05,),
    claims=(
        has_more(
            "larger radii have less CAS early in training (epoch 10 of 200)", "cas", percent(0.05), *RADII
        ),
        has_more("larger radii have less CAS at the best checkpoint", "cas", "best", *RADII),
        loses_more("larger radii lose less CAS from best to last", "cas", *RADII),
        loses_more("larger radii lose less robust accuracy from best to last", "robust", *RADII),
    ),
    printed={
        "rows": [
            {
                "eps": 8,
                "epoch10": {"cas": 16.7, "ra": 36.9},
                "best": {"cas": 25.6, "ra": 47.8},
                "last": {"cas": 9.0, "ra": 42.5},
            },
            {
                "eps": 12,
                "epoch10": {"cas": 15.6, "ra": 29.8},
                "best": {"cas": 18.9, "ra": 38.7},
                "last": {"cas": 8.7, "ra": 34.1},
            },
            {
                "eps": 16,
                "epoch10": {"cas": 14.4, "ra": 23.8},
                "best": {"cas": 17.5, "ra": 31.3},
                "last": {"cas": 8.4, "ra": 28.1},
            },
        ],
    },
)


TABLE2_SETTINGS: Mapping[str, Any] = {
    "epochs": 200,
    "batch": 128,
    "lr": 0.1,
    "lr_milestones": [100, 150],
    "momentum": 0.9,
    "weight_decay": 5e-4,
}
"""What Table 2 prints, as settings of a run."""


def _settings(evidence: RunEvidence, size: Size) -> Numbers:
    """The settings of the named runs, beside those of the table."""
    from crossclass.core.config import flat
    from crossclass.paper.runs.paper import PAPER

    names = {"attack": "kind", "threat": "threat.kind", "eps": "threat.eps"}
    names |= {"steps": "steps", "step": "rel_step"}
    runs = {}
    for name, run in PAPER.items():
        settings, crafting = flat(run.to_dict()), run.recipe.crafting_attack
        attack = flat(crafting.to_dict()) if crafting else {}
        runs[name] = {key: settings.get(key) for key in TABLE2_SETTINGS}
        runs[name] |= {key: attack.get(path) for key, path in names.items()}
    return {"wanted": dict(TABLE2_SETTINGS), "runs": runs}


def _same_settings(m: Numbers) -> list[Verdict]:
    """Every named run has Table 2's settings; the weight decay of the transformer differs, and is named."""
    out, where = [], "settings of the named runs"
    for key, wanted in m["wanted"].items():
        others = {name: run[key] for name, run in m["runs"].items() if run[key] != wanted}
        reason = ", ".join(f"{name} has {value}" for name, value in others.items())
        verdict: Word = "does not hold" if others else "holds"
        out.append(Verdict(f"every named run has {key} {wanted}", verdict, where, reason))
    steps = {"l2": (10, 0.125), "linf": (10, 0.25)}
    pgd = {name: run for name, run in m["runs"].items() if run["attack"] == "pgd"}
    wrong = [name for name, run in pgd.items() if (run["steps"], run["step"]) != steps[run["threat"]]]
    text = "training attacks are PGD-10 with steps of eps/4 (l_inf) and eps/8 (l_2)"
    return [*out, Verdict(text, "does not hold" if wrong else "holds", where, ", ".join(wrong))]


TABLE2 = Entry(
    "table2",
    "Settings",
    "The named runs are trained as Table 2 says.",
    compute=_settings,
    judge=_same_settings,
    printed={
        **TABLE2_SETTINGS,
        "lr_decay_rate": 0.1,
        "train_pgd_steps": 10,
        "train_pgd_step_size": {"linf": "eps/4", "l2": "eps/8"},
        "model": "PreActResNet-18",
        "eps_default": {"linf": 8, "l2": 128},
        "best_epoch": 108,
    },
)


# Section 3.2 names label smoothing and temporal ensembling beside distillation, without numbers.

SOFT = Entry(
    "soft",
    "Other soft labels (section 3.2)",
    "Label smoothing and temporal ensembling keep cross-class features, too.",
    runs={
        "AT": "wei2025-at-linf-8",
        "label smoothing": "wei2025-ls-linf-8",
        "temporal ensembling": "wei2025-te-linf-8",
    },
    claims=tuple(
        keeps_more(f"soft labels keep more {what}", key, run, "AT")
        for run in ("label smoothing", "temporal ensembling")
        for key, what in (("cas", "cross-class features"), ("robust", "robust accuracy"))
    ),
)

TABLES = (TABLE1, TABLE2, SOFT)
