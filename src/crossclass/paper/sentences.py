"""The paper's sentences as claims: what is to be positive where one of them is true."""

from collections.abc import Mapping
from dataclasses import replace

from crossclass.paper.claims import Claim, Gain, Numbers
from crossclass.paper.stages import SAYS, ahead, difference, fall, lost, percent, slope, values
from crossclass.paper.statistics import correlation


def loses(run: str, key: str, text: str, where: str = "") -> Claim:
    """Best minus last is positive."""
    return Claim(f"{key}-{run}", text, lambda m: [fall(m, run, key)], where=where)


def both_fall(*runs: str) -> tuple[Claim, ...]:
    """CAS and robust accuracy are lower at last than at best, in each of the runs."""
    return tuple(
        loses(run, key, f"{SAYS[key]} is lower at the last checkpoint than at the best", where=run)
        for run in runs
        for key in ("cas", "robust")
    )


def loses_more(id_: str, text: str, key: str, run: str, *others: str) -> Claim:
    """From best to last a run loses more than each of the others, seed by seed."""
    return Claim(id_, text, lambda m: [lost(m, key, run, other) for other in others])


def has_more(id_: str, text: str, key: str, stage: str, run: str, *others: str) -> Claim:
    """At a stage a run has more than each of the others, seed by seed."""
    return Claim(id_, text, lambda m: [ahead(m, key, stage, run, other) for other in others])


def keeps_more(text: str, key: str, run: str, than: str) -> Claim:
    """A run loses less than another one from best to last, and has more at last."""
    return Claim(
        f"{key}-{run}",
        text,
        lambda m: [lost(m, key, than, run), ahead(m, key, "last", run, than)],
        where=run,
    )


def grows(text: str, runs: Mapping[str, str], key: str) -> Claim:
    """What is lost from best to last grows with eps, which the names of the runs say."""
    eps = [float(name.split()[1].split("/")[0]) for name in runs]

    def gains(m: Numbers) -> list[Gain]:
        each = [fall(m, name, key).values for name in runs]
        return [slope(f"{SAYS[key]} lost per 1/255 of eps", eps, each)]

    return Claim("grows", text, gains)


def overfits(run: str) -> Claim:
    """Robust accuracy falls on test images and rises on those of the training."""

    def gains(m: Numbers) -> list[Gain]:
        ends = [values(m, run, stage, "train_robust", checks=True) for stage in ("last", "best")]
        return [difference("training robust accuracy, last minus best", *ends), fall(m, run, "robust")]

    text = "robust overfitting: test robust accuracy falls after its best while training's rises"
    return Claim(f"overfits-{run}", text, gains, where=run)


def rises(share: float, run: str = "AT") -> Claim:
    """CAS is higher at best than at a share of the schedule."""

    def gains(m: Numbers) -> list[Gain]:
        best, early = (values(m, run, s, "cas", checks=True) for s in ("best", percent(share)))
        return [difference(f"CAS, best minus {percent(share)} of the schedule", best, early)]

    return Claim("rises", "CAS is higher at the best checkpoint than early in training", gains)


def pair_rank(a: str, b: str, places: int) -> Claim:
    """Whether two classes are among the most shared pairs at best."""

    def gains(m: Numbers) -> list[Gain]:
        run = m["runs"]["AT"]
        names, C = run["class_names"], run["C"]["best"]
        i, j = sorted((names.index(a), names.index(b)))
        rank = 1 + sum(C[p][q] > C[j][i] for p in range(len(C)) for q in range(p))
        off = places + 0.5 - rank
        return [Gain(f"{places + 0.5:g} minus the rank of {a}-{b}", (off,), (off, off))]

    text = f"{a} and {b} are among the {places} most shared pairs at the best checkpoint"
    return Claim("pair", text, gains, where="first seed")


def _small(m: Numbers) -> list[Gain]:
    best = m["runs"]["AT"]["best"]
    pairs = zip(best["cas"], best["negative_mass"], strict=True)
    each = tuple(cas / 4 - negative for cas, negative in pairs)
    return [Gain("a quarter of CAS, minus the negative entries", each)]


NEGATIVES = Claim("negatives", "negative entries of C are small beside the positive ones (eq. 7)", _small)


def phase(rising: bool) -> Claim:
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

    said = "up to the best epoch" if rising else "from the best epoch on"
    return Claim("rising" if rising else "falling", f"CAS moves with robust accuracy {said}", gains)


def _near_zero(m: Numbers) -> list[Gain]:
    gains = []
    for name, run in m["runs"].items():
        for stage in ("best", "last"):
            K = len(run["class_names"])
            each = tuple(0.1 - v / (K * (K - 1)) for v in run[stage]["all_pairs_cas"])
            gains.append(Gain(f"0.1 minus the mean positive entry, {name} at {stage}", each))
    return gains


HOVERS = Claim(
    "hovers", "averaged over all pairs of samples, the entries hover near zero (below 0.1)", _near_zero
)


def _clean_cas(m: Numbers, run: str, stage: str) -> tuple[float, ...]:
    return tuple(m["clean"][run][stage])


def below_at(id_: str, text: str, stage: str) -> Claim:
    """Standard training ends with less CAS on clean images than AT has at a stage."""

    def gains(m: Numbers) -> list[Gain]:
        ends = _clean_cas(m, "AT", stage), _clean_cas(m, "standard", "100 %")
        return [difference(f"CAS on clean images, AT at {stage} minus standard at its end", *ends)]

    return Claim(id_, text, gains)


def _settled(m: Numbers) -> list[Gain]:
    late = difference("", _clean_cas(m, "standard", "100 %"), _clean_cas(m, "standard", "75 %")).values
    fallen = difference("", _clean_cas(m, "AT", "best"), _clean_cas(m, "AT", "last")).values
    each = tuple(abs(b) - abs(a) for a, b in zip(late, fallen, strict=True))
    name = "change of CAS: AT's from best to last, minus standard training's in its last quarter"
    return [Gain(name, each)]


SETTLES = Claim("settles", "its CAS changes less late in training than AT's does from best to last", _settled)


def collapses(run: str, where: str = "") -> tuple[Claim, ...]:
    """That robustness is gone at the end, and cross-class features with it."""

    def gains(m: Numbers) -> list[Gain]:
        best, last = (values(m, run, stage, "robust") for stage in ("best", "last"))
        each = tuple(b / 4 - z for b, z in zip(best, last, strict=True))
        return [Gain("a quarter of the best robust accuracy, minus the last", each)]

    gone = "fast AT overfits catastrophically: almost nothing of its robustness is left"
    return (
        Claim(f"collapses-{run}", gone, gains, where=where),
        replace(rises(0.05, run), id=f"rises-{run}", where=where),
        loses(run, "cas", "CAS is lower after the collapse than at the best checkpoint", where=where),
    )
