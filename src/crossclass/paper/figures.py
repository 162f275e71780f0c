"""The paper's figures as entries: the runs, the claims with their predicates, and what the paper prints.

Every sentence of the paper that claims something is a claim of its own. Predicates that serve one figure
stand above it; those that several share are in `claims`. Printed accuracies (`ra`) are in percent.
"""

from collections.abc import Sequence
from typing import Any

from crossclass.analysis.metrics import metric
from crossclass.paper.claims import (
    best_minus_last,
    both_fall,
    difference,
    falls,
    has_more,
    loses_more,
    per_seed,
    rises,
)
from crossclass.paper.entry import Claim, Effect, Entry, Numbers, RunEvidence, Size
from crossclass.paper.run_numbers import collect

AT = {"AT": "wei2025-at-linf-8"}
RADII = {f"eps {e}/255": f"wei2025-at-linf-{e}" for e in (2, 4, 6, 8)}


# Figures 1 and 4: what is lost from best to last, by the radius


def _overfits(run: str) -> Claim:
    """Robust accuracy falls on test images and rises on those of the training."""

    def effects(m: Numbers) -> list[Effect]:
        ends = [per_seed(m, run, stage, "train_robust", checks=True) for stage in ("last", "best")]
        rise = difference("training robust accuracy, last minus best", *ends)
        return [rise, best_minus_last(m, run, "robust")]

    text = "robust overfitting: test robust accuracy falls after its best while training's rises"
    return Claim(text, effects, where=run)


def _grows(text: str, key: str) -> Claim:
    """The least-squares slope over eps of what is lost from best to last, seed by seed."""

    def effects(m: Numbers) -> list[Effect]:
        from scipy import stats

        eps = [float(name.split()[1].split("/")[0]) for name in RADII]
        lost = zip(*(best_minus_last(m, run, key).values for run in RADII), strict=True)
        slopes = tuple(float(stats.linregress(eps, seed).slope) for seed in lost)
        return [Effect(f"{metric(key).label} lost per 1/255 of eps", slopes)]

    return Claim(text, effects)


FIG1 = Entry(
    "fig1",
    "Robust overfitting at four radii",
    "Test robust accuracy peaks and falls while training's goes on rising, the more the larger eps is.",
    runs=RADII,
    claims=(
        *(_overfits(name) for name in RADII),
        _grows("what is lost of robust accuracy grows with eps (up to 8/255)", "robust"),
    ),
)

FIG4 = Entry(
    "fig4",
    "C at best minus C at last, at four radii",
    "The larger eps is, the more cross-class features are given up from best to last.",
    runs=RADII,
    claims=(_grows("what is lost of CAS grows with eps (up to 8/255)", "cas"),),
    printed={
        "points": [
            {"eps": 2, "dcas": 4.1},
            {"eps": 4, "dcas": 8.9},
            {"eps": 6, "dcas": 13.8},
            {"eps": 8, "dcas": 16.6},
        ],
    },
)


# Figures 2 and 10: C and CAS through the training


def _negative_entries(m: Numbers) -> list[Effect]:
    best = m["runs"]["AT"]["best"]
    pairs = zip(best["cas"], best["negative_mass"], strict=True)
    each = tuple(cas / 4 - negative for cas, negative in pairs)
    return [Effect("a quarter of CAS, minus the negative entries", each)]


def _pair_rank(a: str, b: str, places: int) -> Claim:
    """Whether two classes are among the pairs that share most at best."""

    def effects(m: Numbers) -> list[Effect]:
        run = m["runs"]["AT"]
        names, C = run["class_names"], run["C"]["best"]
        i, j = sorted((names.index(a), names.index(b)))
        rank = 1 + sum(C[p][q] > C[j][i] for p in range(len(C)) for q in range(p))
        left = places + 0.5 - rank
        return [Effect(f"{places + 0.5:g} minus the rank of {a}-{b}", (left,), (left, left))]

    text = f"{a} and {b} are among the {places} most shared pairs at the best checkpoint"
    return Claim(text, effects, where="first seed")


FIG2 = Entry(
    "fig2",
    "C early, at the best and at the last checkpoint",
    "AT shares more features between classes at its most robust checkpoint than early on or at its end.",
    runs=AT,
    stages=(0.35,),
    claims=(
        rises(0.35),
        falls("AT", "cas", "CAS is lower at the last checkpoint than at the best"),
        Claim("negative entries of C are small beside the positive ones (eq. 7)", _negative_entries),
        _pair_rank("automobile", "truck", 5),
    ),
    printed={
        "points": [
            {"stage": "underfitted", "epoch": 70, "ra": 42.6, "cas": 18.2},
            {"stage": "best", "epoch": 108, "ra": 47.8, "cas": 25.6},
            {"stage": "last", "epoch": 200, "ra": 42.5, "cas": 9.0},
        ],
    },
)


def _correlates(rising: bool) -> Claim:
    """Pearson's correlation of CAS and robust accuracy over the checks before, or after, the best epoch."""

    def effects(m: Numbers) -> list[Effect]:
        from scipy import stats

        run, each = m["runs"]["AT"], []
        for best, curve in zip(run["best"]["epoch"], run["curves"], strict=True):
            rows = zip(curve["epoch"], curve["cas"], curve["test_robust"], strict=True)
            part = [(c, r) for e, c, r in rows if (e <= best if rising else e >= best)]
            if len(part) < 3 or any(len(set(values)) < 2 for values in zip(*part, strict=True)):
                raise ValueError(f"too few checks {'up to' if rising else 'from'} the best epoch ({best})")
            each.append(float(stats.pearsonr(*zip(*part, strict=True)).statistic))
        return [Effect("correlation of CAS and robust accuracy", tuple(each))]

    phase = "up to the best epoch" if rising else "from the best epoch on"
    return Claim(f"CAS moves with robust accuracy {phase}", effects)


FIG10 = Entry(
    "fig10",
    "C through the training",
    "CAS and robust accuracy rise together to the best epoch, and fall together after it.",
    runs=AT,
    stages=(
        0.05,
        0.15,
        0.25,
        0.35,
        0.45,
        0.55,
        0.65,
        0.75,
        0.85,
        0.95,
    ),
    claims=(_correlates(rising=True), _correlates(rising=False)),
    printed={
        "points": [
            {"epoch": 10, "ra": 36.9, "cas": 16.7},
            {"epoch": 30, "ra": 41.2, "cas": 17.8},
            {"epoch": 50, "ra": 41.5, "cas": 17.9},
            {"epoch": 70, "ra": 42.6, "cas": 18.2},
            {"epoch": 90, "ra": 42.8, "cas": 19.7},
            {"epoch": 110, "ra": 47.5, "cas": 23.6},
            {"epoch": 130, "ra": 46.4, "cas": 18.9},
            {"epoch": 150, "ra": 44.7, "cas": 15.6},
            {"epoch": 170, "ra": 43.3, "cas": 13.8},
            {"epoch": 190, "ra": 42.8, "cas": 9.1},
        ],
    },
)


# Figures 3, 5 and 6: soft labels, more classes, another norm, another architecture

FIG3_PRINTED = {
    "points": [
        {"stage": "best", "ra": 48.1, "cas": 25.7},
        {"stage": "last", "ra": 46.2, "cas": 24.1},
    ],
}

FIG3AB = Entry(
    "fig3ab",
    "Knowledge distillation keeps cross-class features",
    "With distilled labels, CAS and robust accuracy hardly fall after the best, and the best is better.",
    runs={**AT, "KD": "wei2025-kd-linf-8"},
    claims=(
        loses_more("KD loses less CAS from best to last than AT", "cas", "AT", "KD"),
        loses_more("KD loses less robust accuracy from best to last than AT", "robust", "AT", "KD"),
        has_more("KD's last checkpoint has more CAS than AT's", "cas", "last", "KD", "AT"),
        has_more("KD's last checkpoint is more robust than AT's", "robust", "last", "KD", "AT"),
        has_more(
            "KD's best checkpoint is more robust than AT's (48.1 against 47.8 %)",
            "robust",
            "best",
            "KD",
            "AT",
        ),
    ),
    printed=FIG3_PRINTED,
)

FIG5 = Entry(
    "fig5",
    "CIFAR-100 and Tiny-ImageNet",
    "More classes, the same: CAS falls from best to last.",
    runs={"CIFAR-100": "wei2025-at-linf-8-cifar100", "Tiny-ImageNet": "wei2025-at-linf-8-tinyimagenet"},
    claims=both_fall("CIFAR-100", "Tiny-ImageNet"),
    printed={
        "cifar100": {
            "num_classes": 100,
            "best": {"ra": 24.7, "cas": 569},
            "last": {"ra": 19.6, "cas": 352},
        },
        "tinyimagenet": {
            "num_classes": 200,
            "best": {"ra": 18.0, "cas": 1548},
            "last": {"ra": 14.4, "cas": 998},
        },
    },
)

FIG6 = Entry(
    "fig6",
    "Another norm, another architecture",
    "l_2 AT and a vision transformer lose cross-class features from best to last, too.",
    runs={"l_2": "wei2025-at-l2-128", "DeiT": "wei2025-at-linf-8-deit"},
    claims=both_fall("l_2", "DeiT"),
    printed={
        "l2_at": {"best": {"ra": 69.8, "cas": 22.1}, "last": {"ra": 65.6, "cas": 10.7}},
        "deit_ti": {"best": {"ra": 47.9, "cas": 25.4}, "last": {"ra": 42.6, "cas": 16.6}},
    },
)


# Figures 3c and 11: where the best and the last checkpoint look. The paper shows samples that are right at
# best and wrong at last. Choosing images on which best does better favours best, so all are judged too.

GROUPS = {"chosen": "images right at best and wrong at last", "all": "all test images"}


def _mean_difference(name: str, group: str, each: Sequence[Any]) -> list[Effect]:
    """Best minus last of every seed, with the interval over images of the first."""
    low, high = each[0]["interval"]
    values = tuple(one["difference"] for one in each)
    return [Effect(f"{name}, best minus last, {GROUPS[group]}", values, (low, high))]


def _map_claim(text: str, key: str, name: str, group: str, where: str) -> Claim:
    """A measure of how wide the maps spread is larger at best."""

    def effects(m: Numbers) -> list[Effect]:
        each = [one["all_images"] if group == "all" else one for one in m["maps"]]
        return _mean_difference(name, group, [one[key] for one in each])

    return Claim(text, effects, where=where)


def _wider(group: str, where: str) -> Claim:
    text = "the best checkpoint's maps are spread wider than the last one's"
    name = "share of the image with half of the map's mass"
    return _map_claim(text, "half_mass_area", name, group, where)


def _on_shared_parts(group: str) -> Claim:
    def effects(m: Numbers) -> list[Effect]:
        each = [one[group]["shared"] for one in m["parts"]]
        return _mean_difference("share of the map's mass on cross-class parts", group, each)

    text = "the best checkpoint looks more at planted cross-class parts than the last"
    return Claim(text, effects, where=f"Shapes, {GROUPS[group]}")


def _collect_maps(evidence: RunEvidence, size: Size) -> Numbers:
    out = collect(evidence)
    with_maps = [e for e in evidence["AT"] if e.extras["saliency"]["n"]]
    out["maps"] = [e.extras["saliency"] for e in with_maps]
    out["grids"] = [f"runs/{e.folder.name}/saliency.png" for e in with_maps]
    out["parts"] = [e.extras["parts"] for e in evidence.get("Shapes", ())]
    return out


FIG3C = Entry(
    "fig3c",
    "Where best and last look",
    "The best checkpoint looks at more of the object, the last at parts that only one class has.",
    runs={**AT, "Shapes": "shapes-demo"},
    extras={"AT": ("saliency",), "Shapes": ("parts",)},
    compute=_collect_maps,
    claims=(
        _wider("chosen", f"{GROUPS['chosen']}, which favours best"),
        _wider("all", GROUPS["all"]),
        _on_shared_parts("chosen"),
        _on_shared_parts("all"),
    ),
    printed=FIG3_PRINTED,
)

FIG11 = Entry(
    "fig11",
    "Maps of the first 24 such samples",
    "More samples that are right at best and wrong at last, by sample id, six to a line.",
    runs=AT,
    extras={"AT": ("saliency",)},
    compute=_collect_maps,
    claims=(
        _map_claim(
            "the entropy of the best checkpoint's maps is higher than that of the last one's",
            "entropy",
            "entropy of the maps",
            "all",
            GROUPS["all"],
        ),
    ),
)


# Figure 7: catastrophic overfitting


def _collapses(run: str, where: str = "") -> tuple[Claim, ...]:
    """That robustness is gone at the end, and cross-class features with it."""

    def effects(m: Numbers) -> list[Effect]:
        best, last = (per_seed(m, run, stage, "robust") for stage in ("best", "last"))
        each = tuple(b / 4 - z for b, z in zip(best, last, strict=True))
        return [Effect("a quarter of the best robust accuracy, minus the last", each)]

    gone = "fast AT overfits catastrophically: almost nothing of its robustness is left"
    return (
        Claim(gone, effects, where=where),
        rises(0.05, run, where),
        falls(run, "cas", "CAS is lower after the collapse than at the best checkpoint", where),
    )


FIG7 = Entry(
    "fig7",
    "Catastrophic overfitting of fast AT",
    "When fast AT collapses, its cross-class features are gone with its robustness.",
    runs={"FAT": "wei2025-fat-linf-8", "provoked": "digits-fat"},
    stages=(0.05,),
    claims=(
        *_collapses("FAT"),
        *_collapses("provoked", "digits, one step of 0.32: where a collapse is cheap to try"),
    ),
    printed={
        "points": [
            {"stage": "epoch10", "epoch": 10, "ra": 40.0, "cas": 13.8},
            {"stage": "best", "epoch": None, "ra": 41.8, "cas": 14.1},
            {"stage": "after_co", "epoch": None, "ra": 0.1, "cas": 2.1},
        ],
    },
)


# Figure 8: the instance-wise metric


def _near_zero(m: Numbers) -> list[Effect]:
    effects = []
    for name, run in m["runs"].items():
        for stage in ("best", "last"):
            K = len(run["class_names"])
            each = tuple(0.1 - v / (K * (K - 1)) for v in run[stage]["all_pairs_cas"])
            effects.append(Effect(f"0.1 minus the mean positive entry, {name} at {stage}", each))
    return effects


FIG8 = Entry(
    "fig8",
    "Instance-wise matrices",
    "The instance-wise metric agrees: I-CAS falls from best to last under both norms.",
    runs={"l_inf": "wei2025-at-linf-8", "l_2": "wei2025-at-l2-128"},
    claims=(
        *(
            falls(name, "icas", "I-CAS is lower at the last checkpoint than at the best", name)
            for name in ("l_inf", "l_2")
        ),
        Claim("averaged over all pairs of samples, the entries hover near zero (below 0.1)", _near_zero),
    ),
    printed={
        "linf": {"best": 34.9, "last": 25.6},
        "l2": {"best": 27.0, "last": 14.9},
    },
)


# Figure 9: standard training, on clean images


def _with_clean(evidence: RunEvidence, size: Size) -> Numbers:
    """Beside the usual numbers, CAS and C on clean images at quarters of the schedule, best and last."""
    clean: dict[str, dict[str, list[float]]] = {}
    matrices: dict[str, Any] = {}
    for name, each in evidence.items():
        stages = [e.extras["clean"] for e in each]
        clean[name] = {s: [one[s]["cas"] for one in stages] for s in stages[0]}
        matrices[name] = {s: stages[0][s]["C"] for s in stages[0]}
    return {**collect(evidence), "clean": clean, "clean_C": matrices}


def _below(text: str, stage: str) -> Claim:
    """Standard training ends with less CAS on clean images than AT has at a stage."""

    def effects(m: Numbers) -> list[Effect]:
        ends = m["clean"]["AT"][stage], m["clean"]["standard"]["100 %"]
        return [difference(f"CAS on clean images, AT at {stage} minus standard at its end", *ends)]

    return Claim(text, effects)


def _settles(m: Numbers) -> list[Effect]:
    standard, at = m["clean"]["standard"], m["clean"]["AT"]
    late = difference("", standard["100 %"], standard["75 %"]).values
    lost = difference("", at["best"], at["last"]).values
    each = tuple(abs(b) - abs(a) for a, b in zip(late, lost, strict=True))
    name = "change of CAS: AT's from best to last, minus standard training's in its last quarter"
    return [Effect(name, each)]


FIG9 = Entry(
    "fig9",
    "Standard training",
    "Standard training shares fewer features than AT, and forgets none in its late phase.",
    runs={**AT, "standard": "wei2025-standard"},
    extras={"AT": ("clean",), "standard": ("clean",)},
    compute=_with_clean,
    claims=(
        _below("standard training shares less than AT's best, on clean images", "best"),
        _below("standard training shares less than AT's last, on clean images", "last"),
        Claim("its CAS changes less late in training than AT's does from best to last", _settles),
    ),
    printed={
        "points": [
            {"epoch": 50, "cas": 7.3},
            {"epoch": 100, "cas": 8.4},
            {"epoch": 150, "cas": 9.8},
            {"epoch": 200, "cas": 10.2},
        ],
        "text_claim": "AT CAS generally > 20",
    },
)

FIGURES = (FIG1, FIG2, FIG3AB, FIG3C, FIG4, FIG5, FIG6, FIG7, FIG8, FIG9, FIG10, FIG11)
