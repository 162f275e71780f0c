"""GradAlign: one minus the cosine of two input gradients, at any length of these."""

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass.attacks import FGSM
from crossclass.attacks.losses import cross_entropy
from crossclass.attacks.norms import Linf
from crossclass.training.recipes import (
    AT,
    GradAlign,
)
from crossclass.training.recipes.gradalign import cosine, nonzero
from literal_recipes import Net, batch, literal


class TestGradAlign:
    def test_the_penalty_is_one_minus_the_cosine(self):
        model, (x, x_adv, y) = Net(3), batch(4)
        recipe = GradAlign(attack=FGSM(threat=Linf(eps=0.3)), weight=0.7)
        loss, _ = recipe.loss(model, x, x_adv, y, seeded(9))
        noise = (2 * torch.rand(x.shape, generator=seeded(9)) - 1) * 0.3
        total = 0.0
        for i in range(len(x)):
            g = []
            for point in (x[i : i + 1], x[i : i + 1] + noise[i : i + 1]):
                point = point.clone().requires_grad_(True)
                g.append(
                    torch.autograd.grad(cross_entropy(model(point), y[i : i + 1]).sum(), point)[0].flatten()
                )
            total += 1 - float(g[0] @ g[1] / (g[0].norm() * g[1].norm()))
        expected = literal(AT(), model, x, x_adv, y) + 0.7 * total / len(x)
        assert loss.item() == pytest.approx(expected, rel=1e-5)  # eta is drawn in float32

    def test_the_gradient_at_x_is_a_constant(self):
        model, (x, x_adv, y) = Net(3), batch(4)
        recipe = GradAlign(attack=FGSM(threat=Linf(eps=0.3)), weight=1.0)
        (full,) = torch.autograd.grad(recipe.loss(model, x, x_adv, y, seeded(9))[0], model.a)
        (plain,) = torch.autograd.grad(AT().loss(model, x, x_adv, y)[0], model.a)
        eta = (2 * torch.rand(x.shape, generator=seeded(9)) - 1) * 0.3
        at_x = torch.autograd.grad(cross_entropy(model(z := x.clone().requires_grad_()), y).sum(), z)[0]
        z = (x + eta).requires_grad_()
        at_eta = torch.autograd.grad(cross_entropy(model(z), y).sum(), z, create_graph=True)[0]
        cosine = nn.functional.cosine_similarity(at_x.detach().flatten(1), at_eta.flatten(1))
        (penalty,) = torch.autograd.grad(1 - cosine.mean(), model.a)
        assert torch.allclose(full - plain, penalty, atol=1e-6)
        assert penalty.abs().max() > 1e-4

    @pytest.mark.parametrize("scale", [1e-4, 1e-6, 1e-9, 1e-12, 1e-30])
    def test_the_length_of_the_gradients_drops_out(self, scale):
        # small logits make short gradients of the same directions (torch's cosine has a floor of 1e-8)
        model, (x, x_adv, y) = Net(3).float(), batch(4)
        x, x_adv = x.float(), x_adv.float()
        recipe = GradAlign(attack=FGSM(threat=Linf(eps=0.3)), weight=1.0)

        def penalty(scale: float) -> Tensor:
            def shrunk(z: Tensor) -> Tensor:
                return scale * model(z)

            return recipe.loss(shrunk, x, x_adv, y, seeded(9))[0] - AT().loss(shrunk, x, x_adv, y)[0]

        one, other = penalty(1e-3), penalty(scale)
        assert float(one.detach()) > 0.02
        assert float(other.detach()) == pytest.approx(float(one.detach()), rel=2e-2)
        g, h = (torch.autograd.grad(p, model.a)[0] for p in (one, other))
        assert torch.allclose(g, h, rtol=0.05, atol=0.02 * float(g.abs().max()))

    @pytest.mark.parametrize("confidence", [1.0, 10.0, 30.0, 200.0])
    def test_a_confident_network_has_the_penalty_of_its_closed_form(self, confidence):
        # logits (c, -c) with c = confidence + z'Qz/2: the gradient is along Qz, whatever the confidence
        g = seeded(0)
        Q = 0.3 * torch.randn(12, 12, generator=g, dtype=torch.float64)
        Q = Q + Q.T
        x, y = torch.rand(5, 3, 2, 2, generator=g, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)

        def net(z: Tensor) -> Tensor:
            c = confidence + ((z.flatten(1) @ Q) * z.flatten(1)).sum(dim=1) / 2
            return torch.stack([c, -c], dim=1)

        recipe = GradAlign(attack=FGSM(threat=Linf(eps=0.3)), weight=0.7)
        found = (recipe.loss(net, x, x, y, seeded(9))[0] - AT().loss(net, x, x, y)[0]).detach()
        beside = x + (2 * torch.rand(x.shape, generator=seeded(9)) - 1) * 0.3
        u, v = x.flatten(1) @ Q, beside.flatten(1) @ Q
        cosines = (u * v).sum(dim=1) / (u.norm(dim=1) * v.norm(dim=1))
        assert float(found) == pytest.approx(0.7 * float(1 - cosines.mean()), rel=1e-6)

    def test_images_with_a_zero_gradient_are_left_out(self):
        inner, (x, x_adv, y) = Net(3), batch(4)

        def net(z: Tensor) -> Tensor:  # flat for dark images
            lit = (z.flatten(1).mean(dim=1, keepdim=True) > 0.2).double()
            return inner(z) * lit + inner.c * (1 - lit)

        dark = torch.cat([x, torch.zeros_like(x)[:3]]), torch.cat([x_adv, x_adv[:3]]), torch.cat([y, y[:3]])
        recipe = GradAlign(attack=FGSM(threat=Linf(eps=0.05)), weight=1.0)

        def penalty(images: Tensor, others: Tensor, labels: Tensor) -> Tensor:
            return (
                recipe.loss(net, images, others, labels, seeded(9))[0]
                - AT().loss(net, images, others, labels)[0]
            )

        assert float(penalty(*dark).detach()) == pytest.approx(float(penalty(x, x_adv, y).detach()), rel=1e-6)
        (g,) = torch.autograd.grad(penalty(*dark), inner.a)
        assert torch.isfinite(g).all()
        none = penalty(torch.zeros_like(x), x_adv, y)
        assert float(none.detach()) == 0

    def test_a_gradient_that_is_no_number_is_not_left_out(self):
        a, b = torch.ones(3, 4), torch.ones(3, 4)
        a[1, 2], b[2, 0] = torch.nan, torch.inf
        assert nonzero(a).all()
        assert cosine(a, b).isnan().tolist() == [False, True, True]
