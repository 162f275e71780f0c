"""Alarms on published curves, on runs of our own, on made collapses, and on noise alone."""

import math
import random
import statistics
import subprocess
import sys

import numpy as np
import pytest

from crossclass.core.errors import UserError
from crossclass.paper.published_curves import anchor
from crossclass.training.alarms import history, pack, raised, trends
from crossclass.training.alarms.checks import checks

# cifar10-mini, seed 0 (1,000 validation images, PGD-10): epoch, train and validation robust accuracy, CAS
# on validation, classes predicted; as logged.
MINI = """
1 .098 .125 6.149 8;   3 .188 .182 10.052 9;  6 .249 .234 9.551 10;  9 .305 .237 9.547 9
12 .292 .231 8.120 10; 15 .334 .199 5.089 10; 18 .421 .177 5.237 10; 21 .523 .137 4.762 10
24 .634 .140 3.992 10; 27 .703 .106 3.556 10; 30 .809 .117 3.729 10; 33 .926 .083 2.654 10
36 .944 .082 2.533 10; 39 .958 .076 2.426 10; 42 .965 .075 2.417 10; 45 .972 .077 2.353 10
"""
# FGSM training on scanned digits at eps 0.3 (300 validation images): FGSM lies far above PGD, and yet
# nothing has collapsed. Epochs 1, 2, ...: train robust, PGD-10, FGSM.
DIGITS = """
.055 .000 .063; .100 .017 .130; .170 .063 .213; .242 .073 .270; .292 .083 .297; .346 .073 .263
.349 .110 .367; .420 .123 .417; .442 .117 .380; .461 .210 .517; .479 .210 .527; .532 .227 .487
.524 .217 .500; .561 .237 .470; .578 .243 .533; .610 .267 .590; .637 .300 .553; .670 .270 .533
"""


def table(text: str) -> list[list[float]]:
    return [[float(v) for v in line.split()] for line in text.replace(";", "\n").split("\n") if line.strip()]


def row(epoch: int, robust: float, fgsm: float | None = None, **more) -> dict:
    """A checked epoch: 1,000 validation images, training accuracy that rises slowly."""
    one = {"epoch": epoch, "val_robust": robust, "train_robust": 0.3 + 0.002 * epoch, "watched_n": 1000}
    if fgsm is not None:
        one |= {
            "watched_fgsm": fgsm,
            "fgsm_gap": fgsm - robust,
            "fgsm_n": 500,
            "watched_attack": "PGD-10, l_inf",
        }
    return one | {"watched": "val"} | more


def probed(*checks: tuple[float, float], first: int = 1) -> list[dict]:
    """Consecutive epochs by their accuracies under PGD and under FGSM."""
    return [row(i, robust, fgsm) for i, (robust, fgsm) in enumerate(checks, first)]


def curve(values, **more) -> list[dict]:
    return [row(i, v, **more) for i, v in enumerate(values, 1)]


def names(rows, classes: int = 10, n: int | None = None) -> list[str]:
    return [a.name for a, _ in history(rows, classes, n)]


def catastrophes(rows, classes: int = 10) -> list[int]:
    return [a.epoch for a, _ in history(rows, classes) if a.name == "catastrophic-overfitting"]


def mini() -> list[dict]:
    return [
        {"epoch": int(e), "train_robust": t, "val_robust": v, "val_cas": c, "predicted_classes": int(k),
         "classwise_robust": [0.1] * 10, "warnings": []}
        for e, t, v, c, k in table(MINI)
    ]  # fmt: skip


def test_our_own_run_overfits_and_loses_cas():
    found = history(mini(), 10, 1000)
    assert [(a.name, a.since, a.epoch, a.level) for a, _ in found] == [
        ("cas-falling", 3, 18, "note"),
        ("robust-overfitting", 9, 21, "alarm"),
    ]
    assert all(ended is None for _, ended in found)
    robust = found[1][0]
    assert robust.last_good == 9
    assert str(robust).startswith("robust overfitting since epoch 9: validation robust accuracy")
    for said in ("n = 1,000", "was 23.7 % there", "is 15.7 % in epochs 18 to 21", "from 27.7 % to 47.2 %"):
        assert said in robust.evidence
    assert "from 10.1 to 5.2" in found[0][0].evidence
    assert "18.2 % to 17.7 %" in found[0][0].evidence


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("rice2020", 107),
        ("rice2020-l2", 104),
        ("rice2020-cifar100", 101),
        ("rice2020-cifar100-l2", 103),
        ("rice2020-fgsmrs", 102),
        ("rice2020-cosine", 137),
        ("awp-at", 103),
        ("awp-at-l2", 104),
        ("awp-at-cifar100", 104),
        ("awp-at-wideresnet", 102),
    ],
)
def test_published_curves_overfit_shortly_after_the_drop(name, best):
    found = history(anchor(name), 100, 10_000)
    assert [(a.name, a.since, ended) for a, ended in found] == [("robust-overfitting", best, None)]
    assert best < found[0][0].epoch <= best + 28


def test_the_published_cure_raises_nothing():
    assert names(anchor("awp"), 10, 10_000) == []  # 1.1 points from best to last


def test_a_smaller_part_and_fewer_checks_see_it_later():
    rows = anchor("rice2020")
    every_fifth = [r for r in rows if r["epoch"] % 5 == 0]
    first = [
        history(some, 10, n)[0][0].epoch for some, n in ((rows, 10_000), (rows, 1000), (every_fifth, 10_000))
    ]
    assert first[0] < first[1]
    assert first[0] <= first[2] <= 170


def test_flat_and_rising_curves_raise_nothing():
    assert names(curve([0.4] * 60)) == []
    assert names(curve([0.2 + 0.004 * i for i in range(60)])) == []
    assert names(curve([0.2 + 0.05 * i for i in range(5)] + [0.4] * 20)) == []


def with_outcomes(right: np.ndarray, lr: float = 0.01) -> list[dict]:
    """A row for each row of outcomes [checks, images]."""
    bits = [{"watched_correct": pack(one), "watched_n": len(one), "lr": lr} for one in right]
    return [
        row(i, float(one.mean()), **more) for i, (one, more) in enumerate(zip(right, bits, strict=True), 1)
    ]


def overfitting(n: int, fall: float, seed: int, checks: int = 20) -> np.ndarray:
    """Outcomes of n images, 25 % right before a fall; neighbouring checks differ on some 4 % of them."""
    draw = np.random.default_rng(seed)
    hard, out = draw.standard_normal(n), []
    for t in range(checks):
        hard = 0.998 * hard + 0.063 * draw.standard_normal(n)
        level = 0.25 + 0.0057 * draw.standard_normal() - fall * min(1, max(0, (t - 6) / 9))
        easy = statistics.NormalDist().inv_cdf(level)
        out.append(0.9925 * hard + 0.122 * draw.standard_normal(n) < easy)
    return np.array(out)


def test_the_same_images_show_a_fall_of_five_points_in_twenty_checks_of_500():
    """As if they were others, it is seen in less than half as many runs."""
    found = {True: 0, False: 0}
    for seed in range(40):
        rows = with_outcomes(overfitting(500, 0.05, seed))
        found[True] += "robust-overfitting" in names(rows)
        found[False] += "robust-overfitting" in names([{**r, "watched_correct": None} for r in rows])
    assert found[True] >= 32
    assert found[True] >= 2 * found[False]


@pytest.mark.parametrize("checks", [10, 20, 40])
def test_outcomes_without_a_fall_raise_nothing(checks):
    runs = 60
    alarms = sum(bool(names(with_outcomes(overfitting(500, 0, seed, checks)))) for seed in range(runs))
    assert alarms / runs <= 0.05


def test_the_standard_error_is_that_of_the_same_images():
    """Written out: the images' part from d_i, the network's from second differences without the images'."""
    right, n, w = overfitting(300, 0.1, 3), 300, 3
    found, ended = history(with_outcomes(right), 10)[0]
    m = found.epoch
    b = right[:m].astype(float)
    means = [b[i : i + w].mean() for i in range(m - 2 * w + 1)]
    at = int(np.argmax(means))
    d = b[at : at + w].mean(axis=0) - b[-w:].mean(axis=0)
    e = b[:-2] - 2 * b[1:-1] + b[2:]
    moved = (e.mean(axis=1) ** 2 - e.var(axis=1) / n) / 6
    v = []
    for t in (*range(at, at + w), *range(m - w, m)):
        near = [x for j, x in enumerate(moved) if abs(j + 1 - t) <= 6]
        v.append(max(0, np.mean(near)))
    error = math.sqrt(d.var() / n + sum(v) / w**2)
    assert f"{100 * d.mean():.1f} points below" in found.evidence
    assert f"standard error {100 * error:.1f})" in found.evidence
    assert d.mean() > (2.2 + math.sqrt(2 * math.log(m))) * error
    assert ended is None


def test_a_network_that_never_learned_overfits_nothing():
    """0.125 of 1,000 is the best of twenty guesses among ten classes often enough; of 10,000 it is not."""
    values = [0.1, 0.11] + [0.125] * 8 + [0.06] * 10
    assert names(curve(values)) == []
    assert names(curve(values, watched_n=10_000)) == ["robust-overfitting"]
    assert names(curve(values), classes=100) == ["robust-overfitting"]


def test_rows_of_older_runs_among_others_are_judged_without_outcomes():
    rows = with_outcomes(overfitting(500, 0.05, 0))
    mixed = [{**rows[0], "watched_correct": None}, *rows[1:]]
    assert names(mixed) == names([{**r, "watched_correct": None} for r in rows])


def test_outcomes_are_packed_to_a_bit_each():
    right = np.random.default_rng(0).random(501) < 0.3
    (check,) = checks([row(1, 0.3, watched_correct=pack(right), watched_n=501)])
    assert np.array_equal(np.unpackbits(np.frombuffer(check.correct, np.uint8), count=501), right)
    assert len(pack(np.ones(10_000))) < 1700


def test_one_bad_check_raises_nothing_and_two_do():
    level = [0.45] * 20
    assert names(curve([*level, 0.2])) == []
    assert names(curve([*level, 0.2, 0.45, 0.45])) == []
    assert names(curve([*level, 0.2, 0.2])) == ["robust-overfitting"]


def test_no_robust_overfitting_unless_training_rises():
    fall = [0.45] * 10 + [0.30] * 10
    assert names(curve(fall)) == ["robust-overfitting"]
    assert names([{**r, "train_robust": 0.5 - 0.002 * r["epoch"]} for r in curve(fall)]) == []
    assert names([{**r, "train_robust": None} for r in curve(fall)]) == []


def test_a_fall_below_three_hundredths_of_the_best_is_no_alarm():
    fall = [0.50] * 20 + [0.4875] * 20
    assert names(curve(fall, watched_n=10**7)) == []
    assert names(curve([0.50] * 20 + [0.4845] * 20, watched_n=10**7)) == ["robust-overfitting"]


def test_an_alarm_ends_and_starts_again():
    found = history(curve([0.45] * 10 + [0.30] * 6 + [0.45] * 10 + [0.30] * 6), 10)
    assert [a.name for a, _ in found] == ["robust-overfitting"] * 2
    assert [a.epoch for a, _ in found] == [12, 28]
    assert found[0][1] == 17  # one check at the old level: it does not stay low
    assert found[1][1] is None


def test_standing_alarms_need_half_the_fall_to_go_on():
    fall = [0.45] * 10 + [0.30] * 4  # 15 points; 5.5 are enough to go on and not enough to start
    assert [ended for _, ended in history(curve(fall + [0.395] * 10), 10)] == [None]
    assert names(curve([0.45] * 10 + [0.395] * 3)) == []


def literal_first(values: list[float], n: int) -> int | None:
    """The rule of the docstring, word by word: the first check at which it raises robust overfitting."""
    for m in range(1, len(values) + 1):
        r = values[:m]
        s = math.sqrt(max(r) * (1 - max(r)) / n)
        second = [abs(r[i - 1] - 2 * r[i] + r[i + 1]) for i in range(1, m - 1)]
        if len(second) >= 5:
            s = max(s, 1.4826 * statistics.median(second) / math.sqrt(6))
        z = 2 + math.sqrt(2 * math.log(m))
        for w in (2, 5):
            recent = sum(r[m - w :]) / w
            earlier = [sum(r[i : i + w]) / w for i in range(m) if i + w <= m - w]
            least = max(0.03 * max(earlier, default=0), z * s * math.sqrt(2 / w))
            if earlier and max(earlier) - recent > least and max(r[-2:]) < max(earlier) - least / 2:
                return m
    return None


def test_equals_the_literal_rule():
    draw, seen = random.Random(0), []
    for _ in range(60):
        n, slope, noise = draw.choice([200, 2000]), draw.choice([0, 0.003, 0.02]), draw.choice([0.003, 0.03])
        level = [0.45 - slope * max(0, i - 15) for i in range(30)]
        values = [min(1.0, max(0.0, p + draw.gauss(0, noise))) for p in level]
        found = history(curve(values, watched_n=n), 10)
        assert (found[0][0].epoch if found else None) == literal_first(values, n)
        seen.append(bool(found))
    assert 10 < sum(seen) < 50


@pytest.mark.parametrize(("checks", "runs"), [(15, 300), (50, 150)])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_noise_alone_raises_nothing(checks, runs, p):
    draw, alarms = random.Random(checks), 0
    for _ in range(runs):
        noisy = [min(1.0, max(0.0, draw.gauss(p, math.sqrt(p * (1 - p) / 1000)))) for _ in range(checks)]
        alarms += bool(names(curve(noisy)))
    assert alarms / runs < 0.02


def collapse(level: float = 0.42) -> list[dict]:
    """FGSM training that collapses in epoch 12."""
    rising = [level * min(1, i / 6) for i in range(1, 12)]
    return [*probed(*((v, v + 0.04) for v in rising)), row(12, 0.003, 0.71, train_robust=0.8)]


def test_catastrophic_overfitting_is_caught_in_the_check_where_it_happens():
    rows = collapse()
    assert names(rows[:-1]) == []
    (alarm,) = raised(rows, 10)
    assert (alarm.name, alarm.epoch, alarm.since) == ("catastrophic-overfitting", 12, 12)
    assert (alarm.level, alarm.last_good) == ("alarm", 11)
    said = "catastrophic overfitting in epoch 12: FGSM 71.0 %, PGD-10 0.3 % (epoch 11: 46.0 %, 42.0 %)"
    assert str(alarm).startswith(said)


def test_catastrophic_overfitting_is_not_told_twice():
    rows = collapse()
    rows += [row(e, 0.002, 0.75, train_robust=0.85) for e in range(13, 20)]
    assert names(rows) == ["catastrophic-overfitting"]  # nor as robust overfitting
    assert [a.name for a, ended in history(rows, 10) if ended is None] == ["catastrophic-overfitting"]
    assert raised(rows, 10) == []


def test_a_run_may_bounce_back_and_collapse_again():
    rows = collapse() + probed((0.15, 0.6), (0.25, 0.45), (0.40, 0.44), (0.01, 0.6), first=13)
    found = [(a.epoch, ended) for a, ended in history(rows, 10) if a.name == "catastrophic-overfitting"]
    assert found == [(12, 14), (16, None)]


HIGH, LOW = [(0.45, 0.5)] * 4, [(0.24, 0.28)] * 4


@pytest.mark.parametrize(
    ("checks", "epochs"),
    [
        pytest.param([*HIGH, (0.24, 0.6)], [5], id="twenty points at once are enough"),
        pytest.param([*HIGH, (0.26, 0.6)], [], id="less is not"),
        pytest.param([*HIGH, (0.24, 0.30)], [], id="FGSM fell as well: another trouble"),
        pytest.param([*LOW, (0.058, 0.3)], [5], id="three quarters of a low level are enough"),
        pytest.param([*LOW, (0.062, 0.3)], [], id="less is not enough either"),
        pytest.param(
            [(0.4, 0.6)] * 2 + [(v, 0.6) for v in (0.22, 0.12, 0.06, 0.04)], [6], id="in steps to zero"
        ),
        pytest.param([(0.0, 0.5), (0.01, 0.6)], [2], id="what was never robust, in its second check"),
        pytest.param([(0.0, 0.2), (0.02, 0.25)], [], id="a first epoch or two look so too"),
        pytest.param([(0.10, 0.1), (0.02, 0.2)], [], id="chance was never a level"),
    ],
)
def test_when_a_fall_is_a_catastrophe(checks, epochs):
    assert catastrophes(probed(*checks)) == epochs


def test_few_images_cannot_show_a_catastrophe():
    fall = probed(*HIGH, (0.24, 0.6))
    assert catastrophes([{**r, "watched_n": 50} for r in fall]) == []  # within three standard errors
    assert catastrophes([{**r, "watched_n": 20, "fgsm_n": 20} for r in fall]) == []


def test_low_levels_collapse_too():
    rows = collapse(level=0.16)  # as on Tiny-ImageNet: no 20 points to lose
    assert catastrophes(rows, 200) == [len(rows)]


def test_what_was_never_robust_has_no_good_epoch():
    assert history(probed((0.0, 0.5), (0.01, 0.6)), 10)[0][0].last_good is None


def test_early_epochs_raise_no_catastrophe():
    # three classes: a constant predictor is right for a third under any attack, until it learns something
    assert catastrophes(probed((0.33, 0.33), (0.04, 0.26), (0.12, 0.3)), 3) == []


def test_a_large_gap_alone_is_no_catastrophe():
    digits = [row(i, v, f, train_robust=t, watched_n=300) for i, (t, v, f) in enumerate(table(DIGITS), 1)]
    assert catastrophes(digits) == []


def test_robust_overfitting_is_no_catastrophe():
    rows = [{**row(r["epoch"], r["val_robust"], r["val_robust"] + 0.034), **r} for r in mini()]
    assert catastrophes(rows) == []
    without = [{**r, "watched_fgsm": None, "fgsm_gap": None} for r in collapse()]
    assert catastrophes(without) == []


def test_standard_training_is_not_judged():
    rows = [{**r, "train_robust": None} for r in collapse()]
    assert catastrophes(rows) == []
    assert names([row(1, 0.3, gradient_cosine=0.1, train_robust=None)]) == []


def test_predictor_collapse_is_said_when_it_stays_and_when_it_comes_later():
    few = {"watched_predicted_classes": 2, "watched_largest_share": 0.85, "classwise_robust": [0.1] * 10}
    many = {**few, "watched_predicted_classes": 9, "watched_largest_share": 0.3}
    each = [few, few, few, few, many, many, few]
    rows = [row(epoch, 0.1, **one) for epoch, one in enumerate(each, 1)]
    found = history(rows, 10)
    assert [(a.name, a.epoch, a.since, a.level, a.last_good, ended) for a, ended in found] == [
        ("predictor-collapsed", 3, 1, "note", None, 5),
        ("predictor-collapsed", 7, 7, "alarm", 6, None),
    ]
    assert history(rows[:2], 10) == []
    early = [row(1, 0.1, **few), row(2, 0.1, **few), row(3, 0.2, **many), row(4, 0.1, **few)]
    assert [(a.epoch, a.level) for a, _ in history(early, 10)] == [(4, "alarm")]
    said = "85.0 % of the images go to one class, 2 of 10 classes are predicted at all; CAS is meaningless"
    assert found[1][0].evidence == said


def test_low_cosine_is_a_note_with_some_slack():
    cosines = [0.9, 0.31, 0.29, 0.35, 0.38, 0.31, None]
    rows = [row(i, 0.4, gradient_cosine=c) for i, c in enumerate(cosines, 1)]
    (found,) = history(rows, 10)
    assert (found[0].name, found[0].epoch, found[0].level, found[1]) == ("gradient-cosine-low", 3, "note", 5)
    assert "cosine 0.29" in found[0].evidence


def test_cas_of_a_constant_predictor_is_no_peak():
    known = {"classwise_robust": [0.1] * 10}
    cas = (80.0, 10.0, 12.0, 9.5, 9.4, 8.9, 8.8, 80.0, 11.9)
    predicted = (1, 10, 10, 10, 10, 10, 10, 2, 10)
    rows = [
        row(i, 0.3, val_cas=c, watched_predicted_classes=k, **known)
        for i, (c, k) in enumerate(zip(cas, predicted, strict=True), 1)
    ]
    found = [(a.since, a.epoch, ended) for a, ended in history(rows, 10) if a.name == "cas-falling"]
    assert found == [(3, 7, 8)]
    since = [trends(rows[: i + 1])["cas_since_peak"] for i in range(len(rows))]
    assert since == pytest.approx([None, 0, 0, -2.5, -2.6, -3.1, -3.2, None, -0.1], abs=1e-9)


def test_a_network_that_never_learned_has_no_peak_of_cas():
    cas = (60.0, 12.0, 12.0, 9.5, 9.4)
    for robust, found in ((0.11, []), (0.3, ["cas-falling"])):
        rows = [row(i, robust, val_cas=c) for i, c in enumerate(cas, 1)]
        assert names(rows) == found


def test_what_follows_from_catastrophic_overfitting_is_not_said_beside_it():
    before = [row(i, 0.4, 0.45, val_cas=20.0, gradient_cosine=0.9) for i in range(1, 5)]
    after = [row(i, 0.0, 0.6, val_cas=3.0, gradient_cosine=0.1) for i in range(5, 9)]
    assert names([*before, *after]) == ["catastrophic-overfitting"]


def test_trends_of_a_row():
    rows = mini()
    assert trends(rows)["robust_gap"] == pytest.approx(0.972 - 0.077)
    assert trends(rows)["cas_since_peak"] == pytest.approx(2.353 - 10.052)
    assert trends([*rows, {"epoch": 46, "train_robust": 0.9}]) == {"robust_gap": None, "cas_since_peak": None}
    test = [{"epoch": 1, "train_robust": 0.5, "test_robust": 0.4, "cas": 3.0}]
    assert trends(test) == {"robust_gap": pytest.approx(0.1), "cas_since_peak": 0}
    assert trends([{**test[0], "train_robust": None}])["robust_gap"] is None


def test_what_is_raised_epoch_by_epoch_is_the_history():
    unchecked = {"val_robust": None, "val_cas": None, "predicted_classes": None}
    rows = [r for e in mini() for r in (e, {**e, **unchecked, "epoch": e["epoch"] + 1})]
    told = [a for i in range(len(rows)) for a in raised(rows[: i + 1], 10, 1000)]
    assert told == [a for a, _ in history(rows, 10, 1000)]
    assert len(told) == 2


def test_validation_is_watched_where_there_is_any():
    rows = [{**r, "test_robust": 0.4} for r in curve([0.45] * 10 + [0.3] * 5)]
    assert names(rows) == ["robust-overfitting"]
    swapped = [{**r, "test_robust": r["val_robust"], "val_robust": 0.4} for r in rows]
    assert names(swapped) == []
    only = [{**r, "test_robust": r["val_robust"], "val_robust": None} for r in rows]
    assert "test robust accuracy" in history(only, 10)[0][0].evidence


def test_rows_must_say_how_many_images():
    rows = curve([0.4] * 3, watched_n=None)
    with pytest.raises(UserError, match="watched_n"):
        history(rows, 10)
    assert history(rows, 10, 1000) == []
    assert history([], 10) == []
    assert raised([{"epoch": 1}], 10) == []


def test_alarms_and_anchors_need_no_torch():
    code = "import sys, crossclass.training.alarms, crossclass.paper.published_curves as c; "
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
