"""The vision transformer: its start, its map, its attention, pretrained weights for small images."""

import pytest
import torch
import torch.nn.functional as F

from crossclass import models
from crossclass.core.errors import UserError
from crossclass.models import ViT, vit
from crossclass.models.vit import adapted
from networks import IMAGES


def test_a_vit_starts_as_timms_and_refuses_what_does_not_fit():
    net = models.build(ViT(width=96, depth=2), IMAGES, 5, 0)
    for name, p in net.named_parameters():
        if name == "cls_token":
            assert 0 < p.abs().max() < 1e-5
        elif "norm" in name:
            assert (p == float(name.endswith("weight"))).all()
        elif name.endswith("bias") and "proj.bias" not in name.removeprefix("patch_embed."):
            assert (p == 0).all()
        elif (name.endswith("weight") and "patch" not in name) or name == "pos_embed":
            assert 0.018 < p.std() < 0.022, name
    with pytest.raises(UserError, match="images of 16x16, not 32x32"):
        net(torch.rand(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"model\.patch=5 does not divide"):
        models.build(ViT(patch=5), IMAGES, 5, 0)
    with pytest.raises(ValueError, match="cannot be shared by heads=5"):
        ViT(heads=5)


def test_a_vits_tokens_become_the_map_in_reading_order():
    net = models.build(ViT(width=12, depth=1), IMAGES, 5, 0)
    tokens = torch.randn(2, 17, 12)
    for u in range(4):
        for v in range(4):
            assert torch.equal(net.as_map(tokens)[:, :, u, v], tokens[:, 1 + 4 * u + v])


def test_a_ratio_of_whole_numbers_gives_a_whole_number_of_hidden_units():
    assert int(11 * (15 / 11)) == 14, "floating point alone loses one"
    net = ViT(width=11, heads=1, depth=1, mlp_ratio=15 / 11)(5, 3, (0.0,), (1.0,), 16)
    assert net.blocks[0].mlp.fc1.out_features == 15


def test_attention_in_bf16_on_a_cpu_is_attention() -> None:
    q, k, v = (torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    expected = (q.double() @ k.double().mT / 8**0.5).softmax(dim=-1) @ v.double()
    torch.testing.assert_close(vit._attend(q, k, v).double(), expected, rtol=0, atol=1e-6)
    low = vit._attend(*(t.bfloat16() for t in (q, k, v)))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), expected, rtol=0, atol=0.03)  # 8 bits of numbers up to 2


# Pretrained weights


def test_a_summed_kernel_sees_an_image_as_the_old_one_sees_it_enlarged():
    tensors = {"patch_embed.proj.weight": torch.randn(5, 3, 16, 16), "pos_embed": torch.randn(1, 197, 5)}
    kernel = adapted(tensors, 4, (14, 14))["patch_embed.proj.weight"]
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
    out = adapted(tensors, 4, (8, 8))
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
    assert torch.equal(adapted(tensors, 16, (14, 14))["pos_embed"], positions)
    assert torch.equal(
        adapted(tensors, 16, (14, 14))["patch_embed.proj.weight"], tensors["patch_embed.proj.weight"]
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
        adapted(tensors, patch, (8, 8))
