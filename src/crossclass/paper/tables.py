"""The paper's tables, and what it says of soft labels without a figure."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import flat
from crossclass.core.family import kind_of, members
from crossclass.paper.claims import Numbers
from crossclass.paper.entry import Experiment, Found, Size
from crossclass.paper.runs.paper import PAPER
from crossclass.paper.sentences import has_more, keeps_more, loses_more
from crossclass.paper.stages import collected, percent
from crossclass.paper.verdict import Verdict, Word
from crossclass.report.plots import entries as drawing
from crossclass.training.run import Run

LARGE = {f"eps {e}/255": f"wei2025-at-linf-{e}" for e in (8, 12, 16)}
"""Each of the larger radii is held against the first."""
EARLY = 0.05
"""Epoch 10 of 200."""


WANTED: Mapping[str, Any] = {
    "epochs": 200,
    "batch": 128,
    "lr": 0.1,
    "lr_milestones": [100, 150],
    "momentum": 0.9,
    "weight_decay": 5e-4,
}
"""Table 2, as settings of a run."""


def _settings(found: Found, size: Size) -> Numbers:
    """What the named runs say, beside the table."""
    plain = {name: flat(run.to_dict()) for name, run in PAPER.items()}
    rows = {name: {key: says.get(key) for key in WANTED} for name, says in plain.items()}
    steps = {name: _steps(run) for name, run in PAPER.items()}
    return {"wanted": dict(WANTED), "runs": {n: rows[n] | steps[n] for n in rows}}


def _steps(run: Run) -> dict[str, Any]:
    attack = run.recipe.crafting_attack
    says = flat(attack.to_dict()) if attack else {}
    keys = {"attack": "kind", "threat": "threat.kind", "eps": "threat.eps", "steps": "steps", "step": "step"}
    return {k: says.get(v) for k, v in keys.items()}


def _same_settings(m: Numbers) -> list[Verdict]:
    """Every named run has Table 2's settings; a transformer's own decay is a difference, and is said."""
    out = []
    for key, wanted in m["wanted"].items():
        others = {name: run[key] for name, run in m["runs"].items() if run[key] != wanted}
        said = ", ".join(f"{name} has {value}" for name, value in others.items())
        word: Word = "does not hold" if others else "holds"
        out.append(Verdict(f"every named run has {key} {wanted}", word, "settings of the named runs", said))
    usual = {kind_of(threat): threat.usual_step for threat in members(AnyThreat)}
    wrong = [
        name
        for name, run in m["runs"].items()
        if run["attack"] == "pgd" and (run["steps"], run["step"]) != (10, usual[run["threat"]])
    ]
    text = "training attacks are PGD-10 with steps of eps/4 (l_inf) and eps/8 (l_2)"
    out.append(
        Verdict(text, "does not hold" if wrong else "holds", "settings of the named runs", ", ".join(wrong))
    )
    return out


TABLES: tuple[Experiment, ...] = (
    Experiment(
        "table1",
        "Radii beyond 8/255",
        "With a very large eps fewer cross-class features are learned, so fewer are lost, and less accuracy.",
        runs=LARGE,
        measure=collected(EARLY),
        draw=partial(drawing.bars, keys=("cas", "robust")),
        claims=(
            has_more(
                "early",
                "larger radii have less CAS early in training (epoch 10 of 200)",
                "cas",
                percent(EARLY),
                *LARGE,
            ),
            has_more("peak", "larger radii have less CAS at the best checkpoint", "cas", "best", *LARGE),
            loses_more("loss-cas", "larger radii lose less CAS from best to last", "cas", *LARGE),
            loses_more(
                "loss-robust", "larger radii lose less robust accuracy from best to last", "robust", *LARGE
            ),
        ),
        printed="table1",
    ),
    Experiment(
        "table2",
        "Settings",
        "The named runs are trained as Table 2 says.",
        measure=_settings,
        draw=drawing.settings,
        judge=_same_settings,
        printed="hyperparameters_table2",
    ),
    Experiment(
        "soft",
        "Other soft labels (section 3.2)",
        "Label smoothing and temporal ensembling keep cross-class features, too.",
        runs={
            "AT": "wei2025-at-linf-8",
            "label smoothing": "wei2025-ls-linf-8",
            "temporal ensembling": "wei2025-te-linf-8",
        },
        measure=collected(),
        draw=partial(drawing.bars, keys=("cas", "robust")),
        claims=tuple(
            keeps_more(f"soft labels keep more {what}", key, run, "AT")
            for run in ("label smoothing", "temporal ensembling")
            for key, what in (("cas", "cross-class features"), ("robust", "robust accuracy"))
        ),
    ),
)
