"""Temporal ensembling is Dong et al.'s: training equals their loop written out step by step.

By dongyp13/memorization-AT: predictions are remembered in eval mode on the clean images before the step, the
current one takes part, the attack ascends cross-entropy plus the term, and the term is a mean over classes.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossclass import models
from crossclass.attacks import FGSM, PGD, Attack, AutoAttack
from crossclass.attacks.norms import L2, Linf
from crossclass.core.errors import UserError
from crossclass.core.rng import generator
from crossclass.data import as_float, batches
from crossclass.paper.runs import PAPER
from crossclass.paper.sizes import shrink
from crossclass.training.labels import TemporalEnsembling
from crossclass.training.loop import train
from crossclass.training.recipes import AT
from crossclass.training.run import Run
from tiny_runs import CPU, TINY, weights

STRONG = PGD(threat=Linf(eps=0.1), steps=3)
ATTACKS: dict[str, Attack] = {
    "l_inf": STRONG,
    "l_2": PGD(threat=L2(eps=0.5), steps=3),
    "one step": FGSM(threat=Linf(eps=0.1), start="uniform"),
    "best iterate": STRONG.replace(return_iterate="best"),
    "restarts": STRONG.replace(restarts=2),
    "first success": STRONG.replace(return_iterate="first"),
}


def tiny(attack: Attack, **ensembling: float) -> Run:
    ensembling = {"momentum": 0.8, "start": 2, "ramp": 2, **ensembling}
    return TINY.replace(
        recipe=AT(attack=attack), ensembling=ensembling, augment=None, epochs=4, checkpoint_every=0
    )


def dong(run: Run) -> dict[str, Tensor]:
    """The weights after training by their loop, with the program's order of images and random starts."""
    train_split, te, attack = run.data().train, run.ensembling, run.recipe.attack
    assert te is not None
    net = models.build(run.model, train_split.images, 3, run.seed)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=1.0, momentum=run.momentum, weight_decay=run.weight_decay
    )
    soft = torch.zeros(len(train_split), 3)
    for epoch in range(1, run.epochs + 1):
        on = epoch >= te.start
        phase = max(0.0, 1 - (epoch - te.start) / te.ramp)
        weight = te.weight * math.exp(-5 * phase**2)
        optimizer.param_groups[0]["lr"] = run.lr_at(epoch)
        for step, index in enumerate(batches(len(soft), run.batch, generator(run.seed, epoch, 0, "order"))):
            x, y = as_float(train_split.images[index]), train_split.labels[index]
            net.eval()
            if on:
                with torch.no_grad():
                    soft[index] = te.momentum * soft[index] + (1 - te.momentum) * F.softmax(net(x), dim=1)
                target = soft[index] / soft[index].sum(dim=1, keepdim=True)

            def loss(images, y=y, target=target if on else None, weight=weight, net=net):
                logits = net(images)
                value = F.cross_entropy(logits, y)
                if target is None:
                    return value
                return value + weight * ((F.softmax(logits, dim=1) - target) ** 2).mean()

            start = attack.as_pgd() if isinstance(attack, FGSM) else attack
            x_adv = (x + start.draw_start(x, generator(run.seed, epoch, step, "attack"))).clamp(0, 1)
            for _ in range(start.steps):
                x_adv = x_adv.detach().requires_grad_()
                (g,) = torch.autograd.grad(loss(x_adv), x_adv)
                alpha = start.alpha
                if attack.threat.kind == "linf":
                    delta = (x_adv.detach() + alpha * g.sign() - x).clamp(
                        -attack.threat.eps, attack.threat.eps
                    )
                else:
                    unit = g / g.flatten(1).norm(dim=1)[:, None, None, None]
                    delta = x_adv.detach() + alpha * unit - x
                    delta = delta.flatten(1).renorm(2, 0, attack.threat.eps).view_as(x)
                x_adv = (x + delta).clamp(0, 1)
            net.train()
            optimizer.zero_grad()
            loss(x_adv.detach()).backward()
            optimizer.step()
    return net.state_dict()


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("what", ["l_inf", "l_2", "one step"])
def test_training_equals_their_loop(tmp_path, what):
    run = tiny(ATTACKS[what])
    assert furthest(weights(train(run, tmp_path, "t", CPU)), dong(run)) < 1e-5


def test_the_literal_loop_tells_every_difference_apart():
    run = tiny(STRONG)
    right = dong(run)
    for other in ({"momentum": 0.7}, {"weight": 250.0}, {"start": 1}, {"ramp": 1}):
        assert furthest(right, dong(tiny(STRONG, **other))) > 1e-3, other


@pytest.mark.parametrize("what", ATTACKS)
def test_every_way_of_searching_ascends_the_term(what):
    attack, y = ATTACKS[what], torch.arange(6) % 2
    x = 0.2 + 0.6 * torch.rand(6, 1, 1, 2, generator=generator(0, 1, 0, "attack"))

    def net(images: Tensor) -> Tensor:
        a = images.flatten(1)
        return torch.stack([2 + 0 * a[:, 1], -2 + 0.3 * a[:, 1]], dim=1)

    seen = []

    def added(logits: Tensor, rows: Tensor | slice) -> Tensor:
        seen.append(rows)
        return -50.0 * logits[:, 1] * torch.linspace(1, 2, 6)[rows]  # as many as there are logits

    plain = attack(net, x, y, generator(0, 1, 1, "attack"))
    moved = attack.replace(added_loss=added)(net, x, y, generator(0, 1, 1, "attack"))
    assert seen
    one = y == 0  # cross-entropy raises the second pixel of these, the term lowers that of all
    assert (moved[one, ..., 1] < plain[one, ..., 1]).all()
    again = attack.replace(added_loss=lambda logits, rows: 0 * logits[:, 0])
    assert torch.equal(again(net, x, y, generator(0, 1, 1, "attack")), plain)


def test_the_weight_ramps_up_from_epoch_90_to_150():
    te = TemporalEnsembling()
    assert [te.weight_at(e) for e in (1, 89)] == [0, 0]
    assert te.weight_at(90) == pytest.approx(300 * math.exp(-5))
    assert te.weight_at(120) == pytest.approx(300 * math.exp(-5 / 4))
    assert te.weight_at(149) < 300
    assert [te.weight_at(e) for e in (150, 151, 200)] == [300, 300, 300]
    assert TemporalEnsembling(start=3, ramp=0).weight_at(3) == 300


def test_the_run_of_the_study_keeps_its_phases():
    run = PAPER["wei2025-te-linf-8"]
    assert run.ensembling == TemporalEnsembling(momentum=0.9, weight=300, start=90, ramp=60)
    assert (run.recipe.attack.bn, run.lr_milestones, run.epochs) == ("eval", (100, 150), 200)
    mini, smoke = (shrink(run, size).ensembling for size in ("mini", "smoke"))
    # of 15, 45 in 60 epochs, and of 2 in 4: nine tenths of the first phase, the end of the second
    assert (mini.start, mini.start + mini.ramp, mini.weight) == (14, 45, 300)
    assert (smoke.start, smoke.start + smoke.ramp, smoke.weight) == (2, 3, 300)


def test_an_attack_that_cannot_ascend_the_term_is_refused():
    with pytest.raises(UserError, match=r"recipe.attack.kind=autoattack cannot"):
        Run(ensembling=TemporalEnsembling()).replace(recipe=AT(attack=AutoAttack()))
