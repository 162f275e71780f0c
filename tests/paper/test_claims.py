"""Claims as predicates: what a few seeds decide, and that every sentence can hold and can fail."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossclass.analysis.records import (
    CheckpointRef,
    Comparison,
    DataRef,
    EpochRow,
    Intervals,
    Measurement,
    ResultFile,
)
from crossclass.core.errors import UserError
from crossclass.paper.claims import falls, loss, lost_over_images, over_images, stage_difference
from crossclass.paper.entries import ENTRIES, chosen, over_study
from crossclass.paper.entry import Claim, Effect, Entry
from crossclass.paper.evidence import Evidence
from crossclass.paper.inference import largest_of
from crossclass.paper.run_numbers import collect
from crossclass.paper.runs import NAMED
from crossclass.paper.verdict import Verdict


class TestClaim:
    def judged(self, *effects, margin=0.0, aside=()):
        return Claim("it is so", lambda m: effects, margin).judge({"not_counted": aside})

    def effect(self, *values, **more):
        return Effect("g", dict(enumerate(values)), **more)

    def test_three_words(self):
        assert self.judged(self.effect(1.0, 1.1, 0.9)).verdict == "holds"
        assert self.judged(self.effect(-1.0, -1.1, -0.9)).verdict == "does not hold"
        assert self.judged(self.effect(-1.0, 1.1, 0.9)).verdict == "undecided"
        assert self.judged(self.effect(1.0, 1.1, 0.9), margin=2.0).verdict == "does not hold"

    def test_every_effect_must_hold_and_one_below_is_enough_against(self):
        good, bad, open_ = self.effect(1.0, 1.1, 0.9), self.effect(-1.0, -1.01, -0.99), self.effect(-9.0, 9.0)
        assert self.judged(good, good).verdict == "holds"
        assert self.judged(good, open_).verdict == "undecided"
        assert self.judged(good, open_, bad).verdict == "does not hold"
        # each of them alone has p = 0.03 against it, but there were three chances
        weak = self.effect(-1.0, -1.5, -0.9)
        assert self.judged(weak).verdict == "does not hold"
        assert self.judged(weak, good, good).verdict == "undecided"

    def test_one_seed_or_equal_ones_say_nothing_about_others(self):
        for effect in (self.effect(1.0), self.effect(1.0, images=1e-6), self.effect(0.5, 0.5, 0.5)):
            found = self.judged(effect)
            assert (found.verdict, found.p) == ("undecided", 1.0)
        assert "spread is not known" in found.reason
        assert found.detectable == {"g": None}

    def test_the_seed_that_settings_were_chosen_on_takes_no_part(self):
        assert self.judged(self.effect(9.0, 1.0, 1.1, 0.9), aside=[0]).verdict == "holds"
        found = self.judged(self.effect(-9.0, 1.0, 1.1, 0.9), aside=[0])
        assert (found.verdict, found.seeds) == ("holds", [1, 2, 3])
        assert "not counted, seed 0: -9" in found.reason
        alone = self.judged(self.effect(9.0), aside=[0])
        assert (alone.verdict, alone.seeds) == ("undecided", [])
        assert "seed 0 is not counted" in alone.reason
        assert self.judged(self.effect(math.nan, 1.0, 1.1, 0.9), aside=[0]).verdict == "holds"

    def test_images_are_part_of_the_interval(self):
        assert self.judged(self.effect(1.0, 1.1, 0.9, images=0.01)).verdict == "holds"
        assert self.judged(self.effect(1.0, 1.1, 0.9, images=0.3)).verdict == "undecided"

    def test_where_every_best_is_the_last_nothing_is_said_of_what_follows(self):
        values = -1.0, -1.1, -0.9
        assert self.judged(self.effect(*values, ended=frozenset({0, 1}))).verdict == "does not hold"
        found = self.judged(self.effect(*values, ended=frozenset({0, 1, 2})))
        assert (found.verdict, found.p) == ("undecided", 1.0)
        assert "the best checkpoint is the last for every seed that counts" in found.reason
        aside = self.judged(self.effect(5.0, *values[1:], ended=frozenset({1, 2})), aside=[0])
        assert aside.verdict == "undecided"

    def test_yes_or_no_is_decided_by_most_seeds(self):
        assert self.judged(self.effect(*[1.0] * 5, yes_no=True)).verdict == "undecided"  # 2 / 2^5 = 0.06
        assert self.judged(self.effect(*[1.0] * 6, yes_no=True)).verdict == "holds"
        assert self.judged(self.effect(*[0.0] * 6, yes_no=True)).verdict == "does not hold"
        assert self.judged(self.effect(*[1.0] * 5, 0.0, yes_no=True)).verdict == "undecided"

    def test_what_was_not_measured_is_undecided_with_its_name(self):
        missing = Claim("it is so", lambda m: [Effect("g", m["runs"]["AT"])]).judge({"runs": {}})
        assert missing.verdict == "undecided"
        assert "AT is missing" in missing.reason
        for effect in (self.effect(1.0, math.nan), self.effect(1.0, None), self.effect()):
            assert self.judged(effect).verdict == "undecided"
            assert self.judged(effect).p == 1.0
        assert self.judged().verdict == "undecided"

    def test_the_numbers_that_decide_are_said(self):
        found = self.judged(Effect("CAS at last", {4: 2.0, 7: 3.0}, beside="so it is"))
        assert "CAS at last 2.5" in found.reason
        assert "seeds 4, 7: 2, 3" in found.reason
        assert "so it is" in found.reason
        assert found.numbers == {"CAS at last": 2.5}
        assert found.seeds == [4, 7]
        assert found.detectable["CAS at last"] > 5


def test_the_claims_of_an_entry_are_adjusted_for_each_other():
    def claim(values):
        return Claim("it is so", lambda m: [Effect("g", dict(enumerate(values)))])

    weak = claim((1.0, 1.5, 0.9))  # p = 0.03
    one = Entry("x", "", "", claims=(weak,)).verdicts({})
    assert [(v.verdict, v.p == v.p_holm) for v in one] == [("holds", True)]
    two = Entry("x", "", "", claims=(weak, claim((-1.0, 1.0)))).verdicts({})
    assert [v.verdict for v in two] == ["undecided", "undecided"]
    assert two[0].p_holm == pytest.approx(2 * two[0].p)
    assert two[0].detectable["g"] > one[0].detectable["g"]
    # what is stored with its word has no chance in it and is left as it is
    fixed = Entry("x", "", "", claims=(weak,), judge=lambda m: [Verdict("so", "holds")]).verdicts({})
    assert [(v.verdict, v.p_holm) for v in fixed] == [("holds", None), ("holds", one[0].p)]


def test_the_claims_of_a_study_are_adjusted_for_each_other():
    verdicts = [[{"p": 0.01}, {"p": 0.04}], [{}, {"p": None}], [{"p": 0.03}]]
    found = over_study([{"verdicts": v} for v in verdicts])
    assert found == [[pytest.approx(0.03), pytest.approx(0.04)], [None, None], [pytest.approx(0.04)]]


NAMES = ["airplane", "automobile", "bird", "truck"]
AT8 = {10: (36.9, 16.7), 30: (41.2, 17.8), 50: (41.5, 17.9), 70: (42.6, 18.2), 90: (42.8, 19.7)}
AT8 |= {108: (47.8, 25.6), 110: (47.5, 23.6), 130: (46.4, 18.9), 150: (44.7, 15.6)}
AT8 |= {170: (43.3, 13.8), 190: (42.8, 9.1), 200: (42.5, 9.0)}
PRINTED = {  # epoch: (RA in percent, CAS) as printed, or what Fig. 1 and 4 show where no level is printed
    "at-linf-8": AT8,
    "at-linf-2": {10: (60.0, 15.0), 108: (68.0, 20.0), 200: (67.2, 15.9)},
    "at-linf-4": {10: (52.0, 15.0), 108: (60.0, 22.0), 200: (58.0, 13.1)},
    "at-linf-6": {10: (45.0, 15.0), 108: (53.0, 24.0), 200: (49.5, 10.2)},
    "at-linf-12": {10: (29.8, 15.6), 108: (38.7, 18.9), 200: (34.1, 8.7)},
    "at-linf-16": {10: (23.8, 14.4), 108: (31.3, 17.5), 200: (28.1, 8.4)},
    "kd-linf-8": {10: (37.0, 17.0), 108: (48.1, 25.7), 200: (46.2, 24.1)},
    "ls-linf-8": {10: (37.0, 17.0), 108: (48.0, 25.7), 200: (46.0, 23.0)},
    "te-linf-8": {10: (37.0, 17.0), 108: (48.0, 25.7), 200: (46.0, 23.0)},
    "at-l2-128": {10: (50.0, 15.0), 108: (69.8, 22.1), 200: (65.6, 10.7)},
    "at-linf-8-deit": {10: (30.0, 15.0), 108: (47.9, 25.4), 200: (42.6, 16.6)},
    "at-linf-8-cifar100": {10: (15.0, 400.0), 108: (24.7, 569.0), 200: (19.6, 352.0)},
    "at-linf-8-tinyimagenet": {10: (10.0, 900.0), 108: (18.0, 1548.0), 200: (14.4, 998.0)},
    "fat-linf-8": {10: (40.0, 13.8), 108: (41.8, 14.1), 200: (0.1, 2.1)},
    "standard": {50: (0.0, 7.3), 100: (0.0, 8.4), 108: (0.0, 8.6), 150: (0.0, 9.8), 200: (0.0, 10.2)},
}
PRINTED["shapes-demo"], PRINTED["digits-fat"] = PRINTED["at-linf-6"], PRINTED["fat-linf-8"]
ICAS = {"at-linf-8": (34.9, 25.6), "at-l2-128": (27.0, 14.9)}
CLEAN = {"at-linf-8": {"best": 26.0, "last": 20.5}}
CLEAN["standard"] = {"25 %": 7.3, "50 %": 8.4, "75 %": 9.8, "100 %": 10.2, "best": 8.5, "last": 10.2}


def made(name, seed, mirror=""):
    """Evidence with the printed numbers, a little apart by seed; what is mirrored goes the other way."""
    short = name.removeprefix("wei2025-")
    wobble = 1 + 0.002 * math.sin(5 * seed + len(name))
    flip = {"robust": -1.0 if "robust" in mirror else 1.0, "cas": -1.0 if "cas" in mirror else 1.0}
    shift = {"robust": 1.0, "cas": 3000.0}

    def value(kind, v):
        return v * wobble if flip[kind] > 0 else shift[kind] - v * wobble

    top = 0.9 if "cas" not in mirror else -0.9
    C = [[1.0, 0.2, 0.1, 0.3], [0.2, 1.0, 0.1, top], [0.1, 0.1, 1.0, 0.2], [0.3, top, 0.2, 1.0]]
    rows, printed = [], PRINTED[short]
    points = list(zip(*printed.values(), strict=True))
    for epoch in sorted({*printed, *range(10, 201, 10)}):  # between the printed epochs on a line
        robust, cas = (float(np.interp(epoch, list(printed), values)) for values in points)
        train = (epoch / 400 if "train" not in mirror else 1 - epoch / 400) * wobble
        moved = 1 + 0.02 * math.sin(epoch + 3 * seed)  # what is particular to a seed and a check
        robust, cas = robust * moved, cas * moved
        row = {"epoch": epoch, "train_robust": train, "test_clean": 0.8, "C": C}
        row |= {"test_robust": value("robust", robust / 100), "cas": value("cas", cas)}
        rows.append(row | {"negative_mass": 0.1 if "cas" not in mirror else 9000.0})
    best, last = (next(r for r in rows if r["epoch"] == e) for e in (108, 200))
    icas = ICAS.get(short, (30.0, 20.0))

    def measured(checkpoint, row, i):
        numbers = {"robust": row["test_robust"], "cas": row["cas"], "clean": 0.8}
        numbers |= {
            "icas": value("cas", icas[i]),
            "all_pairs_cas": (0.3 if "cas" not in mirror else 9.0) * wobble,
        }
        numbers |= {"negative_mass": row["negative_mass"]}
        at = CheckpointRef(name=checkpoint, epoch=row["epoch"], chosen_by="val")
        return Measurement(checkpoint=at, attack="PGD-20", data=DataRef(n=100), matrices={"C": C}, **numbers)

    ends = measured("best.val", best, 0), measured("last", last, 1)
    fallen = {f"d_{k}": ends[0][k] - ends[1][k] for k in ("clean", "robust", "cas", "icas")}
    comparison = Comparison(a="best.val", b="last", **fallen)
    side = flip["cas"] * wobble
    spread = {"difference": 0.02 * side, "interval": [0.01, 0.03], "a": 0.2, "b": 0.18}
    maps = {"half_mass_area": spread, "entropy": spread}
    parts = {"shared": {"difference": 0.02 * side, "interval": [0.01, 0.03], "best": 0.2, "last": 0.18}}
    extras = {"saliency": {"n": 9, **maps, "all_images": {"n": 100, **maps}}}
    extras |= {"parts": {"chosen": {"n": 9, **parts}, "all": {"n": 100, **parts}}}
    clean = CLEAN.get(short, {})
    extras["clean"] = {k: {"cas": value("cas", v), "C": C, "epoch": 1} for k, v in clean.items()}
    if "cas" in mirror and short == "standard":
        extras["clean"]["75 %"]["cas"] -= 9000.0
    env = {"seed": seed, "check": "PGD-10", "data": "toy", "class_names": NAMES}
    results = ResultFile(results=list(ends), comparisons=[comparison])
    return Evidence(Path(f"{name}-{seed}"), env, [EpochRow(**row) for row in rows], results, extras)


SEEDS = range(8)
"""As many as a yes in each of them needs to be decided among six claims."""


def with_cas(one, cas):
    """The evidence with another CAS in the full evaluation, as a function of the one it had."""
    results = [m.model_copy(update={"cas": cas(m["cas"])}) for m in one.results.results]
    return replace(one, results=one.results.model_copy(update={"results": results}))


def verdicts(entry, mirror=""):
    found = {name: [made(of, s, mirror) for s in SEEDS] for name, of in entry.runs.items()}
    numbers = entry.measure(found, "paper")
    return {(v.claim, v.where): v.verdict for v in entry.verdicts(numbers)}, numbers


JUDGED = [e for e in ENTRIES.values() if e.runs]


@pytest.mark.parametrize("entry", JUDGED, ids=lambda e: e.id)
def test_the_claims_hold_on_the_paper_s_own_numbers_and_each_can_fail(entry):
    words, _ = verdicts(entry)
    assert words == dict.fromkeys(words, "holds")
    failing = [verdicts(entry, mirror)[0] for mirror in ("cas", "robust", "train")]
    for claim in words:
        assert any(found[claim] == "does not hold" for found in failing), claim


@pytest.mark.parametrize("entry", JUDGED, ids=lambda e: e.id)
def test_numbers_are_plain(entry):
    numbers = verdicts(entry)[1]
    assert json.loads(json.dumps(numbers)) == numbers


def claim_of(id_, words):
    (found,) = (c for c in ENTRIES[id_].claims if words in c.text)
    return found


def test_a_network_that_shares_nothing_is_judged_too():
    # a constant network has CAS 0: no share of nothing is taken
    ones = [with_cas(made("wei2025-at-linf-8", s), lambda cas: 0.0) for s in range(2)]
    (effect,) = claim_of("fig2", "negative entries").effects(ENTRIES["fig2"].measure({"AT": ones}, "paper"))
    assert effect.values == {0: -0.1, 1: -0.1}


def test_where_best_is_last_nothing_is_lost():
    one = made("wei2025-at-linf-8", 0)
    alone = replace(one, results=one.results.model_copy(update={"comparisons": []}))
    numbers = collect({"AT": [alone]}, "paper")
    assert numbers["runs"]["AT"]["best_minus_last"]["cas"] == {"value": [0.0], "low": [None], "high": [None]}


def test_a_fall_is_judged_by_the_checks_after_the_first_drop_alone():
    # the best was chosen for being high: without a trend it is above the last all the same
    ones = [made("wei2025-at-linf-8", s) for s in range(6)]
    rng = np.random.default_rng(0)
    for one in ones:
        flat = 0.4 + 0.01 * rng.standard_normal(len(one.rows))
        one.rows[:] = [
            row.model_copy(update={"test_robust": float(v) if row.epoch > 100 else 0.9})
            for row, v in zip(one.rows, flat, strict=True)
        ]
    numbers = collect({"AT": ones}, "paper")
    effect = loss(numbers, "AT", "robust")
    late = [r for r in ones[0].rows if r.epoch > 100]
    slope = np.polyfit([r.epoch for r in late], [r["test_robust"] for r in late], 1)[0]
    assert effect.values[0] == pytest.approx(-slope * (late[-1].epoch - late[0].epoch))
    assert min(numbers["runs"]["AT"]["best_minus_last"]["robust"]["value"]) > 0.03
    assert effect.test(0.0).above > 0.025
    assert max(map(abs, effect.values.values())) < 0.05
    assert "best minus last" in effect.beside


def test_the_choice_of_the_best_is_taken_off_what_no_check_has():
    ones = [made("wei2025-at-linf-8", s) for s in range(3)]
    numbers = collect({"AT": ones}, "paper")
    late = numbers["runs"]["AT"]["late"]
    relative = math.sqrt(
        np.mean([(n / m) ** 2 for n, m in zip(late["noise"]["cas"], late["mean"]["cas"], strict=True)])
    )
    best, last = ICAS["at-linf-8"]
    checks = len(ones[0].rows)
    expected = (best - last) - largest_of(checks) * relative * best
    assert loss(numbers, "AT", "icas").values[0] == pytest.approx(expected, rel=0.01)


def test_the_variance_over_images_is_that_of_the_stored_intervals():
    one = made("wei2025-at-linf-8", 0)
    (pair,) = one.results.comparisons
    pair = pair.model_copy(update={"intervals": Intervals(d_cas=(1.0, 1.0 + 2 * 1.959964))})
    with_ends = [
        m.model_copy(update={"intervals": Intervals(cas=(0.0, 4 * 1.959964))}) for m in one.results.results
    ]
    known = replace(one, results=ResultFile(results=with_ends, comparisons=[pair]))
    numbers = collect({"AT": [known, one]}, "paper")  # one seed without an interval
    assert lost_over_images(numbers, "AT", "cas") == pytest.approx(1.0)
    assert over_images(numbers, "AT", "last", "cas") == pytest.approx(4.0)
    assert stage_difference(numbers, "cas", "last", "AT", "AT").images == pytest.approx(8.0)
    assert over_images(numbers, "AT", "last", "robust") is None
    assert stage_difference(numbers, "robust", "last", "AT", "AT").images is None


def test_seeds_are_matched_by_their_number():
    at = [made("wei2025-at-linf-8", s) for s in (1, 2, 4)]
    kd = [made("wei2025-kd-linf-8", s) for s in (4, 2)]
    numbers = collect({"AT": at, "KD": kd}, "paper")
    found = stage_difference(numbers, "cas", "last", "KD", "AT").values
    assert found == {
        s: pytest.approx(kd[i].last["cas"] - at[j].last["cas"]) for s, i, j in ((2, 1, 1), (4, 0, 2))
    }


def test_the_numbers_of_a_small_size_name_the_seed_that_is_not_counted():
    ones = [made("wei2025-at-linf-8", s) for s in range(3)]
    small, large = (collect({"AT": ones}, size) for size in ("mini", "paper"))
    assert (small["not_counted"], large["not_counted"]) == ([0], [])
    assert [n["runs"]["AT"]["shown"] for n in (small, large)] == [1, 0]
    only = collect({"AT": ones[:1]}, "mini")
    assert only["runs"]["AT"]["shown"] == 0
    assert falls("AT", "cas", "it falls").judge(only).verdict == "undecided"


def test_stages_on_the_way_are_compared_under_the_checks_attack_alone():
    # the full evaluation is by a stronger attack: mixing it with the checks would find a fall that is none
    one = with_cas(made("wei2025-at-linf-8", 0), lambda cas: cas - 15.0)
    numbers = ENTRIES["fig2"].measure({"AT": [one, one]}, "paper")
    assert claim_of("fig2", "than early in training").effects(numbers)[0].values[0] > 0


def test_the_check_of_the_best_itself_is_left_out_where_it_is_compared_with_an_early_one():
    one = made("wei2025-at-linf-8", 0)
    one.rows[:] = [r.model_copy(update={"cas": 99.0}) if r.epoch == 108 else r for r in one.rows]
    near = [r["cas"] for r in one.rows if r.epoch in (100, 110)]
    numbers = collect({"AT": [one]}, "paper")
    assert numbers["runs"]["AT"]["beside_best"]["cas"] == [pytest.approx(sum(near) / 2)]


def test_validation_and_test_images_are_averaged_where_no_choice_is_between_them():
    one = made("wei2025-at-linf-8", 0)
    one.rows[:] = [
        EpochRow(**{**r.to_dict(), "val_cas": r["cas"] + 2.0, "val_robust": 0.0}) for r in one.rows
    ]
    numbers = collect({"AT": [one]}, "paper", (0.35,))["runs"]["AT"]
    (row,) = (r for r in one.rows if r.epoch == 70)
    assert numbers["on_the_way"]["35 %"]["cas"] == [pytest.approx(row["cas"] + 1.0)]
    assert numbers["checks"]["35 %"]["cas"] == [row["cas"]]
    plain = collect({"AT": [made("wei2025-at-linf-8", 0)]}, "paper")["runs"]["AT"]["late"]["fall"]
    assert numbers["late"]["fall"]["robust"] == [pytest.approx(plain["robust"][0] / 2)]


def test_chosen_samples_and_all_of_them_are_judged_apart():
    fig3c = ENTRIES["fig3c"]
    found = {name: [made(of, s) for s in SEEDS] for name, of in fig3c.runs.items()}
    for seed, one in enumerate(found["AT"]):
        spread = one.extras["saliency"]["half_mass_area"]
        narrower = {**spread, "difference": -0.03 - 0.001 * seed}
        one.extras["saliency"]["all_images"] = {"n": 100, "half_mass_area": narrower, "entropy": narrower}
    for seed, one in enumerate(found["Shapes"]):
        parts = one.extras["parts"]["all"]["shared"]
        one.extras["parts"]["all"] = {"n": 100, "shared": {**parts, "difference": -0.04 - 0.001 * seed}}
    numbers = fig3c.measure(found, "paper")
    selected, every = (
        [c.judge(numbers).verdict for c in fig3c.claims if words in c.where]
        for words in ("right at best", "all test")
    )
    assert selected == ["holds", "holds"]
    assert every == ["does not hold", "does not hold"]


def test_the_phases_of_a_run_are_judged_apart():
    # together on the way up, against each other on the way down
    ones = [made("wei2025-at-linf-8", s) for s in SEEDS]
    for one in ones:
        one.rows[:] = [
            row if row.epoch <= 108 else row.model_copy(update={"cas": 51.2 - row["cas"]}) for row in one.rows
        ]
    numbers = ENTRIES["fig10"].measure({"AT": ones}, "paper")
    rising, falling = ENTRIES["fig10"].claims
    assert "up to the best" in rising.text
    assert (rising.judge(numbers).verdict, falling.judge(numbers).verdict) == ("holds", "does not hold")


def test_two_numbers_that_fall_for_reasons_of_their_own_do_not_move_together():
    rng = np.random.default_rng(0)
    ones = [made("wei2025-at-linf-8", s) for s in SEEDS]
    for one in ones:
        a, b = rng.standard_normal((2, len(one.rows)))
        falling = [r.epoch / 20 for r in one.rows]
        one.rows[:] = [
            r.model_copy(update={"cas": 40 - f + 0.3 * x, "test_robust": 0.7 - 0.02 * f + 0.006 * y})
            for r, f, x, y in zip(one.rows, falling, a, b, strict=True)
        ]
    numbers = ENTRIES["fig10"].measure({"AT": ones}, "paper")
    assert [c.judge(numbers).verdict for c in ENTRIES["fig10"].claims] == ["undecided", "undecided"]


def test_the_rank_of_a_pair_is_that_of_every_seed():
    ones = [made("wei2025-at-linf-8", s) for s in range(3)]
    low = made("wei2025-at-linf-8", 3, "cas")
    numbers = ENTRIES["fig2"].measure({"AT": [*ones, low]}, "paper")
    assert numbers["ranks"] == [1, 1, 1, 6]
    (effect,) = claim_of("fig2", "automobile and truck").effects(numbers)
    assert (effect.values, effect.yes_no) == ({0: 1.0, 1: 1.0, 2: 1.0, 3: 0.0}, True)
    # a class whose attributions vanish has no number: neither has its pair, nor is one before another
    for row, column, expected in ((3, 1, None), (3, 0, 1)):
        part = made("wei2025-at-linf-8", 0)
        part.best.matrices["C"][row][column] = None
        assert ENTRIES["fig2"].measure({"AT": [part]}, "paper")["ranks"] == [expected]


def test_ids_of_the_paper_are_all_there():
    wanted = {
        *(f"fig{i}" for i in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)),
        "fig3ab",
        "fig3c",
        "table1",
        "table2",
        "soft",
    }
    assert wanted <= set(ENTRIES)
    assert next(iter(ENTRIES)) == "fig1"
    assert [e.id for e in chosen(["fig4", "fig2", "fig4"])] == ["fig2", "fig4"]
    assert len(chosen(["all"])) == len(ENTRIES)
    with pytest.raises(UserError, match="did you mean 'fig3ab'"):
        chosen(["fig3abc"])
    for entry in ENTRIES.values():
        assert set(entry.extras) <= set(entry.runs)
        assert set(entry.runs.values()) <= set(NAMED)


def test_settings_that_differ_from_table_2_are_named():
    entry = ENTRIES["table2"]
    numbers = entry.measure({}, "paper")
    found = {v.claim: v for v in entry.verdicts(numbers)}
    assert found["every named run has epochs 200"].verdict == "holds"
    decay = found["every named run has weight_decay 0.0005"]
    assert decay.verdict == "does not hold"
    assert "wei2025-at-linf-8-deit has 0.0001" in decay.reason
    numbers["runs"]["wei2025-at-linf-8"]["steps"] = 7
    wrong = [v for v in entry.verdicts(numbers) if v.claim.startswith("training attacks")]
    assert wrong[0].verdict == "does not hold"
    assert "wei2025-at-linf-8" in wrong[0].reason


def test_the_entries_need_no_network():
    code = "import sys, crossclass.paper.entries; assert not {'torch', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


RESULTS = Path(__file__).parents[2] / "results"


def test_verdicts_are_written_on_no_other_word(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["verdicts.py", "chekc"])
    main = runpy.run_path(str(RESULTS / "verdicts.py"))["main"]
    monkeypatch.setattr(Path, "write_text", lambda *arguments: pytest.fail("something was written"))
    with pytest.raises(SystemExit, match="not chekc; nothing is written"):
        main()


def test_runs_of_one_seed_do_not_replace_each_other(tmp_path, monkeypatch):
    for name in ("at-0123456789ab", "kd-0123456789ac"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("seed: 3\nlr_milestones: []\n")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["spine.py", str(out), *map(str, sorted(tmp_path.glob("*-*")))])
    with pytest.raises(SystemExit, match=r"the seeds are \[3, 3\]"):
        runpy.run_path(str(RESULTS / "spine.py"))
    assert not out.exists()
