"""The truth table: its words come out of numbers, and a wrong formula changes them."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from crossclass.paper.theory import closed, theorem1, theorem2, theorem3, truth_table
from crossclass.paper.theory.judge import Grid, Slack, judge_mean, judge_means, judge_slack, switch
from crossclass.paper.theory.montecarlo import Estimate
from crossclass.paper.theory.setting import PAPER, Layout, admissible
from crossclass.paper.verdict import Verdict

SMALL = 800


@pytest.fixture(scope="module")
def table() -> dict[str, list[Verdict]]:
    return truth_table.truth_table(n=SMALL)


def the(rows: list[Verdict], words: str) -> Verdict:
    """The one row whose claim contains these words."""
    found = [row for row in rows if words in row.claim]
    assert len(found) == 1, (words, [row.claim for row in found])
    return found[0]


HOLDS = [
    ("lemma1", "E max(X, Y) = 1/sqrt(pi) for independent standard normal"),
    ("lemma1", "in samples"),
    ("thm1", "there is an eps0 in (0, mu/2) (Theorem 1)"),
    ("thm1", "w1* > 0 for every eps < mu/2"),
    ("thm1", "projected descent"),
    ("thm1", "it falls with eps"),
    ("thm1", "copies"),
    ("thm1", "complement layout (E.5), for sigma < mu/m_(K-1)"),
    ("thm1", "pairwise layout"),
    ("thm2", "one fixed other class, rises with w2"),
    ("thm2", "beyond w2 = w1"),
    ("thm2", "copies"),
    ("thm2", "complement layout"),
    ("thm2", "pairwise layout"),
    ("thm2", "beyond eps0: P_all at w2 = 0"),
    ("thm2", "for eps >= eps0 P_all is largest at w2 = 0"),
    ("thm2", "exactly one maximum"),
    ("thm2", "0 < r_AT < r_opt"),
    ("thm2", "for K classes too"),
    ("thm3", "(Theorem 3), reading A"),
    ("thm3", "in all readings"),
    ("thm3", "projected descent"),
    ("thm3", "w2 only"),
    ("thm3", "copies"),
    ("thm3", "eps0 < eps1 for K classes in the complement layout"),
    ("thm3", "complement layout: Theorem 3 holds exactly where"),
    ("thm3", "pairwise layout, K >= 4: Theorem 3 holds exactly where"),
    ("cor1", "as printed), reading A"),
    ("cor1", "the inequality alone"),
    ("cor1", "projected descent"),
    ("cor1", "w2_LS < w1_LS exactly where"),
    ("cor1", "wherever it leaves"),
    ("cor1", "lowers P_all"),
    ("cor1", "copies"),
    ("cor1", "complement layout"),
    ("cor1", "exactly where sigma m_(K-1)"),
]
FAILS = [
    ("thm1", "complement layout (E.5) for sigma < sqrt(pi) mu", (0.3, 0.6)),
    ("thm2", "rises with w2 on all", (0.0, 0.0)),
    ("thm2", "some w2 > 0 has a higher P_all", (0.45, 0.55)),
    ("thm3", "(Theorem 3), reading B", (0.77, 0.79)),
    ("thm3", "(Theorem 3), reading C", (0.77, 0.79)),
    ("thm3", "(Theorem 3), reading D", (0.72, 0.74)),
    ("thm3", "Theorem 3 in full", (0.5, 0.6)),
    ("thm3", "for K >= 4 classes in the pairwise layout", (0.3, 0.4)),
    ("cor1", "as printed), reading B", (0.6, 0.75)),
    ("cor1", "as printed), reading D", (0.55, 0.7)),
    ("cor1", "[0, w1]: w2_LS <= w1_LS", (0.7, 0.8)),
    ("cor1", "raises P_pair, robust", (0.8, 0.9)),
    ("cor1", "raises P_all", (0.4, 0.6)),
    ("cor1", "a little label smoothing", (0.9, 0.97)),
    ("cor1", "w2_LS > w2* below eps1 for K classes in the pairwise", (0.1, 0.2)),
]


def test_the_table_has_each_theorem(table: dict[str, list[Verdict]]):
    assert list(table) == ["lemma1", "thm1", "thm2", "thm3", "cor1"]
    rows = [row for rows in table.values() for row in rows]
    assert len({row.claim for row in rows}) == len(rows)
    assert all(row.where and row.numbers for row in rows)


@pytest.mark.parametrize(("theorem", "words"), HOLDS)
def test_what_holds(table: dict[str, list[Verdict]], theorem: str, words: str):
    row = the(table[theorem], words)
    assert row.verdict == "holds", str(row)
    assert row.numbers.get("share", 1.0) == 1.0


@pytest.mark.parametrize(("theorem", "words", "share"), FAILS)
def test_what_does_not_hold_where_and_how_often(
    table: dict[str, list[Verdict]], theorem: str, words: str, share: tuple[float, float]
):
    row = the(table[theorem], words)
    assert row.verdict == "does not hold", str(row)
    assert share[0] <= row.numbers["share"] <= share[1], str(row)
    assert f"{row.numbers['share']:.1%} of" in row.reason


def test_counter_examples_are_shown_with_their_numbers(table: dict[str, list[Verdict]]):
    for theorem, words, numbers in (
        ("thm1", "(E.5) for sigma < sqrt(pi) mu", "eps0 = -0.1683"),
        ("thm2", "rises with w2 on all", "0.7816 at w2 = 0 w1; 0.7939 at w2 = 0.407 w1; 0.7786 at w2 = 1 w1"),
        ("thm2", "some w2 > 0 has a higher", "0.6716 at w2 = 0 w1"),
        ("thm3", "(Theorem 3), reading B", "eps1 = 0.5820 > mu/2"),
        ("thm3", "for K >= 4 classes in the pairwise", "eps0 = 0.3731, eps1 = 0.3668"),
        ("thm3", "Theorem 3 in full", "eps0 = 0.1287, eps1 = 0.5848"),
    ):
        assert numbers in the(table[theorem], words).reason


def test_settings_that_cannot_be_are_not_counted(table: dict[str, list[Verdict]]):
    # 100 sigma, 34 beta, 3 mu in each of five layouts; beta >= 2/(K-1) is below 1/3 for K = 10 and 100 alone
    late = sum(sum((b + 0.5) / 102 >= 2 / (k - 1) for b in range(34)) for k in (4, 5, 6, 10, 100))
    row = the(table["thm3"], "complement layout: Theorem 3 holds exactly where")
    assert row.numbers["settings"] == 300 * (5 * 34 + late)


def test_the_table_is_the_same_each_time(table: dict[str, list[Verdict]]):
    again = theorem1.theorem1(np.random.default_rng([truth_table.SEED, 1]), SMALL)
    assert again == table["thm1"]
    other = theorem1.theorem1(np.random.default_rng([1, 1]), SMALL)
    assert the(other, "closed form").reason != the(again, "closed form").reason


@pytest.mark.parametrize(
    ("name", "change", "judged", "words"),
    [
        ("eps0", lambda v: 0.9 * v, theorem1.theorem1, "w1* > 0 for"),
        ("eps0", lambda v: 1.3 * v, theorem1.theorem1, "descent"),
        ("loss", lambda v: 0.3 + v, theorem1.theorem1, "closed form"),
        ("loss", lambda v: 0.5 + v, theorem3.theorem3, "closed form"),
        ("eps1", lambda v: 1.3 * v, theorem3.theorem3, "reading A:"),
        ("eps1", lambda v: 0.9 * v, theorem3.theorem3, "all readings"),
        ("eps1", lambda v: 0.7 * v, theorem3.theorem3, "descent"),
        ("signal", lambda v: -v, theorem2.theorem2, "one fixed other"),
        ("ratio_best", lambda v: 0.9 * v, theorem2.theorem2, "r_AT"),
    ],
)
def test_a_wrong_formula_changes_the_word(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable, judged: Callable, words: str
):
    right = getattr(closed, name)
    monkeypatch.setattr(closed, name, lambda *a, **k: change(right(*a, **k)))
    assert the(judged(np.random.default_rng(0), 500), words).verdict == "does not hold"


# The arithmetic of words


def test_words_about_grids():
    settings = {"mu": np.array([1.0, 2.0, 3.0])}
    held = judge_slack("c", "w", [Slack(np.array([0.1, 0.2, np.nan]), settings)])
    assert (held.verdict, held.reason) == ("holds", "at each of 2 settings")
    broken = judge_slack("c", "w", [Slack(1.0, {}), Slack(np.array([0.1, 0.2, -0.3]), settings, "here")])
    assert broken.verdict == "does not hold"
    assert broken.numbers == {"share": 0.75, "settings": 4, "least": -0.3, "mu": 3.0, "part": "here"}
    assert "75.0% of 4 settings; farthest from it at mu = 3 (here)" in broken.reason
    assert judge_slack("c", "w", [Slack(np.array([0.0]), {})]).verdict == "does not hold"
    assert judge_slack("c", "w", [Slack(np.array([-1.0]), {})], "such as 7").reason.endswith("such as 7")


def test_words_about_means():
    near, far, vague = Estimate(1.01, 0.001, 9), Estimate(1.5, 0.001, 9), Estimate(1.01, 0.1, 9)
    assert judge_means("c", "w", [(near, 1.0)], 0.02).verdict == "holds"
    assert judge_means("c", "w", [(near, 1.0), (vague, 1.0)], 0.02).verdict == "undecided"
    assert judge_means("c", "w", [(near, 1.0), (vague, 1.0), (far, 1.0)], 0.02).verdict == "does not hold"
    assert judge_means("c", "w", [(near, 1.0), (far, 1.0)], 0.02).numbers["largest"] == pytest.approx(0.5)
    words = [judge_mean("c", "w", Estimate(m, 0.1, 9)).verdict for m in (0.31, 0.29, -0.29, -0.31)]
    assert words == ["holds", "undecided", "undecided", "does not hold"]


def test_the_slack_of_a_switch():
    slack = switch(np.array([0.2, 0.0, 0.3, 0.0]), np.array([True, True, False, False]))
    assert slack.tolist() == [0.2, 0.0, -0.3, 1.0]


def test_grids_are_admissible_and_reach_the_edges():
    for layout in (PAPER, Layout(10), Layout(5, "pairwise"), Layout(exclusive=2, shared=3)):
        g = Grid.over(layout)
        assert np.all(admissible(g.mu, g.sigma, g.eps, g.beta, layout))
        for values, end in ((g.sigma, layout.sigma_limit * g.mu), (g.eps, g.mu / 2), (g.beta, 1 / 3)):
            assert (values / end).min() < 0.1
            assert (values / end).max() > 0.9
    wide = Grid.over(sigma_limit=2.0)
    assert not np.all(admissible(wide.mu, wide.sigma, wide.eps, wide.beta))


def test_the_theory_needs_no_torch():
    code = "import sys, crossclass.paper.theory.truth_table; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
