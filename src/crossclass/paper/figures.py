"""The paper's figures as entries; every sentence that claims something is a claim of its own."""

from functools import partial
from typing import Any

from crossclass.paper.claims import Numbers
from crossclass.paper.entry import Experiment, Found, Size
from crossclass.paper.sentences import (
    HOVERS,
    NEGATIVES,
    SETTLES,
    below_at,
    both_fall,
    collapses,
    grows,
    has_more,
    loses,
    loses_more,
    overfits,
    pair_rank,
    phase,
    rises,
)
from crossclass.paper.stages import collect, collected
from crossclass.report.plots import entries as drawing

SMALL = {f"eps {e}/255": f"wei2025-at-linf-{e}" for e in (2, 4, 6, 8)}
AT = {"AT": "wei2025-at-linf-8"}
PHASES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
"""The paper's epochs 10, 30, ..., 190 of 200 as shares of the schedule."""


def _with_clean(found: Found, size: Size) -> Numbers:
    """Beside the usual numbers, CAS on clean images at the stages of Fig. 9."""
    clean: dict[str, dict[str, list[float]]] = {}
    matrices: dict[str, Any] = {}
    for name, each in found.items():
        stages = [e.extras["clean"] for e in each]
        clean[name] = {s: [one[s]["cas"] for one in stages] for s in stages[0]}
        matrices[name] = {s: stages[0][s]["C"] for s in stages[0]}
    return {**collect(found), "clean": clean, "clean_C": matrices}


FIGURES: tuple[Experiment, ...] = (
    Experiment(
        "fig1",
        "Robust overfitting at four radii",
        "Test robust accuracy peaks and falls while training's goes on rising, the more the larger eps is.",
        runs=SMALL,
        measure=collected(),
        draw=drawing.overfitting,
        claims=(
            *(overfits(name) for name in SMALL),
            grows("what is lost of robust accuracy grows with eps (up to 8/255)", SMALL, "robust"),
        ),
    ),
    Experiment(
        "fig2",
        "C early, at the best and at the last checkpoint",
        "AT shares more features between classes at its most robust checkpoint than early on or at its end.",
        runs=AT,
        measure=collected(0.35),
        draw=partial(drawing.matrices, stages=("35 %", "best", "last")),
        claims=(
            rises(0.35),
            loses("AT", "cas", "CAS is lower at the last checkpoint than at the best"),
            NEGATIVES,
            pair_rank("automobile", "truck", 5),
        ),
        printed="fig2",
    ),
    Experiment(
        "fig3ab",
        "Knowledge distillation keeps cross-class features",
        "With distilled labels, CAS and robust accuracy hardly fall after the best, and the best is better.",
        runs={**AT, "KD": "wei2025-kd-linf-8"},
        measure=collected(),
        draw=partial(drawing.matrices, stages=("best", "last")),
        claims=(
            loses_more("keeps-cas", "KD loses less CAS from best to last than AT", "cas", "AT", "KD"),
            loses_more(
                "keeps-robust",
                "KD loses less robust accuracy from best to last than AT",
                "robust",
                "AT",
                "KD",
            ),
            has_more("more-cas", "KD's last checkpoint has more CAS than AT's", "cas", "last", "KD", "AT"),
            has_more(
                "more-robust", "KD's last checkpoint is more robust than AT's", "robust", "last", "KD", "AT"
            ),
            has_more(
                "peak",
                "KD's best checkpoint is more robust than AT's (48.1 against 47.8 %)",
                "robust",
                "best",
                "KD",
                "AT",
            ),
        ),
        printed="fig3",
    ),
    Experiment(
        "fig4",
        "C at best minus C at last, at four radii",
        "The larger eps is, the more cross-class features are given up from best to last.",
        runs=SMALL,
        measure=collected(),
        draw=drawing.differences,
        claims=(grows("what is lost of CAS grows with eps (up to 8/255)", SMALL, "cas"),),
        printed="fig4",
    ),
    Experiment(
        "fig5",
        "CIFAR-100 and Tiny-ImageNet",
        "More classes, the same: CAS falls from best to last.",
        runs={"CIFAR-100": "wei2025-at-linf-8-cifar100", "Tiny-ImageNet": "wei2025-at-linf-8-tinyimagenet"},
        measure=collected(),
        draw=partial(drawing.matrices, stages=("best", "last"), scale=(-0.75, 0.75)),
        claims=both_fall("CIFAR-100", "Tiny-ImageNet"),
        printed="fig5",
    ),
    Experiment(
        "fig6",
        "Another norm, another architecture",
        "l_2 AT and a vision transformer lose cross-class features from best to last, too.",
        runs={"l_2": "wei2025-at-l2-128", "DeiT": "wei2025-at-linf-8-deit"},
        measure=collected(),
        draw=partial(drawing.matrices, stages=("best", "last")),
        claims=both_fall("l_2", "DeiT"),
        printed="fig6",
    ),
    Experiment(
        "fig7",
        "Catastrophic overfitting of fast AT",
        "When fast AT collapses, its cross-class features are gone with its robustness.",
        runs={"FAT": "wei2025-fat-linf-8", "provoked": "digits-fat"},
        measure=collected(0.05),
        draw=partial(drawing.matrices, stages=("5 %", "best", "last")),
        claims=(
            *collapses("FAT"),
            *collapses("provoked", where="digits, one step of 0.32: where a collapse is cheap to try"),
        ),
        printed="fig7",
    ),
    Experiment(
        "fig8",
        "Instance-wise matrices",
        "The instance-wise metric agrees: I-CAS falls from best to last under both norms.",
        runs={"l_inf": "wei2025-at-linf-8", "l_2": "wei2025-at-l2-128"},
        measure=collected(),
        draw=partial(drawing.bars, keys=("icas", "all_pairs_cas")),
        claims=(
            *(
                loses(name, "icas", "I-CAS is lower at the last checkpoint than at the best", where=name)
                for name in ("l_inf", "l_2")
            ),
            HOVERS,
        ),
        printed="fig8",
    ),
    Experiment(
        "fig9",
        "Standard training",
        "Standard training shares fewer features than AT, and forgets none in its late phase.",
        runs={**AT, "standard": "wei2025-standard"},
        extras={"AT": ("clean",), "standard": ("clean",)},
        measure=_with_clean,
        draw=drawing.standard,
        claims=(
            below_at("below-best", "standard training shares less than AT's best, on clean images", "best"),
            below_at("below-last", "standard training shares less than AT's last, on clean images", "last"),
            SETTLES,
        ),
        printed="fig9",
    ),
    Experiment(
        "fig10",
        "C through the training",
        "CAS and robust accuracy rise together to the best epoch, and fall together after it.",
        runs=AT,
        measure=collected(*PHASES),
        draw=drawing.strip,
        claims=(phase(True), phase(False)),
        printed="fig10",
    ),
)
