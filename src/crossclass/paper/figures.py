"""The paper's figures as entries: the runs, the claims with their predicates, and what the paper prints.

Every sentence of the paper that claims something is a claim of its own. Predicates that serve one figure
stand above it; those that several share are in `claims`. Printed accuracies (`ra`) are in percent.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import atanh
from statistics import fmean
from typing import Any

from crossclass.analysis.metrics import metric
from crossclass.paper.claims import (
    both_fall,
    by_seed,
    chosen_above,
    combined,
    falls,
    has_more,
    loses_more,
    loss,
    minus,
    over_images,
    per_seed,
    rises,
    total,
)
from crossclass.paper.entry import Claim, Effect, Entry, Numbers, RunEvidence, Size
from crossclass.paper.run_numbers import collect, shown

AT = {"AT": "wei2025-at-linf-8"}
RADII = {f"eps {e}/255": f"wei2025-at-linf-{e}" for e in (2, 4, 6, 8)}


# Figures 1 and 4: what is lost from best to last, by the radius


def _overfits(run: str) -> Claim:
    """Robust accuracy falls on test images and rises on those of the training."""

    def effects(m: Numbers) -> list[Effect]:
        fallen = by_seed(m, run, m["runs"][run]["late"]["fall"]["train_robust"])
        name = "training robust accuracy, rise along the checks after the first drop"
        return [Effect(name, combined(lambda v: -v, fallen)), loss(m, run, "robust")]

    text = "robust overfitting: test robust accuracy falls after its best while training's rises"
    return Claim(text, effects, where=run)


def _grows(text: str, key: str) -> Claim:
    """The least-squares slope over eps of what is lost from best to last, seed by seed."""

    def effects(m: Numbers) -> list[Effect]:
        eps = [float(name.split()[1].split("/")[0]) for name in RADII]
        away = [e - fmean(eps) for e in eps]
        weights = [a / sum(b * b for b in away) for a in away]
        lost = [loss(m, run, key) for run in RADII]
        slopes = combined(
            lambda *v: sum(w * x for w, x in zip(weights, v, strict=True)), *(e.values for e in lost)
        )
        known = (None if e.images is None else w * w * e.images for w, e in zip(weights, lost, strict=True))
        return [Effect(f"{metric(key).label} lost per 1/255 of eps", slopes, total(*known))]

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
    ends = (per_seed(m, "AT", "best", key) for key in ("cas", "negative_mass"))
    each = combined(lambda cas, negative: cas / 4 - negative, *ends)
    return [Effect("a quarter of CAS, minus the negative entries", each)]


PAIR, PLACES = ("automobile", "truck"), 5


def _with_rank(evidence: RunEvidence, size: Size) -> Numbers:
    """Beside the usual numbers, the rank of one pair among all pairs by C at best, for each seed."""
    ranks = []
    for e in evidence["AT"]:
        names, C = e.env["class_names"], e.best.matrix("C")
        known = all(name in names for name in PAIR) and C is not None
        ranks.append(_rank(C, *(names.index(name) for name in PAIR)) if known else None)
    return {**collect(evidence, size, FIG2.stages), "ranks": ranks}


def _rank(C: Any, a: int, b: int) -> int | None:
    """The place of a pair among all pairs with a number; None where it has none itself."""
    own = C[max(a, b)][min(a, b)]
    each = [v for p, row in enumerate(C) for v in row[:p] if v is not None]
    return None if own is None else 1 + sum(v > own for v in each)


def _is_among(m: Numbers) -> list[Effect]:
    ranks = by_seed(m, "AT", m["ranks"])
    name = f"share of seeds in which {'-'.join(PAIR)} is one of the {PLACES}, against a half"
    beside = f"ranks {', '.join(str(r) for r in ranks.values())}"
    return [Effect(name, combined(lambda r: float(r <= PLACES), ranks), yes_no=True, beside=beside)]


FIG2 = Entry(
    "fig2",
    "C early, at the best and at the last checkpoint",
    "AT shares more features between classes at its most robust checkpoint than early on or at its end.",
    runs=AT,
    stages=(0.35,),
    compute=_with_rank,
    claims=(
        rises(0.35),
        falls("AT", "cas", "CAS is lower at the last checkpoint than at the best"),
        Claim("negative entries of C are small beside the positive ones (eq. 7)", _negative_entries),
        Claim(
            f"{PAIR[0]} and {PAIR[1]} are among the {PLACES} most shared pairs at the best checkpoint",
            _is_among,
            where="in most seeds",
        ),
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
    """CAS and robust accuracy change together from check to check, up to the best epoch or from it on.

    Two levels that fall for reasons of their own correlate by 0.9; their changes do not. A seed gives one
    number, Fisher's z of its correlation, and the seeds are the sample: no check is taken as independent.
    """

    def effects(m: Numbers) -> list[Effect]:
        from scipy import stats

        run, each = m["runs"]["AT"], []
        for best, curve in zip(run["best"]["epoch"], run["checked"], strict=True):
            rows = zip(curve["epoch"], curve["cas"], curve["robust"], strict=True)
            part = [(c, r) for e, c, r in rows if (e <= best if rising else e >= best)]
            changes = [(c - a, r - b) for (a, b), (c, r) in pairwise(part)]
            usable = len(changes) >= 3 and all(len(set(values)) > 1 for values in zip(*changes, strict=True))
            r = float(stats.pearsonr(*zip(*changes, strict=True)).statistic) if usable else None
            each.append(None if r is None else atanh(max(-0.999999, min(0.999999, r))))
        name = "Fisher's z of the correlation of changes of CAS and of robust accuracy from check to check"
        return [Effect(name, by_seed(m, "AT", each))]

    phase = "up to the best epoch" if rising else "from the best epoch on"
    return Claim(f"CAS moves with robust accuracy {phase}", effects)


FIG10 = Entry(
    "fig10",
    "C through the training",
    "CAS and robust accuracy rise together to the best epoch, and fall together after it.",
    runs=AT,
    stages=tuple(percent / 100 for percent in range(5, 100, 10)),
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
            *("robust", "best", "KD", "AT"),
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


def _mean_difference(name: str, group: str, each: Mapping[int, Any]) -> list[Effect]:
    """Best minus last of every seed, with the variance over images, mean of the seeds."""
    values = {seed: one["difference"] for seed, one in each.items()}
    known = [((high - low) / 3.92) ** 2 for low, high in (one["interval"] for one in each.values())]
    images, beside = fmean(known) if known else None, "what choosing the best gives is not known of maps"
    return [Effect(f"{name}, best minus last, {GROUPS[group]}", values, images, beside=beside)]


def _map_claim(text: str, key: str, name: str, group: str, where: str) -> Claim:
    """A measure of how wide the maps spread is larger at best."""

    def effects(m: Numbers) -> list[Effect]:
        each = [one["all_images"] if group == "all" else one for one in m["maps"]]
        by = {seed: one[key] for seed, one in zip(m["map_seeds"], each, strict=True)}
        return _mean_difference(name, group, by)

    return Claim(text, effects, where=where)


def _wider(group: str, where: str) -> Claim:
    text = "the best checkpoint's maps are spread wider than the last one's"
    name = "share of the image with half of the map's mass"
    return _map_claim(text, "half_mass_area", name, group, where)


def _on_shared_parts(group: str) -> Claim:
    def effects(m: Numbers) -> list[Effect]:
        each = {s: one[group]["shared"] for s, one in zip(m["part_seeds"], m["parts"], strict=True)}
        return _mean_difference("share of the map's mass on cross-class parts", group, each)

    text = "the best checkpoint looks more at planted cross-class parts than the last"
    return Claim(text, effects, where=f"Shapes, {GROUPS[group]}")


def _collect_maps(evidence: RunEvidence, size: Size) -> Numbers:
    out = collect(evidence, size)
    with_maps = [e for e in evidence["AT"] if e.extras["saliency"]["n"]]
    out["maps"] = [e.extras["saliency"] for e in with_maps]
    out["map_seeds"] = [e.seed for e in with_maps]
    grids = [f"runs/{e.folder.name}/saliency.png" for e in with_maps]
    out["grids"] = grids[shown(out["map_seeds"], size) :] if grids else []
    out["parts"] = [e.extras["parts"] for e in evidence.get("Shapes", ())]
    out["part_seeds"] = [e.seed for e in evidence.get("Shapes", ())]
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
    """That robustness is gone at the end, and cross-class features with it.

    A run collapses or does not, so the question is whether most seeds do: their mean is of two kinds of runs.
    """

    def effects(m: Numbers) -> list[Effect]:
        ends = [per_seed(m, run, stage, "robust") for stage in ("best", "last")]
        gone = combined(lambda best, last: float(last < best / 4), *ends)
        share = combined(lambda best, last: last / best if best else 1.0, *ends).values()
        each = ", ".join("?" if v is None else f"{v:.2f}" for v in share)
        name = "share of seeds whose last robust accuracy is below a quarter of the best, against a half"
        return [Effect(name, gone, yes_no=True, beside=f"last over best of every seed: {each}")]

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
            pairs = K * (K - 1)
            each = combined(lambda v, pairs=pairs: 0.1 - v / pairs, per_seed(m, name, stage, "all_pairs_cas"))
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
        stages, at = [e.extras["clean"] for e in each], shown([e.seed for e in each], size)
        clean[name] = {s: [one[s]["cas"] for one in stages] for s in stages[0]}
        matrices[name] = {s: stages[at][s]["C"] for s in stages[at]}
    return {**collect(evidence, size), "clean": clean, "clean_C": matrices}


def _clean(m: Numbers, run: str, stage: str) -> dict[int, float | int | None]:
    return by_seed(m, run, m["clean"][run][stage])


def _clean_over_images(m: Numbers, *runs: str) -> float | None:
    """The variance over images of a difference of CAS on clean images, taken from that under attack."""
    return total(*(over_images(m, run, "last", "cas") for run in runs))


def _below(text: str, stage: str) -> Claim:
    """Standard training ends with less CAS on clean images than AT has at a stage."""

    def effects(m: Numbers) -> list[Effect]:
        ends = _clean(m, "AT", stage), _clean(m, "standard", "100 %")
        name = f"CAS on clean images, AT at {stage} minus standard at its end"
        return [Effect(name, minus(*ends), _clean_over_images(m, "AT", "standard"))]

    return Claim(text, effects)


def _settles(m: Numbers) -> list[Effect]:
    series = [_clean(m, "AT", s) for s in ("best", "last")]
    series += [_clean(m, "standard", s) for s in ("75 %", "100 %")]
    series.append(chosen_above(m, "AT", "cas"))
    each = combined(lambda best, last, early, late, above: best - last - above - abs(late - early), *series)
    name = "CAS lost by AT, less what choosing the best can give, minus standard training's late change"
    return [Effect(name, each, _clean_over_images(m, "AT", "AT", "standard", "standard"))]


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
