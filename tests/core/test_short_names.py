"""Short names stand for whole paths where they can mean one thing; where not, the ways are named."""

import pytest

from crossclass.analysis.measure import Measure
from crossclass.core.errors import UserError
from crossclass.core.short_names import ends_of_paths, spelled_out
from crossclass.paper.runs import NAMED
from crossclass.training.run import Run


def test_an_end_of_one_path_is_that_path():
    assert spelled_out(Run(), {"eps": 0.02, "lr": 0.2}) == {"recipe.attack.threat.eps": 0.02, "lr": 0.2}
    assert spelled_out(Run(), {"width": 16}) == {"model.width": 16}
    assert spelled_out(NAMED["awp"], {"steps": 5}) == {"recipe.inner.attack.steps": 5}


def test_paths_that_have_the_same_value_get_the_same():
    spelled = {"recipe.attack.threat.eps": 0.02, "validation.attack.threat.eps": 0.02}
    assert spelled_out(NAMED["shapes-demo"], {"eps": 0.02}) == spelled
    changed = spelled_out(NAMED["shapes-demo"], {"norm": "l2"})
    assert changed == {"recipe.attack.threat.kind": "l2", "validation.attack.threat.kind": "l2"}


def test_paths_that_differ_are_named():
    with pytest.raises(UserError, match=r"recipe\.attack\.steps \(7\), validation\.attack\.steps \(10\)"):
        spelled_out(NAMED["shapes-demo"], {"steps": 5})


@pytest.mark.parametrize(
    ("word", "setting"),
    [("learning_rate", "lr"), ("batch-size", "batch"), ("wd", "weight_decay"), ("num_epochs", "epochs")],
)
def test_words_of_others(word, setting):
    assert spelled_out(Run(), {word: 1}) == {setting: 1}


def test_what_is_there_depends_on_the_kinds_that_are_given():
    assert spelled_out(Run(), {"beta": 3, "recipe.kind": "trades"})["recipe.beta"] == 3
    assert spelled_out(Run(), {"beta": 3}) == {"beta": 3}  # no setting, which `override` says


def test_a_setting_is_given_once():
    with pytest.raises(UserError, match="given twice"):
        spelled_out(Run(), {"eps": 0.02, "recipe.attack.threat.eps": 0.03})


def test_ends_of_the_paths_of_a_class():
    assert ends_of_paths(Measure, "eps") == ["attack.threat.eps"]
    assert ends_of_paths(Measure, "alpha") == ["attack.step_size"]
    assert ends_of_paths(Measure, "no-such") == []
