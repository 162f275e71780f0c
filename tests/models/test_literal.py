"""Models: each family computed again from its published names, slowly and in float64."""

import pytest
import torch
import torch.nn.functional as F

from crossclass.models import PreActResNet, ResNet, WideResNet
from networks import BUILT_IN, made


def bn(s, name, x):
    weight, bias, mean, var = (
        s[f"{name}.{k}"][:, None, None] for k in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def conv(s, name, x, stride=1):
    kernel = s[f"{name}.weight"]
    return F.conv2d(x, kernel, stride=stride, padding=(kernel.shape[-1] - 1) // 2)


def relu(x):
    return x.clamp(min=0)


def literal_preactresnet(s, x, settings, blocks):
    out = conv(s, "conv1", x, settings.stem_stride)
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            h = relu(bn(s, f"{name}.bn1", out))
            beside = out if settings.shortcut_input == "raw" else h
            short = conv(s, f"{name}.shortcut.0", beside, stride) if f"{name}.shortcut.0.weight" in s else out
            if settings.depth == 50:
                h = conv(s, f"{name}.conv1", h)
                h = conv(s, f"{name}.conv2", relu(bn(s, f"{name}.bn2", h)), stride)
                h = conv(s, f"{name}.conv3", relu(bn(s, f"{name}.bn3", h)))
            else:
                h = conv(s, f"{name}.conv1", h, stride)
                h = conv(s, f"{name}.conv2", relu(bn(s, f"{name}.bn2", h)))
            out = h + short
    return (relu(bn(s, "bn", out)) if settings.last_norm else out).mean(dim=(2, 3))


def literal_resnet(s, x, settings, blocks):
    out = relu(bn(s, "bn1", conv(s, "conv1", x, settings.stem_stride)))
    for stage, count in enumerate(blocks):
        for i in range(count):
            name, stride, short = f"layer{stage + 1}.{i}", 2 if stage and not i else 1, out
            if f"{name}.shortcut.0.weight" in s:
                short = bn(s, f"{name}.shortcut.1", conv(s, f"{name}.shortcut.0", out, stride))
            if settings.depth == 50:
                h = relu(bn(s, f"{name}.bn1", conv(s, f"{name}.conv1", out)))
                h = relu(bn(s, f"{name}.bn2", conv(s, f"{name}.conv2", h, stride)))
                h = bn(s, f"{name}.bn3", conv(s, f"{name}.conv3", h))
            else:
                h = relu(bn(s, f"{name}.bn1", conv(s, f"{name}.conv1", out, stride)))
                h = bn(s, f"{name}.bn2", conv(s, f"{name}.conv2", h))
            out = relu(h + short)
    return (
        out.mean(dim=(2, 3)) if settings.pool == "mean" else F.avg_pool2d(out, settings.pool).view(len(x), -1)
    )


def literal_wideresnet(s, x, count):
    out = conv(s, "conv1", x)
    for group in (1, 2, 3):
        for i in range(count):
            name, stride = f"block{group}.layer.{i}", 2 if group > 1 and not i else 1
            h = relu(bn(s, f"{name}.bn1", out))
            short = conv(s, f"{name}.convShortcut", h, stride) if f"{name}.convShortcut.weight" in s else out
            h = conv(s, f"{name}.conv2", relu(bn(s, f"{name}.bn2", conv(s, f"{name}.conv1", h, stride))))
            out = short + h
    return relu(bn(s, "bn1", out)).mean(dim=(2, 3))


def layer_norm(s, name, x):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
    return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]


def linear(s, name, x):
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def literal_vit(s, x, settings):
    p, d = settings.patch, settings.width // settings.heads
    rows = []
    for image in x:
        tokens = [s["cls_token"][0, 0]]
        for u in range(0, x.shape[2], p):
            for v in range(0, x.shape[3], p):
                cell = image[:, u : u + p, v : v + p]
                kernel, bias = s["patch_embed.proj.weight"], s["patch_embed.proj.bias"]
                tokens.append((kernel * cell).sum(dim=(1, 2, 3)) + bias)
        t = torch.stack(tokens) + s["pos_embed"][0]
        for i in range(settings.depth):
            name = f"blocks.{i}"
            q, k, v = linear(s, f"{name}.attn.qkv", layer_norm(s, f"{name}.norm1", t)).chunk(3, dim=1)
            heads = []
            for h in range(settings.heads):
                part = slice(h * d, (h + 1) * d)
                scores = torch.exp(q[:, part] @ k[:, part].T / d**0.5)
                heads.append(scores / scores.sum(dim=1, keepdim=True) @ v[:, part])
            t = t + linear(s, f"{name}.attn.proj", torch.cat(heads, dim=1))
            h = linear(s, f"{name}.mlp.fc1", layer_norm(s, f"{name}.norm2", t))
            t = t + linear(s, f"{name}.mlp.fc2", h * 0.5 * (1 + torch.erf(h / 2**0.5)))
        rows.append(layer_norm(s, "norm", t)[0])
    return torch.stack(rows)


def literal(settings, s, x):
    if isinstance(settings, PreActResNet):
        return literal_preactresnet(s, x, settings, settings.blocks)
    if isinstance(settings, ResNet):
        return literal_resnet(s, x, settings, settings.blocks)
    if isinstance(settings, WideResNet):
        return literal_wideresnet(s, x, (settings.depth - 4) // 6)
    return literal_vit(s, x, settings)


@pytest.mark.parametrize(
    "settings",
    [*BUILT_IN, WideResNet(depth=16, widen=2), ResNet(width=3, stem=5, stem_stride=2, blocks=(2, 1, 1))],
    ids=str,
)
def test_features_equal_the_literal_version(settings):
    net = made(settings, size=32).double()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = literal(settings, dict(net.state_dict()), net.normalise(x))
    assert torch.allclose(net.features(x), expected, rtol=1e-9, atol=1e-11)
