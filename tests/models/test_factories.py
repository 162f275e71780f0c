"""Factories of networks: what they are told, what they must return, and where they are found."""

import sys

import pytest
import torch
from torch import nn

from crossclass import models
from crossclass.cli.arguments import assign
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.trust import names_of_code, trusting
from crossclass.models import HF, MeanStd, Python, Timm, Torchvision
from crossclass.training.run import Run
from foreign_networks import IMAGES, Net, variant


def test_a_factory_is_told_the_classes_and_what_the_user_says(made):
    net = made(Net, classes=7)
    assert net.head.out_features == 7
    told = made(lambda num_classes, depth=2: Net(num_classes, depth), classes=3, arguments={"depth": 9})
    assert (told.head.in_features, told.head.out_features) == (9, 3)
    own = made(
        lambda num_classes=2, **more: Net(num_classes), classes=5, arguments={"num_classes": 5, "a": 1}
    )
    assert own.head.out_features == 5


def test_the_seed_decides_the_weights_of_a_factory(made):
    images = IMAGES
    a, b = made(Net).state_dict(), made(Net).state_dict()
    c = models.build(Python(call="somebodys:factory"), images, 4, 1).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["net.top.weight"], c["net.top.weight"])


def test_normalisation_is_put_in_front(made):
    net, x = made(Net, normalise="none"), torch.rand(2, 3, 8, 8)
    assert torch.equal(net(x), net.net(x))
    own = made(Net, normalise=MeanStd(mean=(0.5,), std=(0.25,)))
    assert torch.equal(own(x), own.net((x - 0.5) / 0.25))
    assert torch.allclose(
        made(Net).mean.flatten(), IMAGES.double().div(255).mean(dim=(0, 2, 3)).float(), atol=1e-6
    )


def test_rebuilding_gives_the_same_function(made):
    net, x = made(Net), torch.rand(2, 3, 8, 8)
    again = models.rebuild(Python(call="somebodys:factory"), net.state_dict(), 4, 3, 8)
    assert torch.equal(net(x), again(x))
    with pytest.raises(UserError, match="do not fit"):
        models.rebuild(Python(call="somebodys:factory"), {**net.state_dict(), "x": net.mean}, 4, 3, 8)


def forward_raising(self, x):
    raise RuntimeError("mat1 and mat2\ncannot be multiplied.")


def convolutional(self, x):
    return self.last(self.conv(x)).mean(dim=(2, 3))


def on_tokens(self, x):
    return self.wide(self.conv(x).flatten(2)).mean(dim=1)


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (lambda: 3, {}, ["gives a int", "torch.nn.Module"]),
        (lambda depth: Net(), {}, ["needs the argument 'depth'", "model.arguments={depth: ...}"]),
        (lambda depth=1: Net(), {"arguments": {"dept": 2}}, ["no argument 'dept'", "did you mean 'depth'"]),
        (lambda: 1 / 0, {}, ["could not be made", "ZeroDivisionError", "division by zero"]),
        (variant(forward_raising), {}, ["fails on images [2, 3, 8, 8]", "RuntimeError: mat1 and mat2)"]),
        (variant(convolutional, last=nn.Conv2d(5, 4, 1)), {}, ["no linear layer", "convolutional"]),
        (Net, {"classes": 4, "arguments": {"classes": 9}}, ["returns [2, 9]", "[2, 4]", "num_classes: 4"]),
        (variant(on_tokens, wide=nn.Linear(16, 4)), {}, ["'wide'", "[2, 5, 16]", "model.head="]),
        (
            variant(lambda self, x: self.wide(self.body(x))[:, :4], wide=nn.Linear(6, 8)),
            {},
            ["no linear layer", "gives 4 columns", "'wide', gives 8", "model.head="],
        ),
        (variant(lambda self, x: "logits"), {}, ["returns a str", "return a tensor"]),
        (variant(lambda self, x: self.top(input=self.body(x))), {}, ["'top'", "keyword"]),
        (Net, {"head": "topp"}, ["model.head=topp", "did you mean 'top'"]),
        (Net, {"head": "conv"}, ["model.head=conv", "Conv2d", "nn.Linear"]),
        (Net, {"head": "unused"}, ["model.head=unused", "does not run"]),
        (Net, {"head": "hidden"}, ["no linear layer", "gives 4 columns"]),
        (Net, {"saliency": "cnv"}, ["model.saliency=cnv", "does not exist", "did you mean 'conv'"]),
        (Net, {"saliency": "top"}, ["model.saliency=top", "gives [2, 4]"]),
        (Net, {"saliency": "unused"}, ["model.saliency=unused", "does not run"]),
    ],
)
def test_what_does_not_serve_is_refused_in_one_sentence(made, factory, settings, words):
    with pytest.raises(UserError) as e:
        made(factory, **settings)
    assert "\n" not in str(e.value)
    for word in ["somebodys:factory", *words]:
        assert word in str(e.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Python(), "model.call=package.module:factory"),
        (Timm(), "model.name"),
        (Torchvision(), "model.name"),
        (HF(), "model.repo"),
        (Python(call="nowhere_at_all:f"), "no module 'nowhere_at_all'"),
        (Python(call="json"), "package.module:name"),
        (Python(call="json:dumps"), "needs the argument 'obj'"),
        (Python(call="json:dumps", arguments={"obj": 1}), "gives a str"),
    ],
)
def test_a_name_that_is_missing_or_wrong_is_refused(trusted, settings, words):
    with pytest.raises(UserError, match=words):
        models.build(settings, IMAGES, 4, 0)


def test_a_factory_in_the_current_folder_is_found_and_named_in_a_word(tmp_path, monkeypatch):
    code = "from torch import nn\n\ndef net(classes):\n"
    code += "    return nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten(), nn.Linear(5, classes))\n"
    (tmp_path / "nets_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = assign(Run(), ["model=python:nets_of_mine:net"])
    with trusting("nets_of_mine:net"):
        net = models.build(run.model, IMAGES, 4, 0)
    assert net.head_name == "2"
    assert net.features(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert list(names_of_code(run.to_dict())) == ["nets_of_mine:net"]
    monkeypatch.delitem(sys.modules, "nets_of_mine")


def test_settings_of_foreign_models_are_plain_and_hashable():
    mine = Python(call="a:b", arguments={"depth": 20, "wide": [1, 2]}, head="fc")
    assert load_yaml(Python, mine.yaml(), "f") == mine
    assert hash(mine) == hash(Python(call="a:b", arguments={"depth": 20, "wide": [1, 2]}, head="fc"))
    assert len({hash(m) for m in (mine, mine.replace(arguments={}), Timm(name="a"), HF(repo="a"))}) == 4
    assert hash(Run(model=mine)) == hash(Run(model=mine))
    run = assign(
        Run(), ["model.kind=python", "model.call=a:b", "model.arguments={depth: 20}", "model.head=fc"]
    )
    assert run.model == Python(call="a:b", arguments={"depth": 20}, head="fc")
    assert models.describe(Timm(name="x"), 3) == "timm's x, 3 classes"
