"""Settings made in Python: a wrong one is one sentence that names it, as on the command line."""

import copy
import pickle

import pytest
from pydantic import BaseModel, ValidationError

from crossclass import Measure, Mix, Runtime, Source, Teacher, Validation
from crossclass.attacks import FGSM, PGD, AnyAttack
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.core.errors import UserError
from crossclass.core.plugins import members
from crossclass.data import AnyData, Npz
from crossclass.models import AnyModel
from crossclass.training.recipes import AT, AnyRecipe
from crossclass.training.run import Run

FAMILIES = [AnyAttack, AnyThreat, AnyRecipe, AnyData, AnyModel]
EVERY = [m for family in FAMILIES for m in members(family)]
EVERY += [Run, Measure, Mix, Runtime, Source, Teacher, Validation]


@pytest.mark.parametrize("settings", EVERY, ids=lambda p: p.__name__)
def test_an_unknown_setting_of_any_class_is_one_sentence(settings):
    with pytest.raises(UserError, match=f"^{settings.__name__}: .*'no_such_setting'") as caught:
        settings(no_such_setting=1)
    assert str(caught.value).isprintable()
    assert caught.value.__cause__ is None  # pydantic's text does not stand above it
    with pytest.raises(UserError, match=f"^{settings.__name__}: .*names"):
        settings(1)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: PGD(step=2 / 255), ("step", "step_size", "rel_step")),
        (lambda: FGSM(alpha=2 / 255), ("alpha", "step_size", "rel_step")),
        (lambda: PGD(eps="8"), ("eps", "threat")),
        (lambda: FGSM(epsilon=0.1), ("epsilon", "threat")),
        (lambda: PGD(restart=2), ("'restart'", "did you mean 'restarts'")),
        (lambda: PGD(steps=2.5), ("steps=2.5",)),
        (lambda: PGD(threat="linf"), ("threat", "threat.kind")),
        (lambda: PGD(threat={"kind": "l3"}), ("threat", "'l3'", "linf")),
        (lambda: AT(attack={"kind": "pgd", "stepz": 3}), ("'attack.stepz'", "did you mean 'steps'")),
        (
            lambda: Measure(attack={"kind": "pgd", "threat": {"kind": "l2", "eps": -1}}),
            ("attack.threat.eps=-1",),
        ),
        (lambda: Linf(eps="8"), ("eps=8", "8/255")),
        (lambda: Npz(pth="x"), ("'pth'", "did you mean 'path'")),
    ],
)
def test_the_sentence_names_the_setting_and_what_is_meant(make, parts):
    with pytest.raises(UserError) as caught:
        make()
    text = str(caught.value)
    assert all(part in text for part in parts)
    assert "pydantic" not in text


def test_settings_do_not_change_and_the_sentence_says_how_to_change_them():
    attack = PGD()
    with pytest.raises(UserError, match=r"\.replace\(steps=3\)"):
        attack.steps = 3
    assert attack == PGD()


def test_construction_is_otherwise_pydantic_s():
    class Holder(BaseModel):
        attack: PGD

    attack = PGD(steps=3)
    for copied in (pickle.loads(pickle.dumps(attack)), copy.deepcopy(attack), attack.model_copy()):
        assert copied == attack
    assert PGD.model_validate({"steps": 3}) == attack
    assert Holder(attack={"steps": 3}).attack == attack
    with pytest.raises(ValidationError) as caught:  # settings inside are validated from outside, with paths
        Holder(attack={"stepz": 3})
    assert caught.value.errors()[0]["loc"] == ("attack", "stepz")
