"""Recipes and averages on networks whose layers are shared, tied or computed equal their twins by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conftest import pictures, seeded
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.losses import cross_entropy
from crossclass.models.saved_state import copied
from crossclass.training.averaging import EMA, SWA, refresh
from crossclass.training.recipes import AT, AWP, MART, KnowledgeDistillation, Standard, Teacher, Trades
from crossclass.training.recipes.base import Recipe
from crossclass.training.recipes.gradalign import GradAlign
from odd_networks import ODD

odd = pytest.mark.parametrize("make", ODD.values(), ids=ODD)
Make = Callable[..., nn.Module]
Y = torch.tensor([0, 1, 2, 0, 1])
INNER = {
    "standard": Standard(),
    "at": AT(attack=PGD(steps=1)),
    "trades": Trades(attack=PGD(steps=1, start="gauss", loss="kl")),
    "mart": MART(attack=PGD(steps=1)),
}


def trained(make: Make) -> nn.Module:
    """The network in train mode, without what it draws."""
    net = make().train()
    net.drop = nn.Identity()
    return net


def literal(recipe: Recipe, net: nn.Module, x: Tensor, x_adv: Tensor) -> Tensor:
    """The loss of a recipe from its equation, forwards in the documented order."""
    if isinstance(recipe, Standard):
        return cross_entropy(net(x), Y).mean()
    if isinstance(recipe, AT):
        return cross_entropy(net(x_adv), Y).mean()
    clean, adv = net(x), net(x_adv)
    p, q = clean.softmax(1), adv.softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    if isinstance(recipe, Trades):
        return cross_entropy(clean, Y).mean() + recipe.beta * kl.mean()
    rows = torch.arange(len(Y))
    rival = q.masked_fill(nn.functional.one_hot(Y, 3).bool(), 0).amax(1)
    boosted = cross_entropy(adv, Y) - (1.0001 - rival).log()
    return (boosted + recipe.beta * kl * (1 - p[rows, Y])).mean()


def gradients(net: nn.Module) -> dict[str, Tensor | None]:
    return {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}


def state(net: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in net.state_dict().items()}


def assert_equal_step(net: nn.Module, twin: nn.Module, before: dict[str, Tensor]) -> None:
    for (name, a), b in zip(gradients(net).items(), gradients(twin).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
    buffers = {name for name, _ in net.named_buffers(remove_duplicate=False)}
    for name, value in net.state_dict().items():
        if name in buffers:
            torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert torch.equal(value, before[name]), name


@odd
@pytest.mark.parametrize("recipe", INNER.values(), ids=INNER)
def test_a_step_equals_its_equation(recipe: Recipe, make: Make) -> None:
    net, twin, x = trained(make), trained(make), pictures(5)
    before, owned = state(net), list(net.parameters())
    x_adv = recipe.craft(net, x, Y, seeded(0))
    recipe.loss(net, x, x_adv, Y)[0].backward()
    literal(recipe, twin, x, x_adv).backward()
    assert_equal_step(net, twin, before)
    assert all(a is b for a, b in zip(owned, net.parameters(), strict=True))


@odd
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_awp_equals_perturb_differentiate_restore(inner: Recipe, make: Make) -> None:
    """Each weight is moved once, however many layers hold it, and each use moves batch norm once."""
    net, proxy, twin, x = (*(trained(make) for _ in range(3)), pictures(5))
    before, owned = state(net), list(net.parameters())
    recipe = AWP(inner=inner, gamma=0.05)
    x_adv = recipe.craft(net, x, Y, seeded(0))
    recipe.loss(net, x, x_adv, Y)[0].backward()
    literal(inner, proxy, x, x_adv).backward()
    with torch.no_grad():
        for own, found in zip(twin.parameters(), proxy.parameters(), strict=True):
            if own.ndim > 1:
                own += 0.05 * own.norm() * found.grad / found.grad.norm()
    literal(inner, twin, x, x_adv).backward()
    assert_equal_step(net, twin, before)
    assert all(a is b for a, b in zip(owned, net.parameters(), strict=True))
    assert torch.equal(recipe.craft(net, x, Y, seeded(0)), recipe.craft(net, x, Y, seeded(0)))
    forwards = 1 if isinstance(inner, Standard | AT) else 2
    norms = {m for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    assert {int(m.num_batches_tracked) for m in norms} == {5 + forwards * (2 if len(norms) == 1 else 1)}


@odd
@pytest.mark.parametrize("kind", ["gradalign", "kd"])
def test_other_recipes_leave_weights_and_count_batch_norm(kind: str, make: Make) -> None:
    teacher = Teacher(module=make(1))
    recipe = {
        "gradalign": GradAlign(attack=FGSM()),
        "kd": KnowledgeDistillation(inner=AT(attack=PGD(steps=1)), teachers=(teacher,)),
    }[kind]
    net, x = trained(make), pictures(5)
    before, taught = state(net), state(teacher.module)
    recipe.loss(net, x, recipe.craft(net, x, Y, seeded(0)), Y, seeded(1))[0].backward()
    buffers = {name for name, _ in net.named_buffers(remove_duplicate=False)}
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items() if n not in buffers)
    assert all(torch.equal(v, taught[n]) for n, v in teacher.module.state_dict().items())
    forwards = {"gradalign": 3, "kd": 1}[kind]
    norms = {m for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    assert {int(m.num_batches_tracked) for m in norms} == {5 + forwards * (2 if len(norms) == 1 else 1)}


@odd
@pytest.mark.parametrize("average", [EMA(decay=0.8), SWA()], ids=["ema", "swa"])
def test_averages_are_of_each_weight_once(average: EMA | SWA, make: Make) -> None:
    net, x = trained(make), pictures(5)
    net(x).sum().backward()  # old weight norm now keeps a weight with a history
    mean = copied(net).requires_grad_(False)
    first = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    net(x)
    average.after_step(mean, net, epoch=2)
    average.after_epoch(mean, net, epoch=2)
    share = 0.2 if isinstance(average, EMA) else 0.5
    for a, b in zip(mean.parameters(), first, strict=True):
        torch.testing.assert_close(a, b + share)
    assert all(torch.equal(a, b) for a, b in zip(mean.buffers(), net.buffers(), strict=True))
    owned = {t.data_ptr() for t in (*net.parameters(), *net.buffers())}
    assert owned.isdisjoint(t.data_ptr() for t in (*mean.parameters(), *mean.buffers()))


@odd
def test_refresh_weighs_each_use_of_batch_norm(make: Make) -> None:
    net = make()
    net.drop = nn.Identity()
    seen: dict[nn.Module, list[Tensor]] = {}
    norms = {m for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    hooks = [m.register_forward_pre_hook(lambda m, a: seen.setdefault(m, []).append(a[0])) for m in norms]
    refresh(net, [pictures(8), pictures(2, seed=2) + 1])
    for hook in hooks:
        hook.remove()
    for m in norms:
        mean = torch.cat(seen[m]).mean(dim=(0, 2, 3))
        var = sum(len(z) * z.var(dim=(0, 2, 3)) for z in seen[m]) / sum(map(len, seen[m]))
        torch.testing.assert_close(m.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(m.running_var, var, rtol=1e-4, atol=1e-5)
        assert m.momentum == 0.1
        assert not m._forward_pre_hooks
