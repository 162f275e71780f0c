"""Published curves: what they hold, and whether runs that do and do not follow them are told apart."""

import math
import random
from dataclasses import replace

import pytest

from crossclass.core.errors import UserError
from crossclass.paper.published_curves import ANCHORS, Conditions, anchor, conditions, overlay, table, verify
from crossclass.paper.published_curves.conditions import differing
from crossclass.paper.published_curves.curves import FOLDER
from crossclass.paper.published_curves.verify import summary
from crossclass.training.recipes import AT
from crossclass.training.run import Run

FULL = Conditions(epochs=200, lr_milestones=(100, 150), tested="PGD-10, l_inf 8/255", n=10_000)

# settings.md, section 5.3: best robust accuracy, its epoch (from 0), clean there, last robust, last clean
KNOWN = {
    "rice2020": (0.5349, 106, 0.8292, 0.4559, 0.8493),
    "rice2020-l2": (0.7162, 103, 0.8867, 0.6824, 0.8890),
    "rice2020-cifar100": (0.2815, 100, 0.5269, 0.2187, 0.5383),
    "rice2020-cifar100-l2": (0.4315, 102, 0.6253, 0.3750, 0.6004),
    "rice2020-cosine": (0.5104, 136, 0.8219, 0.4501, 0.8451),
    "rice2020-fgsmrs": (0.4630, 101, 0.8637, 0.4015, 0.8741),
    "awp": (0.5539, 159, 0.8118, 0.5430, 0.8165),
    "awp-at": (0.5279, 102, 0.8170, 0.4375, 0.8460),
    "awp-at-l2": (0.6915, 103, 0.8880, 0.6526, 0.8864),
    "awp-at-cifar100": (0.2777, 103, 0.5348, 0.2069, 0.5459),
    "awp-at-wideresnet": (0.5680, 101, 0.8607, 0.4856, 0.8688),
}


def noisy(rows, n: int, every: int = 1, seed: int = 0) -> list[dict]:
    """The same curve, measured on n test images every so many epochs, other epochs unchecked."""
    draw = random.Random(seed)

    def seen(p: float) -> float:
        return sum(draw.random() < p for _ in range(n)) / n

    unchecked = {"test_robust": None, "test_clean": None}
    return [
        {**r, "test_robust": seen(r["test_robust"]), "test_clean": seen(r["test_clean"])}
        if r["epoch"] % every == 0
        else {**r, **unchecked}
        for r in rows
    ]


def bent(rows, first: int, last: int, by: float, key: str = "test_robust") -> list[dict]:
    """The curve, moved between two epochs."""
    return [{**r, key: r[key] + by if first <= r["epoch"] <= last else r[key]} for r in rows]


def places(verdict) -> list[str]:
    """Names of the parts that disagree."""
    return [f"{p.name.partition(' (')[0]}, {p.quantity}" for p in verdict.parts if p.agrees is False]


@pytest.mark.parametrize("name", ANCHORS)
def test_curves_are_the_published_ones(name):
    rows = anchor(name)
    assert [r["epoch"] for r in rows] == list(range(1, ANCHORS[name].epochs + 1))
    assert all(type(r["epoch"]) is int for r in rows)
    best, epoch, clean, last, last_clean = KNOWN[name]
    top = max(rows, key=lambda r: r["test_robust"])
    assert (top["test_robust"], top["epoch"], top["test_clean"]) == (best, epoch + 1, clean)
    assert (rows[-1]["test_robust"], rows[-1]["test_clean"]) == (last, last_clean)
    assert all(0 <= v <= 1 for r in rows for k, v in r.items() if k != "epoch")
    if ANCHORS[name].lr_milestones:  # logged at an epoch's last batch: see PROVENANCE.txt
        rates = [r["lr"] for r in rows]
        assert [e for e in range(1, 200) if rates[e] < rates[e - 1] / 2] == [
            d - 1 for d in ANCHORS[name].lr_milestones
        ]


def test_every_file_has_a_name_and_its_source_is_said():
    assert {f"{a.file}.csv" for a in ANCHORS.values()} == {p.name for p in FOLDER.glob("*.csv")}
    sources = (FOLDER / "PROVENANCE.txt").read_text()
    for source in ("locuslab/robust_overfitting at commit c47a25c", "csdongxian/AWP at commit a7acf5d"):
        assert source in sources


def test_the_papers_default_run_has_the_settings_of_rice_but_for_what_it_says():
    notes = verify(anchor("rice2020"), "rice2020", run=replace(FULL, config=Run().to_dict())).notes
    assert list(notes) == ["recipe.attack.bn: eval here, train in the anchor"]
    run = Run(recipe=AT(attack=Run().recipe.attack.replace(bn="train")))
    assert verify(anchor("rice2020"), "rice2020", run=replace(FULL, config=run.to_dict())).notes == ()


def test_a_curve_follows_itself():
    for name, a in ANCHORS.items():
        v = verify(anchor(name), name, run=replace(FULL, lr_milestones=a.lr_milestones, tested=a.tested))
        assert (v.verdict, v.where, v.shape_only) == ("holds", (), False)
        assert all(p.agrees and p.run == p.anchor for p in v.parts)
        assert len(v.parts) == 16


def test_an_independent_repetition_holds():
    v = verify(anchor("awp-at"), "rice2020", run=replace(FULL, tested="PGD-20, l_inf 8/255"))
    assert v.verdict == "holds"
    assert "test attack: PGD-20, l_inf 8/255 here, PGD-10, l_inf 8/255 in the anchor" in v.notes
    strict = verify(anchor("awp-at"), "rice2020", tolerance=0.002, run=FULL)
    assert strict.verdict == "does not hold"
    assert "last, robust accuracy" in places(strict)


def test_a_cure_of_robust_overfitting_disagrees_after_the_peak_only():
    v = verify(anchor("awp"), "rice2020", run=FULL)
    robust = [p for p in places(v) if p.endswith("robust accuracy")]
    assert robust == [
        "between the drops, robust accuracy",
        "after the last drop, robust accuracy",
        "end, robust accuracy",
        "last, robust accuracy",
        "best minus last, robust accuracy",
    ]
    assert "epoch of the best, epoch" in places(v)
    assert any(
        s.startswith("last: robust accuracy 54.3 %, anchor 45.6 %: 8.7 points higher (3.4 allowed)")
        for s in v.where
    )


def test_another_data_set_disagrees_nearly_everywhere():
    assert len(places(verify(anchor("rice2020-cifar100"), "rice2020", run=FULL))) >= 12


@pytest.mark.parametrize(
    ("first", "last", "by", "key", "expected"),
    [
        (1, 100, -0.06, "test_robust", ["before the first drop, robust accuracy"]),
        (111, 150, -0.06, "test_clean", ["between the drops, clean accuracy"]),
        (151, 190, -0.06, "test_robust", ["after the last drop, robust accuracy"]),
        (191, 199, 0.06, "test_robust", ["end, robust accuracy"]),
        (200, 200, -0.06, "test_robust", ["last, robust accuracy", "best minus last, robust accuracy"]),
        (101, 110, 0.09, "test_robust", ["peak after the first drop, robust accuracy",
                                         "best, robust accuracy", "best minus last, robust accuracy"]),
        (105, 105, 0.09, "test_robust", ["peak after the first drop, robust accuracy",
                                         "best, robust accuracy", "best minus last, robust accuracy"]),
        (150, 150, 0.05, "test_robust", ["epoch of the best, epoch"]),
    ],
)  # fmt: skip
def test_it_says_which_part_disagrees(first, last, by, key, expected):
    v = verify(bent(anchor("rice2020"), first, last, by, key), "rice2020", run=FULL)
    assert v.verdict == "does not hold"
    assert places(v) == expected
    assert len(v.where) == len(expected)


def test_allowed_is_tolerance_plus_noise_of_both():
    v = verify(anchor("rice2020"), "rice2020", run=replace(FULL, n=1000))
    last = next(p for p in v.parts if p.name == "last" and p.quantity == "robust accuracy")
    p = 0.4559
    assert last.allowed == pytest.approx(0.02 + 2 * math.sqrt(p * (1 - p) / 1000 + p * (1 - p) / 10_000))
    gap = next(p for p in v.parts if p.name == "best minus last")
    four = sum(p * (1 - p) / n for p in (0.5349, 0.4559) for n in (1000, 10_000))
    assert gap.allowed == pytest.approx(0.02 + 2 * math.sqrt(four))
    assert "test images: 1,000 here, 10,000 in the anchor" in v.notes
    unknown = verify(anchor("rice2020"), "rice2020", run=replace(FULL, n=None))
    last = next(p for p in unknown.parts if p.name == "last" and p.quantity == "robust accuracy")
    assert last.allowed == pytest.approx(0.02 + 2 * math.sqrt(p * (1 - p) / 10_000))
    assert any("not recorded" in note for note in unknown.notes)


@pytest.mark.parametrize("every", [1, 5])
def test_few_images_and_few_checks_still_hold(every):
    held = [
        verify(noisy(anchor("rice2020"), 1000, every, seed), "rice2020", run=replace(FULL, n=1000)).verdict
        for seed in range(3)
    ]
    assert held == ["holds"] * 3


def test_parts_without_a_check_are_undecided():
    v = verify(noisy(anchor("rice2020"), 1000, 50), "rice2020", run=replace(FULL, n=1000))
    assert v.verdict == "undecided"
    (said,) = [w for w in v.where if w.startswith("peak after the first drop (epochs 101 to 110): robust")]
    assert "was not measured; finish the run, validate more often (validation.every)" in said


def test_an_unfinished_run_does_not_pass():
    v = verify(anchor("rice2020")[:120], "rice2020", run=FULL)
    assert v.verdict == "undecided"
    assert v.notes[0] == "not finished: epoch 120 of 200, so the end is not judged"
    assert [p.name for p in v.parts if p.agrees is None][-4:] == [
        "best",
        "last",
        "best minus last",
        "epoch of the best",
    ]
    wrong = verify(bent(anchor("rice2020")[:120], 1, 120, -0.1), "rice2020", run=FULL)
    assert wrong.verdict == "does not hold"


def test_a_short_run_does_not_pass():
    first = verify(anchor("rice2020")[:2], "rice2020", run=Conditions(epochs=2, lr_milestones=(), n=10_000))
    assert first.verdict != "holds"
    half = [{**r, "epoch": r["epoch"] // 2} for r in anchor("rice2020") if r["epoch"] % 2 == 0]
    v = verify(half, "rice2020", run=replace(FULL, epochs=100, lr_milestones=(50, 75)))
    assert v.shape_only
    assert v.verdict == "undecided"
    assert places(v) == []
    note = "100 epochs, drops after 50, 75 here, 200 epochs, drops after 100, 150 there"
    note = f"not the same schedule, shape only: {note}"
    assert v.notes[0] == note
    assert note in summary(v)


def test_other_drops_are_another_schedule():
    v = verify(anchor("rice2020"), "rice2020", run=replace(FULL, lr_milestones=(50, 150)))
    assert v.shape_only
    assert v.verdict != "holds"
    one = verify(anchor("rice2020"), "rice2020", run=replace(FULL, lr_milestones=(100,)))
    assert one.shape_only
    assert one.verdict != "holds"


def test_the_schedule_is_the_anchors_where_the_run_says_nothing():
    assert verify(anchor("rice2020"), "rice2020").verdict == "holds"
    assert verify(anchor("rice2020")[:100], "rice2020").shape_only


def test_a_shape_can_contradict():
    rows = [{**r, "epoch": i} for i, r in enumerate(anchor("rice2020")[::2], 1)]
    flipped = [{**r, "test_robust": 0.9 - r["test_robust"]} for r in rows]
    v = verify(flipped, "rice2020", run=replace(FULL, epochs=100, lr_milestones=(50, 75)))
    assert v.verdict == "does not hold"
    jump = "from before the first drop to peak after the first drop"
    assert f"{jump}, robust accuracy" in places(v)
    assert any(
        s.startswith(f"{jump}: robust accuracy falls") and "in the anchor it rises" in s for s in v.where
    )
    assert "epoch of the best, share of the schedule" in places(v)


def test_a_flat_shape_is_undecided_not_agreeing():
    rows = [{"epoch": e, "test_robust": 0.4 - 1e-4 * e, "test_clean": 0.7} for e in range(1, 61)]
    v = verify(rows, "rice2020", run=Conditions(60, (30, 45), n=1000))
    fall = next(p for p in v.parts if p.name == "from best to last")
    assert fall.agrees is None
    assert "stays (40.0 % to 39.4 %)" in fall.text
    jump = [p for p in v.parts if p.name.startswith("from before the first drop")]
    assert [p.agrees for p in jump] == [None, None]  # small changes contradict nothing


def test_an_unfinished_shape_leaves_its_best_open():
    v = verify(anchor("rice2020")[:40], "rice2020", run=replace(FULL, epochs=100, lr_milestones=(50, 75)))
    assert {p.name: p.agrees for p in v.parts}["epoch of the best"] is None
    assert {p.name: p.agrees for p in v.parts}["from best to last"] is None
    assert v.verdict == "undecided"


def test_a_cosine_schedule_is_judged_by_quarters():
    v = verify(anchor("rice2020-cosine"), "rice2020-cosine", run=replace(FULL, lr_milestones=()))
    assert [p.name.partition(" quarter")[0] for p in v.parts[:4]] == ["first", "second", "third", "fourth"]


def test_conditions_come_from_the_files_of_a_run():
    config = {"epochs": 60, "lr_milestones": [30, 45], "schedule": "steps", "validation": {"n": None}}
    env = {
        "check": "PGD-10, l_inf 8/255, crafted in bf16, judged in fp32 on 800 test images",
        "sizes": {"test": 800},
    }
    rows = [{"epoch": 1, "test_robust": 0.1, "test_clean": 0.2}]
    known = conditions(config, rows, env)
    assert (known.epochs, known.lr_milestones, known.n) == (60, (30, 45), 800)
    assert known.tested == "PGD-10, l_inf 8/255, crafted in bf16"
    assert conditions({**config, "validation": {"n": 500}}, rows, env).n == 500
    new = [
        {**rows[0], "test_n": 700, "watched_attack": "PGD-20, l_2 128/255"},
        {"epoch": 2, "test_robust": None},
    ]
    assert conditions(config, new, env).n == 700
    assert conditions(config, new, env).tested == "PGD-20, l_2 128/255"
    assert conditions({"epochs": 9, "schedule": "cosine", "lr_milestones": [3]}, rows) == Conditions(
        9, (), None, None, {"epochs": 9, "schedule": "cosine", "lr_milestones": [3]}
    )


def test_the_table_shows_every_part_and_ends_with_the_verdict():
    v = verify(anchor("awp"), "rice2020", run=FULL)
    lines = list(table(v))
    assert lines[0] == "against rice2020 (published): does not hold (tolerance 2 points plus noise)"
    assert sum(line.startswith("  DISAGREES ") for line in lines) == len(v.where)
    assert sum(line.startswith("  agrees    ") for line in lines) == len(v.parts) - len(v.where)
    assert lines[-1].startswith(
        "the run does not follow rice2020: between the drops (epochs 111 to 150), robust"
    )
    assert (
        list(table(verify(anchor("awp"), "awp", run=FULL)))[-1] == "the run follows awp in all 16 comparisons"
    )
    assert "undecided" in list(table(verify(anchor("awp")[:90], "awp", run=FULL)))[-1]


def test_the_overlay_draws_both_over_the_same_epochs():
    rows = anchor("awp")
    both = overlay(rows, "rice2020", "mine", FULL)
    assert list(both) == ["mine", "rice2020 (published)"]
    assert both["rice2020 (published)"] == anchor("rice2020")
    short = overlay(rows[:50], "rice2020", run=Conditions(epochs=50))
    name = "rice2020 (published, 200 epochs drawn as 50)"
    assert max(r["epoch"] for r in short[name]) == 50
    assert max(short[name], key=lambda r: r["test_robust"])["epoch"] == 27


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="unknown anchor 'rice2021'; did you mean 'rice2020'"):
        verify(anchor("awp"), "rice2021")
    with pytest.raises(UserError, match="a fraction in"):
        verify(anchor("awp"), "awp", tolerance=2)
    with pytest.raises(UserError, match="no epoch with test_clean"):
        verify([{"epoch": 1, "test_robust": None}], "awp")


def test_a_test_attack_in_another_ball_is_said():
    there = ANCHORS["rice2020"]
    assert there.test == "PGD-10, l_inf 8/255"
    assert ANCHORS["rice2020-l2"].test == "PGD-10, l_2 128/255"
    run = Conditions(200, (100, 150), "PGD-10, l_inf 4/255, step 0.25 eps", 10_000, None)
    assert any("l_inf 4/255" in note for note in differing(run, there))
    same = Conditions(200, (100, 150), "PGD-10, l_inf 8/255, step 0.25 eps", 10_000, None)
    assert not any("attack" in note for note in differing(same, there))
    assert verify(anchor("rice2020"), "rice2020", run=same).verdict == "holds"
