"""The library's door: whatever a person gives to a public function is understood or refused in one sentence.

The lists of attacks, recipes and public names are read off the package, so that a new one is held to this.
"""

import ast
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import crossclass as cc
from attack_cases import ATTACKS, FOREIGN, make
from conftest import pictures, seeded, tiny_net
from crossclass.analysis import evaluate
from crossclass.attacks import losses
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members
from crossclass.data import Split
from crossclass.models.model_state import frozen
from crossclass.training.recipes import AnyRecipe

pytestmark = pytest.mark.usefixtures("trusted", "without_shape_checks")

X, Y, K = pictures(5), torch.tensor([0, 1, 2, 0, 1]), 3
SOFT = torch.eye(K)[Y] * 0.7 + 0.1
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=kind_of)
every_recipe = pytest.mark.parametrize("recipe", members(AnyRecipe), ids=kind_of)


class Returning(nn.Module):
    """A network whose logits come back in another form."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.net, self.form = tiny_net(), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


def column(z: Tensor) -> Tensor:
    return (z[:, 1] - z[:, 0])[:, None]


NO_LOGITS = {
    "one logit [n, 1]": column,
    "one logit [n]": lambda z: column(z)[:, 0],
    "one class, softmax": lambda z: column(z).softmax(dim=1),
    "a map [n, K, 2, 2]": lambda z: z[:, :, None, None].expand(-1, -1, 2, 2),
    "twice as many rows": lambda z: torch.cat([z, z]),
    "one row for all": lambda z: z.mean(dim=0, keepdim=True),
    "two tensors that can be logits": lambda z: (z.repeat(1, 2), z),
    "two heads": lambda z: [z, z],
    "a dictionary of features": lambda z: {"map": z[:, :, None, None]},
    "a dictionary of two": lambda z: {"out": z, "aux": z},
    "an empty tuple": lambda z: (),
    "nothing": lambda z: None,
    "predicted classes": lambda z: z.argmax(dim=1),
    "a text": lambda z: "logits",
    "an array": lambda z: z.detach().numpy(),
}
LOGITS = {
    "transformers": lambda z: SimpleNamespace(logits=z, hidden_states=(z, z)),
    "an ordered dictionary": lambda z: OrderedDict(loss=z.sum(), logits=z, features=z),
    "a map [n, K, 1, 1]": lambda z: z[:, :, None, None],
    "a tuple of one": lambda z: (z,),
    "logits and a map": lambda z: (z, z[:, :, None, None]),
    "a loss and logits": lambda z: (z.sum(), z),
    "a dictionary of one": lambda z: {"out": z},
}
BAD_IMAGES = {
    "bytes": (255 * X).byte(),
    "integers": X.long(),
    "truth values": X > 0.5,
    "an array": X.numpy(),
    "a list": X.tolist(),
    "nothing": None,
    "one pixel for each": X[:, 0, 0, 0],
}
BAD_VALUES = {"0 to 255": 255 * X, "normalised": 4 * X - 2, "NaN": X * torch.nan, "infinity": X / 0}
BAD_LABELS = {
    "floats": Y.float(),
    "floats [n, 1]": Y[:, None].float(),
    "truth values": Y > 0,
    "one-hot integers": nn.functional.one_hot(Y),
    "too few": Y[:4],
    "a row": Y[None],
    "a list": Y.tolist(),
    "an array": Y.numpy(),
    "nothing": None,
    "one": torch.tensor(0),
    "[n, 1, 1]": Y[:, None, None],
    "a class that the network does not have": Y + 1,
    "counted from -1": Y - 1,
    "left out": torch.where(Y == 2, -100, Y),
    "probabilities of other classes": torch.full((5, 4), 0.25),
}
GOOD_LABELS = {
    "[n, 1]": Y[:, None],
    "int8": Y.to(torch.int8),
    "uint8": Y.to(torch.uint8),
    "int32 [n, 1]": Y[:, None].int(),
}


def refused(call: Any) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable()
    assert 20 < len(text) < 400
    return text


# --- attacks


def attacks_of(attack: type) -> list[Any]:
    if attack in FOREIGN:
        return [make(attack, cc.Linf)]
    several = ({"loss": "ce"}, {"loss": "margin"}, {"return_iterate": "first"}, {"restarts": 2})
    return [make(attack, cc.Linf, **settings) for settings in several]


@every_attack
@pytest.mark.parametrize("form", NO_LOGITS.values(), ids=list(NO_LOGITS))
def test_an_attack_refuses_a_network_without_logits(attack, form):
    for a in attacks_of(attack):
        assert "logits" in refused(lambda a=a: a(Returning(form), X, Y % 2, seeded(0)))


@every_attack
@pytest.mark.parametrize("form", LOGITS.values(), ids=list(LOGITS))
def test_an_attack_understands_logits_among_other_outputs(attack, form):
    for a in attacks_of(attack):
        assert torch.equal(a(Returning(form), X, Y, seeded(0)), a(tiny_net(), X, Y, seeded(0)))


@every_attack
@pytest.mark.parametrize("x", BAD_IMAGES.values(), ids=list(BAD_IMAGES))
def test_an_attack_refuses_what_are_no_images(attack, x):
    for a in attacks_of(attack):
        for method in (a, a.search):
            assert "images" in refused(lambda m=method: m(tiny_net(), x, Y, seeded(0)))


@every_attack
@pytest.mark.parametrize("x", BAD_VALUES.values(), ids=list(BAD_VALUES))
def test_an_attack_refuses_values_that_are_no_pixels(attack, x):
    for a in attacks_of(attack):
        assert "images" in refused(lambda a=a: a(tiny_net(), x, Y, seeded(0)))


@every_attack
@pytest.mark.parametrize("y", BAD_LABELS.values(), ids=list(BAD_LABELS))
def test_an_attack_refuses_labels_that_are_none(attack, y):
    for a in attacks_of(attack):
        for method in (a, a.search):
            assert "label" in refused(lambda m=method: m(tiny_net(), X, y, seeded(0)))


@every_attack
@pytest.mark.parametrize("y", GOOD_LABELS.values(), ids=list(GOOD_LABELS))
def test_an_attack_reads_labels_of_other_shapes_and_types(attack, y):
    for a in attacks_of(attack):
        assert torch.equal(a(tiny_net(), X, y, seeded(0)), a(tiny_net(), X, Y, seeded(0)))


@every_attack
def test_an_attack_on_no_images_returns_none(attack):
    """As for the images of a batch that are still classified rightly, of which there may be none."""
    for a in attacks_of(attack):
        assert a(tiny_net(), X[:0], Y[:0], seeded(0)).shape == (0, *X.shape[1:])


def test_images_on_another_device_than_the_network_are_a_sentence():
    with frozen(tiny_net()) as f:
        assert "images are on meta, the network on cpu" in refused(lambda: f(X.to("meta")))


@every_attack
def test_labels_are_looked_at_before_a_loss_sees_them(attack, monkeypatch):
    """On a CUDA device a label beyond the classes ends the process there."""
    seen = []
    for name in ("cross_entropy", "nll_loss", "one_hot"):
        usual = getattr(nn.functional, name)
        monkeypatch.setattr(nn.functional, name, lambda *a, u=usual, **k: (seen.append(1), u(*a, **k))[1])
    for a in attacks_of(attack):
        assert "labels reach from 1 to 3" in refused(lambda a=a: a(tiny_net(), X, Y + 1, seeded(0)))
    assert not seen


# --- losses and recipes


@pytest.mark.parametrize("loss", [cc.cross_entropy, cc.margin], ids=["ce", "margin"])
def test_losses_take_logits_and_labels_that_fit(loss):
    z = tiny_net()(X)
    for form in NO_LOGITS.values():
        assert "logits" in refused(lambda form=form: loss(form(z), Y % 2))
    for y in BAD_LABELS.values():
        refused(lambda y=y: loss(z, y))
    for form in LOGITS.values():
        assert torch.equal(loss(form(z), Y), loss(z, Y))
    for y in GOOD_LABELS.values():
        assert torch.equal(loss(z, y), loss(z, Y))
    assert loss(z, SOFT).shape == (5,)


def test_kl_takes_logits_of_the_same_classes():
    z = tiny_net()(X)
    for form in NO_LOGITS.values():
        if isinstance(form(z), Tensor):
            refused(lambda form=form: losses.kl(form(z), z))
            refused(lambda form=form: losses.kl(z, form(z)))
    refused(lambda: losses.kl(z, z.repeat(1, 2)))


def recipe_of(recipe: type) -> Any:
    made = recipe()
    if recipe is cc.KnowledgeDistillation:
        return made.replace(teachers=(cc.Teacher(module=tiny_net(1)),), inner=cc.AT(attack=cc.PGD(steps=1)))
    return made.map_attacks(lambda a: a.replace(steps=1) if "steps" in type(a).model_fields else a)


@every_recipe
def test_recipes_take_what_attacks_take(recipe):
    r = recipe_of(recipe)

    def step(net: nn.Module, x: Any, y: Any) -> Tensor:
        loss, logits = r.loss(net, x, r.craft(net, x, y, seeded(0)), y, seeded(1))
        assert logits.shape == (5, K)
        return loss.detach()

    usual = step(tiny_net(), X, Y)
    for form in NO_LOGITS.values():
        refused(lambda form=form: step(Returning(form), X, Y % 2))
    for x in BAD_IMAGES.values():
        refused(lambda x=x: step(tiny_net(), x, Y))
    for y in BAD_LABELS.values():
        refused(lambda y=y: step(tiny_net(), X, y))
    for form in LOGITS.values():
        torch.testing.assert_close(step(Returning(form), X, Y), usual)
    for y in GOOD_LABELS.values():
        torch.testing.assert_close(step(tiny_net(), X, y), usual)


# --- measures


G, W = torch.rand(5, 4, generator=seeded(3)), torch.randn(K, 4, generator=seeded(4))
C = cc.correlation(cc.class_means(G, W, Y))
BAD_FEATURES = {
    "a map": G[:, :, None, None],
    "one feature": G[:, 0],
    "another width": G[:, :3],
    "an array": G.numpy(),
    "a tuple": (G,),
    "nothing": None,
}
BAD_WEIGHTS = {
    "transposed": W.T,
    "one row": W[:1],
    "a vector": W[0],
    "a layer": nn.Linear(4, K),
    "nothing": None,
}
SAID = torch.tensor([0, 1, 0, 2, 1])


def updated(metric: Any) -> Any:
    return lambda g, W, y: metric.update(g, y, W)


MEASURES = {
    "class_means": cc.class_means,
    "nearest": cc.nearest,
    "all_pairs": cc.all_pairs,
    "ClassCorrelation": updated(cc.ClassCorrelation(K, 4)),
    "CAS": updated(cc.CAS(K, 4)),
    "CASByFeature": updated(cc.CASByFeature(K, 4)),
    "InstanceCAS": updated(cc.InstanceCAS(K, 4)),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
def test_measures_take_features_weights_and_classes_that_fit(measure):
    for g in BAD_FEATURES.values():
        refused(lambda g=g: measure(g, W, Y))
    for weights in BAD_WEIGHTS.values():
        refused(lambda weights=weights: measure(G, weights, Y))
    for y in (*BAD_LABELS.values(), SOFT):
        assert "label" in refused(lambda y=y: measure(G, W, y))
    for y in GOOD_LABELS.values():
        measure(G, W, y)


@pytest.mark.parametrize("of_matrix", [cc.cas, cc.negative_mass, lambda c: cc.separation(c, C)])
def test_scores_take_a_square_matrix(of_matrix):
    for c in (C[:1, :1], C[:2], C[0], C[None], C.numpy(), [C], None):
        refused(lambda c=c: of_matrix(c))


def test_other_matrices_are_checked_too():
    for means in (C[0], C[None], C.numpy(), None):
        refused(lambda means=means: cc.correlation(means))
    pairs = torch.ones(K, K).triu().long()
    for c, sharing in ((C * torch.nan, pairs.tril()), (C, pairs[:2]), (C, pairs.numpy()), (C, 0 * pairs)):
        refused(lambda c=c, sharing=sharing: cc.separation(c, sharing))
    at = cc.nearest(G, W, Y)
    for cosines, y in ((at[:, 0], Y), (at.numpy(), Y), (at, Y + 1), (at, SOFT), (at[:4], Y)):
        refused(lambda cosines=cosines, y=y: cc.instance_correlation(cosines, y))


def test_counts_take_predicted_classes():
    metric = cc.ClasswiseAccuracy(K)
    for count in (
        lambda said, y: evaluate.classwise(said, y, K),
        lambda said, y: evaluate.confusion(said, y, K),
        metric.update,
    ):
        for said in (torch.eye(5), SOFT, SAID.float(), SAID[None], SAID.numpy(), None):
            refused(lambda said=said, count=count: count(said, Y))
        for y in (*BAD_LABELS.values(), SOFT):
            refused(lambda y=y, count=count: count(SAID, y))
    assert "predictions" in refused(lambda: evaluate.accuracy(torch.eye(5), Y))  # [n, n] == [n] broadcasts
    refused(lambda: evaluate.accuracy(SAID, SOFT))
    refused(lambda: evaluate.accuracy(SAID[:0], Y[:0]))


# --- evaluation


def wrapped() -> nn.Module:
    return cc.Wrapped(tiny_net(), K, 3, (0.0,), (1.0,), 6)


def test_evaluation_takes_a_classifier_a_split_and_an_attack():
    split = Split((255 * X).byte(), Y)
    assert cc.evaluate(wrapped(), split, None).accuracy("clean") >= 0
    for model in (tiny_net(), nn.Flatten(), lambda x: x, None):
        refused(lambda model=model: cc.evaluate(model, split, None))
    for data in ((X, Y), X, [split], None, split.first(0)):
        refused(lambda data=data: cc.evaluate(wrapped(), data, None))
    for attack in (cc.PGD, "pgd", lambda x, y: x):
        refused(lambda attack=attack: cc.evaluate(wrapped(), split, attack))
    refused(lambda: cc.evaluate(wrapped(), Split(split.images, Y + 1), None))
    refused(lambda: cc.summary(cc.evaluate(wrapped(), split, None), ("a", "b")))


def test_a_split_takes_bytes_and_classes():
    """Floats in [0, 1] were divided by 255 once more."""
    for images in (X, X.long(), (255 * X).byte()[:, 0], (255 * X).byte().numpy(), None):
        refused(lambda images=images: Split(images, Y))
    for y in (*list(BAD_LABELS.values())[:11], SOFT):
        refused(lambda y=y: Split((255 * X).byte(), y))


def test_saliency_takes_images_and_classes():
    for x in (*BAD_IMAGES.values(), X[0]):
        refused(lambda x=x: cc.grad_cam(wrapped(), x, Y))
    for y in (*BAD_LABELS.values(), SOFT):
        refused(lambda y=y: cc.grad_cam(wrapped(), X, y))
    expected = cc.grad_cam(wrapped(), X, Y)
    for y in GOOD_LABELS.values():
        assert torch.equal(cc.grad_cam(wrapped(), X, y), expected)


def test_a_frozen_network_takes_images_and_gives_logits():
    for form in NO_LOGITS.values():
        with frozen(Returning(form)) as f:
            refused(lambda f=f: f(X))
    for form in LOGITS.values():
        with frozen(Returning(form)) as f:
            assert torch.equal(f(X), tiny_net()(X))


# --- every public name

CHECKED = {
    *("cas", "class_means", "correlation", "negative_mass", "separation", "evaluate", "summary"),
    *("all_pairs", "instance_correlation", "nearest", "grad_cam", "CAS", "ClassCorrelation"),
    "CASByFeature",
    *("ClasswiseAccuracy", "InstanceCAS", "FGSM", "PGD", "AutoAttack", "External", "Attack"),
    *("cross_entropy", "kl", "margin", "frozen"),
    *("AT", "AWP", "MART", "GradAlign", "KnowledgeDistillation", "Standard", "Teacher", "Trades"),
}
TAKES_NO_TENSORS = {
    *("Measure", "measure", "Metric", "register_metric", "load_results", "load_run", "AttackWarning"),
    *("L2", "Linf", "Source", "load_model", "Settings", "UserError", "override", "register", "Runtime"),
    *("trusting", "CIFAR10", "CIFAR100", "Digits", "Folder", "Npz", "Shapes", "TinyImageNet", "Augment"),
    *("Doctor", "PreActResNet", "Python", "ResNet", "ViT", "WideResNet", "named", "write_report"),
    *("EMA", "SWA", "Mix", "TemporalEnsembling", "train", "Run", "Validation", "plot", "table_of_runs"),
}
OF_MODULES = {"Classifier", "Wrapped", "examine"}
"""Checked where networks and the doctor are tested."""


def test_every_public_name_is_checked_or_takes_no_tensors():
    stub = ast.parse((Path(cc.__file__).parent / "__init__.pyi").read_text("utf-8"))
    public = {a.name for node in stub.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert public == CHECKED | TAKES_NO_TENSORS | OF_MODULES
