"""Norm balls: every verb against its definition, and the contracts that any new ball must keep."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import literal_twins
from conftest import pictures, seeded
from crossclass.attacks.norms import GAUSS, L2, AnyThreat, Linf
from crossclass.core import config
from crossclass.core.errors import UserError
from crossclass.core.plugins import kind_of, members

THREATS = members(AnyThreat)
every_threat = pytest.mark.parametrize("ball", THREATS, ids=kind_of)
every_start = pytest.mark.parametrize(
    ("ball", "start"),
    [pytest.param(t, s, id=f"{kind_of(t)}-{s}") for t in THREATS for s in t.starts],
)
SCALES = [1e-37, 1e-30, 1e-20, 1e-8, 1.0, 1e8, 1e20, 1e37]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


# --- contracts: every member of the union


@every_threat
@pytest.mark.parametrize("scale", SCALES)
def test_a_step_has_its_length_at_any_gradient_scale(ball: type, scale: float) -> None:
    t = ball(eps=0.1)
    for alpha in (1e-6, 0.025, 1.0):
        step = t.steepest(scale * noise(5, 3, 4, 4), alpha)
        torch.testing.assert_close(t.norm(step), torch.full((5,), alpha), rtol=2e-6, atol=0)
        torch.testing.assert_close(step, t.steepest(noise(5, 3, 4, 4), alpha), rtol=1e-4, atol=1e-7 * alpha)


@every_threat
def test_no_step_of_its_length_climbs_more_steeply(ball: type) -> None:
    t, g = ball(eps=1.0), noise(1, 12)
    climbed = float((t.steepest(g, 1.0) * g).sum())
    for other in noise(500, 12, seed=1):
        rival = other[None] / t.norm(other[None])
        assert float((rival * g).sum()) <= climbed + 1e-6
    assert climbed > 0


@every_threat
def test_a_zero_or_nan_gradient_does_not_move_and_spoils_nobody(ball: type) -> None:
    t, g = ball(eps=0.1), noise(5, 3, 4, 4)
    g[1], g[3], g[4, 0, 0, 0] = 0, math.nan, math.nan
    step = t.steepest(g, 0.02)
    assert step.isfinite().all()
    assert (step[[1, 3]] == 0).all()
    assert step[4, 0, 0, 0] == 0
    assert (step[4].flatten()[1:] != 0).all()  # the other pixels of an image with one bad pixel go on
    for i in (0, 2):
        assert torch.equal(step[i], t.steepest(noise(5, 3, 4, 4)[i : i + 1], 0.02)[0])
    assert t.steepest(torch.full((1, 4), math.inf), 0.02).isfinite().all()


@every_threat
@given(
    eps=st.sampled_from([0.0, 1e-25, 1e-12, 8 / 255, 0.5, 1.0]),
    scale=st.floats(-20, 8).map(lambda e: 10.0**e),
    seed=st.integers(0, 1000),
)
def test_projection_lands_inside_changes_nothing_inside_and_is_repeatable(
    ball: type, eps: float, scale: float, seed: int
) -> None:
    t, delta = ball(eps=eps), scale * noise(4, 3, 2, 2, seed=seed)
    once = t.project(delta)
    assert (t.norm(once) <= eps * (1 + 1e-6)).all()
    inside = t.norm(delta) <= eps
    assert torch.equal(once[inside], delta[inside])
    torch.testing.assert_close(t.project(once), once, rtol=1e-6, atol=0)


@every_threat
@given(seed=st.integers(0, 1000))
def test_projection_is_the_nearest_point_of_the_ball(ball: type, seed: int) -> None:
    t, delta = ball(eps=0.7), noise(1, 6, seed=seed)
    rivals = t.project(2 * noise(200, 6, seed=seed + 1))  # points of the ball, many on its surface
    nearest = (t.project(delta) - delta).norm()
    assert ((rivals - delta).norm(dim=1) >= nearest - 1e-6).all()


@every_threat
def test_every_verb_works_on_each_sample_alone(ball: type) -> None:
    t, delta = ball(eps=0.3), noise(6, 3, 4, 4) * torch.logspace(-3, 2, 6).view(-1, 1, 1, 1)
    for verb in (t.project, lambda d: t.steepest(d, 0.1), t.norm):
        alone = torch.cat([verb(delta[i : i + 1]) for i in range(6)])
        assert torch.equal(verb(delta), alone)


@every_threat
def test_equals_the_float64_twin(ball: type) -> None:
    t = ball(eps=0.4)
    delta = noise(6, 3, 2, 2) * torch.logspace(-2, 1, 6).view(-1, 1, 1, 1)
    rows = delta.flatten(1).tolist()
    for found, expected in (
        (t.norm(delta), [literal_twins.norm(t.kind, v) for v in rows]),
        (t.steepest(delta, 0.1).flatten(1), [literal_twins.steepest(t.kind, v, 0.1) for v in rows]),
        (t.project(delta).flatten(1), [literal_twins.project(t.kind, v, 0.4) for v in rows]),
    ):
        torch.testing.assert_close(
            found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-7
        )


@every_start
@pytest.mark.parametrize("eps", [0.0, 1e-12, 8 / 255, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_start_is_float32_and_inside_for_images_of_any_type(
    ball: type, start: str, eps: float, dtype: torch.dtype
) -> None:
    t, x = ball.model_construct(eps=eps), pictures(5).to(dtype)
    delta = t.sample(x.float(), start, seeded(0))
    assert delta.dtype == torch.float32
    assert delta.shape == x.shape
    assert (t.norm(delta) <= eps * (1 + 1e-6)).all()


@every_start
def test_a_start_depends_on_its_generator_alone(ball: type, start: str) -> None:
    t, x = ball(eps=0.1), pictures(4)
    before = torch.get_rng_state()
    a, b = t.sample(x, start, seeded(1)), t.sample(x.to(memory_format=torch.channels_last), start, seeded(1))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)
    if start == "none":
        assert (a == 0).all()
        return
    g = seeded(1)
    assert not torch.equal(t.sample(x, start, g), t.sample(x, start, g))  # the generator moves on
    assert not torch.equal(a[0], a[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(t.sample(x, start, None), a)  # no generator: torch's own stream


@every_threat
def test_the_default_radius_and_starts_are_usable(ball: type) -> None:
    t = ball()
    assert 0 < t.eps < 1
    assert len(set(t.starts)) == len(t.starts) >= 1
    assert "255" in str(t)
    assert config.validated(ball, {"eps": "4/255"}).eps == 4 / 255
    for start in t.starts:
        assert t.sample(pictures(0), start, seeded(0)).shape == (0, 3, 6, 6)


@every_threat
def test_a_radius_in_255ths_is_refused_with_the_remedy(ball: type) -> None:
    with pytest.raises(UserError, match="did you mean eps=128/255"):
        config.validated(ball, {"eps": 128})
    with pytest.raises(UserError, match="negative"):
        config.validated(ball, {"eps": -0.1})


# --- the distributions of the starts (peers.md, T8)


def kolmogorov(sample: Tensor, cdf) -> float:
    """sqrt(n) * largest distance between the empirical and the true distribution; 1.95 is p = 0.001."""
    values = np.sort(sample.double().numpy())
    n, true = len(values), np.array([cdf(v) for v in values])
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * float(max(np.abs(steps[1:] - true).max(), np.abs(true - steps[:-1]).max()))


def isotropic(directions: Tensor) -> None:
    """Unit vectors without a preferred axis: the moments of the sphere, and half-spaces half full."""
    n, d = directions.shape
    assert float(directions.mean(dim=0).norm()) < 3 / math.sqrt(n)
    moments = directions.T @ directions / n
    assert float((moments - torch.eye(d) / d).abs().max()) < 5 / (d * math.sqrt(n)) * math.sqrt(2)
    fourth = float((directions**4).mean())  # a direction drawn from a cube has the same second moments
    assert fourth == pytest.approx(3 / (d * (d + 2)), rel=0.05)
    to_grey = directions.sum(dim=1) / math.sqrt(d)
    assert abs(float((to_grey > 0).double().mean()) - 0.5) < 2 / math.sqrt(n)


@pytest.mark.parametrize(
    ("start", "radius"),
    [
        ("uniform_radius", lambda r: min(max(r, 0), 1)),
        ("ball", lambda r: min(max(r, 0), 1) ** 12),
        ("sphere", None),
    ],
)
def test_l2_starts_have_their_radii_and_no_preferred_direction(start: str, radius) -> None:
    eps, x = 0.7, torch.rand(4000, 3, 2, 2, generator=seeded(9))
    delta = L2(eps=eps).sample(x, start, seeded(0)).flatten(1)
    r = delta.norm(dim=1)
    if radius is None:
        torch.testing.assert_close(r, torch.full_like(r, eps), rtol=1e-5, atol=0)
    else:
        assert kolmogorov(r / eps, radius) < 1.95
    isotropic(delta / r[:, None])


def test_mean_l2_radius_on_cifar_is_half_of_eps_for_the_papers_start_and_eps_for_the_others() -> None:
    x, mean = torch.rand(300, 3, 32, 32, generator=seeded(0)), {}
    for start in ("uniform_radius", "ball", "sphere"):
        mean[start] = float(L2(eps=0.5).norm(L2(eps=0.5).sample(x, start, seeded(1))).mean()) / 0.5
    assert mean["uniform_radius"] == pytest.approx(0.5, abs=0.05)
    assert mean["ball"] == pytest.approx(3072 / 3073, abs=2e-4)
    assert mean["sphere"] == pytest.approx(1.0, abs=1e-6)


def test_linf_uniform_fills_the_cube_evenly() -> None:
    eps = 8 / 255
    x = torch.rand(4000, 3, 2, 2, generator=seeded(9))
    delta = Linf(eps=eps).sample(x, "uniform", seeded(0)).flatten(1)
    for pixel in range(12):
        assert kolmogorov(delta[:, pixel], lambda v: min(max((v + eps) / (2 * eps), 0), 1)) < 1.95
    assert kolmogorov(delta.abs().amax(dim=1) / eps, lambda r: min(max(r, 0), 1) ** 12) < 1.95
    correlation = np.corrcoef(delta.T.numpy()) - np.eye(12)
    assert np.abs(correlation).max() < 4 / math.sqrt(4000)


@every_threat
def test_gauss_is_the_small_normal_of_trades(ball: type) -> None:
    x = torch.rand(2000, 3, 2, 2, generator=seeded(9))
    delta = ball(eps=0.1).sample(x, "gauss", seeded(0)).flatten() / GAUSS
    assert GAUSS == 0.001
    assert kolmogorov(delta, lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2)))) < 1.95
    narrow = ball(eps=0.0005)
    assert (narrow.norm(narrow.sample(x, "gauss", seeded(0))) <= 0.0005 * (1 + 1e-6)).all()


def test_samples_of_a_batch_are_independent_draws() -> None:
    for t, start in ((Linf(eps=0.1), "uniform"), (L2(eps=0.1), "sphere")):
        delta = t.sample(torch.zeros(40, 3, 8, 8), start, seeded(0)).flatten(1)
        cosine = torch.nn.functional.normalize(delta, dim=1)
        assert float((cosine @ cosine.T - torch.eye(40)).abs().max()) < 6 / math.sqrt(192)


# --- arithmetic at the edges of float32


@pytest.mark.parametrize("scale", SCALES)
def test_the_l2_norm_neither_underflows_nor_overflows(scale: float) -> None:
    v = scale * noise(3, 3, 2, 2)
    torch.testing.assert_close(L2().norm(v).double(), v.double().flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert (L2().norm(torch.zeros(2, 5)) == 0).all()


@pytest.mark.parametrize("scale", SCALES)
def test_l2_projection_reaches_the_surface_from_any_distance(scale: float) -> None:
    t, v = L2(eps=min(1.0, scale / 10)), scale * noise(3, 12)
    torch.testing.assert_close(t.norm(t.project(v)), torch.full((3,), t.eps), rtol=1e-5, atol=0)


def test_a_radius_is_exact_in_float32_where_bf16_is_not() -> None:
    eps = 8 / 255
    delta = Linf(eps=eps).project(torch.ones(1, 4))
    assert delta.dtype == torch.float32
    assert float(delta.max()) == pytest.approx(eps, abs=2e-9)
    assert abs(float(torch.tensor(eps).bfloat16()) - eps) > 1e-5  # what would have happened


def test_radii_print_as_people_write_them() -> None:
    assert str(Linf()) == "l_inf 8/255"
    assert str(L2(eps=0.5)) == "l_2 127.5/255"
    assert str(Linf(eps=0.031)) == "l_inf 0.031"


def test_the_uniform_start_of_either_ball_fills_it():
    x = torch.zeros(4000, 2)
    for threat in (Linf(eps=0.5), L2(eps=0.5)):
        delta = threat.sample(x, threat.uniform_start, torch.Generator().manual_seed(0))
        inner = (threat.norm(delta) <= 0.25).float().mean()  # half the radius: a quarter of the area
        assert abs(float(inner) - 0.25) < 0.03
