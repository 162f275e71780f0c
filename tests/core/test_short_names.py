"""Short names stand for whole paths where they can mean one thing; where not, the ways are named."""

import pytest

from crossclass.analysis.measure import Measure
from crossclass.attacks.norms import L2
from crossclass.cli.own_settings import Train
from crossclass.core.errors import UserError
from crossclass.core.short_names import meant_by, paths_of, spelled_out
from crossclass.diagnostics import Doctor
from crossclass.paper.runs import NAMED, with_changes
from crossclass.training.run import Run


def test_an_end_of_one_path_is_that_path():
    assert spelled_out(Run(), {"eps": 0.02, "lr": 0.2}) == {"recipe.attack.threat.eps": 0.02, "lr": 0.2}
    assert spelled_out(NAMED["awp"], {"steps": 5}) == {"recipe.inner.attack.steps": 5}


def test_paths_that_have_the_same_value_get_the_same():
    spelled = {"recipe.attack.threat.eps": 0.02, "validation.attack.threat.eps": 0.02}
    assert spelled_out(NAMED["shapes-demo"], {"eps": 0.02}) == spelled
    changed = spelled_out(NAMED["shapes-demo"], {"norm": "l2"})
    assert changed == {"recipe.attack.threat.kind": "l2", "validation.attack.threat.kind": "l2"}


def test_paths_that_differ_are_named():
    with pytest.raises(UserError, match=r"recipe\.attack\.steps \(7\), validation\.attack\.steps \(10\)"):
        spelled_out(NAMED["shapes-demo"], {"steps": 5})


def test_what_is_there_depends_on_the_kinds_that_are_given():
    assert "recipe.inner.attack.threat.eps" in spelled_out(Run(), {"eps": 0.02, "recipe.kind": "kd"})
    with pytest.raises(UserError, match="no setting here"):
        spelled_out(Run(), {"eps": 0.02, "recipe.kind": "standard"})


def test_a_setting_is_given_once():
    with pytest.raises(UserError, match="given twice"):
        spelled_out(Run(), {"eps": 0.02, "recipe.attack.threat.eps": 0.03})


def test_paths_of_classes():
    assert paths_of("eps", [Measure]) == ["attack.threat.eps"]
    assert paths_of("norm", [Doctor]) == ["threat.kind"]
    assert paths_of("threads", [Train, Run]) == ["runtime.threads"]
    assert paths_of("n", [Measure]) == []
    assert "recipe.inner.attack.steps" in paths_of("steps", [Run])
    assert paths_of("width", [Train, Run]) == ["model.width"]
    assert spelled_out(Run(), {"width": 8}) == {"model.width": 8}


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("learning_rate", "lr"),
        ("Learning-Rate", "lr"),
        ("batch_size", "batch"),
        ("epsilon", "eps"),
        ("depth", "model.depth"),
        ("with", "width"),
        ("stps", "steps"),
        ("crop", "augment.crop"),
        ("epoch", "epochs"),
        ("weight-decay", "weight_decay"),
    ],
)
def test_what_is_meant_by_other_words(word, setting):
    assert meant_by(word, [Train, Run]) == f"; did you mean '{setting}'?"
    assert "'recipe.attack.steps' or 'validation.attack.steps'" in meant_by("attack.steps", [Run])
    assert meant_by("alpha", [Measure]) == "; did you mean 'attack.step_size'?"


@pytest.mark.parametrize("name", sorted(NAMED))
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_norm_alone_is_enough(name, norm):
    if NAMED[name].recipe.threat is not None:
        assert with_changes(NAMED[name], {"norm": norm}).threat.kind == norm


def test_another_norm_brings_its_start_and_its_step():
    run = with_changes(NAMED["cifar10-mini"], {"norm": "l2"})
    for attack in (run.recipe.attack, run.validation.attack):
        assert attack.start in (None, "uniform_radius")
        assert (attack.threat, attack.rel_step) == (L2(), 0.2)
    assert run.recipe.attack.start == "uniform_radius"  # was uniform
    back = with_changes(run, {"norm": "linf"})
    assert (back.recipe.attack.start, back.recipe.attack.rel_step) == ("uniform", 0.25)


def test_what_is_given_beside_the_norm_stays():
    given = {"norm": "l2", "recipe.attack.start": "ball", "recipe.attack.step_size": 0.1}
    attack = with_changes(NAMED["cifar10-mini"], given).recipe.attack
    assert (attack.start, attack.step_size) == ("ball", 0.1)
    attack = with_changes(NAMED["cifar10-mini"], {"norm": "l2", "eps": 2.0}).recipe.attack
    assert (attack.threat.eps, attack.rel_step) == (2.0, 0.2)
    assert with_changes(NAMED["cifar10-mini"], {"norm": "linf"}) == NAMED["cifar10-mini"]
