"""Pretrained transformers: kernels and positions are adapted to small images, or refused."""

import pytest
import torch
import torch.nn.functional as F

from crossclass.core.errors import UserError
from crossclass.models.vit import adapted


def test_a_summed_kernel_sees_an_image_as_the_old_one_sees_it_enlarged():
    tensors = {"patch_embed.proj.weight": torch.randn(5, 3, 16, 16), "pos_embed": torch.randn(1, 197, 5)}
    kernel = adapted(tensors, 4, 14)["patch_embed.proj.weight"]
    x = torch.rand(2, 3, 8, 12)
    enlarged = x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    expected = F.conv2d(enlarged, tensors["patch_embed.proj.weight"], stride=16)
    assert torch.allclose(F.conv2d(x, kernel, stride=4), expected, atol=1e-4)


def test_positions_are_resized_bilinearly_and_the_class_token_stays():
    positions = torch.randn(1, 197, 5, dtype=torch.float64)
    tensors = {
        "patch_embed.proj.weight": torch.randn(5, 3, 16, 16),
        "pos_embed": positions,
        "x": torch.ones(1),
    }
    out = adapted(tensors, 4, 8)
    old, new = positions[0, 1:].view(14, 14, 5), out["pos_embed"][0, 1:].view(8, 8, 5)
    for u in range(8):
        for v in range(8):
            a, b = (u + 0.5) * 14 / 8 - 0.5, (v + 0.5) * 14 / 8 - 0.5
            i, j = int(a), int(b)
            s, t = a - i, b - j
            top = (1 - t) * old[i, j] + t * old[i, j + 1]
            below = (1 - t) * old[i + 1, j] + t * old[i + 1, j + 1]
            assert torch.allclose(new[u, v], (1 - s) * top + s * below)
    assert torch.equal(out["pos_embed"][:, 0], positions[:, 0])
    assert out["x"] is tensors["x"]
    assert torch.equal(adapted(tensors, 16, 14)["pos_embed"], positions)
    assert torch.equal(
        adapted(tensors, 16, 14)["patch_embed.proj.weight"], tensors["patch_embed.proj.weight"]
    )
    assert tensors["pos_embed"] is positions


@pytest.mark.parametrize(
    ("tensors", "patch", "words"),
    [
        ({}, 4, "lack 'patch_embed.proj.weight'"),
        ({"patch_embed.proj.weight": torch.ones(2, 3, 16, 16)}, 4, "lack 'pos_embed'"),
        (
            {"patch_embed.proj.weight": torch.ones(2, 3, 16, 16), "pos_embed": torch.ones(1, 5, 2)},
            3,
            "multiple",
        ),
        (
            {"patch_embed.proj.weight": torch.ones(2, 3, 16, 16), "pos_embed": torch.ones(1, 6, 2)},
            4,
            "square",
        ),
    ],
)
def test_weights_that_cannot_be_adapted_are_refused(tensors, patch, words):
    with pytest.raises(UserError, match=words):
        adapted(tensors, patch, 8)
