"""The paper's figures as entries; every sentence that claims something is a claim of its own."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from crossclass.experiments import drawing
from crossclass.experiments.claims import Claim, Gain, Numbers
from crossclass.experiments.entry import Experiment, Found, Size
from crossclass.experiments.spread import correlation
from crossclass.experiments.stages import collect, difference, fall, percent, slope, values

SMALL = {f"eps {e}/255": f"wei2025-at-linf-{e}" for e in (2, 4, 6, 8)}
AT = {"AT": "wei2025-at-linf-8"}
PHASES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
"""The paper's epochs 10, 30, ..., 190 of 200 as shares of the schedule."""


def _collect(shares: Sequence[float] = ()) -> Any:
    def measure(found: Found, size: Size) -> Numbers:
        return collect(found, shares)

    return measure


def _loses(run: str, key: str, text: str, margin: float = 0.0, where: str = "") -> Claim:
    """Best minus last is positive."""
    return Claim(f"{key}-{run}", text, lambda m: [fall(m, run, key)], margin, where)


def _both_fall(*runs: str) -> tuple[Claim, ...]:
    """CAS and robust accuracy are lower at last than at best, in each of the runs."""
    return tuple(
        _loses(run, key, f"{what} is lower at the last checkpoint than at the best", where=run)
        for run in runs
        for key, what in (("cas", "CAS"), ("robust", "robust accuracy"))
    )


def _over(text: str, id_: str, runs: Mapping[str, str], key: str) -> Claim:
    """What is lost from best to last grows with eps."""
    eps = [float(name.split()[1].split("/")[0]) for name in runs]

    def gains(m: Numbers) -> list[Gain]:
        lost = [fall(m, name, key).values for name in runs]
        return [slope(f"{'CAS' if key == 'cas' else 'robust accuracy'} lost per 1/255 of eps", eps, lost)]

    return Claim(id_, text, gains)


def _train_rises(run: str) -> Claim:
    def gains(m: Numbers) -> list[Gain]:
        ends = [values(m, run, stage, "train_robust", checks=True) for stage in ("last", "best")]
        return [difference("training robust accuracy, last minus best", *ends), fall(m, run, "robust")]

    text = "robust overfitting: test robust accuracy falls after its best while training's rises"
    return Claim(f"overfits-{run}", text, gains, where=run)


def _more_at_best_than(share: float, run: str = "AT") -> Claim:
    def gains(m: Numbers) -> list[Gain]:
        best, early = (values(m, run, s, "cas", checks=True) for s in ("best", percent(share)))
        return [difference(f"CAS, best minus {percent(share)} of the schedule", best, early)]

    return Claim("rises", "CAS is higher at the best checkpoint than early in training", gains)


def _pair_rank(a: str, b: str, places: int) -> Claim:
    """Whether two classes are among the most shared pairs at best."""

    def gains(m: Numbers) -> list[Gain]:
        run = m["runs"]["AT"]
        names, C = run["class_names"], run["C"]["best"]
        i, j = sorted((names.index(a), names.index(b)))
        upper = {(p, q): C[p][q] for p in range(len(C)) for q in range(p)}
        rank = 1 + sum(v > upper[j, i] for v in upper.values())
        return [
            Gain(
                f"{places + 0.5:g} minus the rank of {a}-{b}",
                (places + 0.5 - rank,),
                (places + 0.5 - rank,) * 2,
            )
        ]

    text = f"{a} and {b} are among the {places} most shared pairs at the best checkpoint"
    return Claim("pair", text, gains, where="first seed")


def _negatives_small(m: Numbers) -> list[Gain]:
    run = m["runs"]["AT"]["best"]
    share = [n / c for n, c in zip(run["negative_mass"], run["cas"], strict=True)]
    return [Gain("a quarter, minus negative entries over positive ones", tuple(0.25 - s for s in share))]


def _kd(id_: str, text: str, key: str, what: str) -> Claim:
    """A comparison of distillation with AT of the same seed: what is lost, or a level."""
    said = {"cas": "CAS", "robust": "robust accuracy"}[key]

    def gains(m: Numbers) -> list[Gain]:
        if what == "loss":
            return [
                difference(f"{said} lost, AT minus KD", fall(m, "AT", key).values, fall(m, "KD", key).values)
            ]
        return [
            difference(f"{said} at {what}, KD minus AT", *(values(m, r, what, key) for r in ("KD", "AT")))
        ]

    return Claim(id_, text, gains)


def _phase(rising: bool) -> Claim:
    """The correlation of CAS and robust accuracy over the epochs before, or after, the best."""

    def gains(m: Numbers) -> list[Gain]:
        run, found = m["runs"]["AT"], []
        for best, curve in zip(run["best"]["epoch"], run["curves"], strict=True):
            rows = zip(curve["epoch"], curve["cas"], curve["test_robust"], strict=True)
            part = [(c, r) for e, c, r in rows if (e <= best if rising else e >= best)]
            r = correlation([c for c, _ in part], [r for _, r in part])
            if r is None:
                raise ValueError(f"too few checks {'up to' if rising else 'from'} the best epoch ({best})")
            found.append(r)
        return [Gain("correlation of CAS and robust accuracy", tuple(found))]

    phase = "up to the best epoch" if rising else "from the best epoch on"
    return Claim("rising" if rising else "falling", f"CAS moves with robust accuracy {phase}", gains)


def _hovers(m: Numbers) -> list[Gain]:
    gains = []
    for name, run in m["runs"].items():
        for stage in ("best", "last"):
            K = len(run["class_names"])
            each = tuple(0.1 - v / (K * (K - 1)) for v in run[stage]["all_pairs_cas"])
            gains.append(Gain(f"0.1 minus the mean positive entry, {name} at {stage}", each))
    return gains


def _clean_cas(m: Numbers, run: str, stage: str) -> tuple[float, ...]:
    return tuple(m["clean"][run][stage])


def _standard(id_: str, text: str, stage: str) -> Claim:
    def gains(m: Numbers) -> list[Gain]:
        at = _clean_cas(m, "AT", stage), _clean_cas(m, "standard", "100 %")
        return [difference(f"CAS on clean images, AT at {stage} minus standard at its end", *at)]

    return Claim(id_, text, gains)


def _settles(m: Numbers) -> list[Gain]:
    late = difference("", _clean_cas(m, "standard", "100 %"), _clean_cas(m, "standard", "75 %")).values
    lost = difference("", _clean_cas(m, "AT", "best"), _clean_cas(m, "AT", "last")).values
    each = tuple(abs(b) - abs(a) for a, b in zip(late, lost, strict=True))
    return [
        Gain("change of CAS: AT's from best to last, minus standard training's in its last quarter", each)
    ]


def _with_clean(found: Found, size: Size) -> Numbers:
    """Beside the usual numbers, CAS on clean images at the stages of Fig. 9."""
    clean: dict[str, dict[str, list[float]]] = {}
    matrices: dict[str, Any] = {}
    for name, each in found.items():
        stages = [e.extras["clean"] for e in each]
        clean[name] = {s: [one[s]["cas"] for one in stages] for s in stages[0]}
        matrices[name] = {s: stages[0][s]["C"] for s in stages[0]}
    return {**collect(found), "clean": clean, "clean_C": matrices}


def _collapse(run: str) -> tuple[Claim, ...]:
    """That robustness is gone at the end, and cross-class features with it."""

    def gains(m: Numbers) -> list[Gain]:
        best, last = (values(m, run, stage, "robust") for stage in ("best", "last"))
        each = tuple(b / 4 - z for b, z in zip(best, last, strict=True))
        return [Gain("a quarter of the best robust accuracy, minus the last", each)]

    where = {"FAT": "", "provoked": "digits, one step of 0.32: where a collapse is cheap to try"}[run]
    gone = "fast AT overfits catastrophically: almost nothing of its robustness is left"
    early = _more_at_best_than(0.05, run)
    return (
        Claim(f"collapses-{run}", gone, gains, where=where),
        Claim(f"rises-{run}", early.text, early.gains, where=where),
        _loses(run, "cas", "CAS is lower after the collapse than at the best checkpoint", where=where),
    )


FIGURES: tuple[Experiment, ...] = (
    Experiment(
        "fig1",
        "Robust overfitting at four radii",
        "Test robust accuracy peaks and falls while training's goes on rising, the more the larger eps is.",
        runs=SMALL,
        measure=_collect(),
        draw=drawing.overfitting,
        claims=(
            *(_train_rises(name) for name in SMALL),
            _over("what is lost of robust accuracy grows with eps (up to 8/255)", "grows", SMALL, "robust"),
        ),
    ),
    Experiment(
        "fig2",
        "C early, at the best and at the last checkpoint",
        "AT shares more features between classes at its most robust checkpoint than early on or at its end.",
        runs=AT,
        measure=_collect((0.35,)),
        draw=partial(drawing.matrices, stages=("35 %", "best", "last")),
        claims=(
            _more_at_best_than(0.35),
            _loses("AT", "cas", "CAS is lower at the last checkpoint than at the best"),
            Claim(
                "negatives",
                "negative entries of C are small beside the positive ones (eq. 7)",
                _negatives_small,
            ),
            _pair_rank("automobile", "truck", 5),
        ),
        printed="fig2",
    ),
    Experiment(
        "fig3ab",
        "Knowledge distillation keeps cross-class features",
        "With distilled labels, CAS and robust accuracy hardly fall after the best, and the best is better.",
        runs={**AT, "KD": "wei2025-kd-linf-8"},
        measure=_collect(),
        draw=partial(drawing.matrices, stages=("best", "last")),
        claims=(
            _kd("keeps-cas", "KD loses less CAS from best to last than AT", "cas", "loss"),
            _kd("keeps-robust", "KD loses less robust accuracy from best to last than AT", "robust", "loss"),
            _kd("more-cas", "KD's last checkpoint has more CAS than AT's", "cas", "last"),
            _kd("more-robust", "KD's last checkpoint is more robust than AT's", "robust", "last"),
            _kd(
                "peak",
                "KD's best checkpoint is more robust than AT's (48.1 against 47.8 %)",
                "robust",
                "best",
            ),
        ),
        printed="fig3",
    ),
    Experiment(
        "fig4",
        "C at best minus C at last, at four radii",
        "The larger eps is, the more cross-class features are given up from best to last.",
        runs=SMALL,
        measure=_collect(),
        draw=drawing.differences,
        claims=(_over("what is lost of CAS grows with eps (up to 8/255)", "grows", SMALL, "cas"),),
        printed="fig4",
    ),
    Experiment(
        "fig5",
        "CIFAR-100 and Tiny-ImageNet",
        "More classes, the same: CAS falls from best to last.",
        runs={"CIFAR-100": "wei2025-at-linf-8-cifar100", "Tiny-ImageNet": "wei2025-at-linf-8-tinyimagenet"},
        measure=_collect(),
        draw=partial(drawing.matrices, stages=("best", "last"), scale=(-0.75, 0.75)),
        claims=_both_fall("CIFAR-100", "Tiny-ImageNet"),
        printed="fig5",
    ),
    Experiment(
        "fig6",
        "Another norm, another architecture",
        "l_2 AT and a vision transformer lose cross-class features from best to last, too.",
        runs={"l_2": "wei2025-at-l2-128", "DeiT": "wei2025-at-linf-8-deit"},
        measure=_collect(),
        draw=partial(drawing.matrices, stages=("best", "last")),
        claims=_both_fall("l_2", "DeiT"),
        printed="fig6",
    ),
    Experiment(
        "fig7",
        "Catastrophic overfitting of fast AT",
        "When fast AT collapses, its cross-class features are gone with its robustness.",
        runs={"FAT": "wei2025-fat-linf-8", "provoked": "digits-fat"},
        measure=_collect((0.05,)),
        draw=partial(drawing.matrices, stages=("5 %", "best", "last")),
        claims=(*_collapse("FAT"), *_collapse("provoked")),
        printed="fig7",
    ),
    Experiment(
        "fig8",
        "Instance-wise matrices",
        "The instance-wise metric agrees: I-CAS falls from best to last under both norms.",
        runs={"l_inf": "wei2025-at-linf-8", "l_2": "wei2025-at-l2-128"},
        measure=_collect(),
        draw=partial(drawing.bars, keys=("icas", "all_pairs_cas")),
        claims=(
            *(
                _loses(name, "icas", "I-CAS is lower at the last checkpoint than at the best", where=name)
                for name in ("l_inf", "l_2")
            ),
            Claim(
                "hovers",
                "averaged over all pairs of samples, the entries hover near zero (below 0.1)",
                _hovers,
            ),
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
            _standard("below-best", "standard training shares less than AT's best, on clean images", "best"),
            _standard("below-last", "standard training shares less than AT's last, on clean images", "last"),
            Claim(
                "settles", "its CAS changes less late in training than AT's does from best to last", _settles
            ),
        ),
        printed="fig9",
    ),
    Experiment(
        "fig10",
        "C through the training",
        "CAS and robust accuracy rise together to the best epoch, and fall together after it.",
        runs=AT,
        measure=_collect(PHASES),
        draw=drawing.strip,
        claims=(_phase(True), _phase(False)),
        printed="fig10",
    ),
)
