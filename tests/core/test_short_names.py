"""Short names stand for whole paths where they can mean one thing; where not, the ways are named."""

import pytest

from crossclass.analysis.measure import Measure
from crossclass.cli.own_settings import Train
from crossclass.core.errors import UserError
from crossclass.core.short_names import meant_by, paths_of, spelled_out
from crossclass.diagnostics import Doctor
from crossclass.paper.runs import NAMED
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


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("learning_rate", "lr"),
        ("Learning-Rate", "lr"),
        ("batch_size", "batch"),
        ("epsilon", "eps"),
        ("width", "model.width"),
        ("crop", "augment.crop"),
        ("epoch", "epochs"),
        ("weight-decay", "weight_decay"),
    ],
)
def test_what_is_meant_by_other_words(word, setting):
    assert meant_by(word, [Train, Run]) == f"; did you mean '{setting}'?"
    assert meant_by("alpha", [Measure]) == "; did you mean 'attack.step_size'?"
