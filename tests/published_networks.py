"""Names and shapes of published networks, as their files have them."""

from itertools import pairwise

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, n: int) -> Shapes:
    """Batch norm."""
    return {f"{name}.{k}": (n,) for k in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def official_preactresnet18(width: int = 64, classes: int = 10) -> Shapes:
    """PKU-ML/Cross-Class-Features-AT, locuslab/robust_overfitting, P2333/Bag-of-Tricks-for-AT, AWP."""
    shapes: Shapes = {"conv1.weight": (width, 3, 3, 3), **norm("bn", 8 * width)}
    shapes |= {"linear.weight": (classes, 8 * width), "linear.bias": (classes,)}
    for stage, (a, b) in enumerate(pairwise(width * n for n in (1, 1, 2, 4, 8)), 1):
        for i in range(2):
            name, inputs = f"layer{stage}.{i}", a if i == 0 else b
            shapes |= {**norm(f"{name}.bn1", inputs), **norm(f"{name}.bn2", b)}
            shapes |= {f"{name}.conv1.weight": (b, inputs, 3, 3), f"{name}.conv2.weight": (b, b, 3, 3)}
            if inputs != b:
                shapes[f"{name}.shortcut.0.weight"] = (b, inputs, 1, 1)
    return shapes


def without_last_norm(width: int = 64) -> Shapes:
    """RobustBench's Wong2020Fast, Andriushchenko2020Understanding and Kireev2021Effectiveness."""
    return {n: s for n, s in official_preactresnet18(width).items() if not n.startswith("bn.")}


def official_gradalign(width: int = 64) -> Shapes:
    """tml-epfl/understanding-fast-adv-training: no last batch norm, the first layers under a second name."""
    return without_last_norm(width) | {
        "model_preact_hl1.1.weight": (width, 3, 3, 3),
        **norm("model_preact_hl1.2", width),
    }


def official_resnet(
    blocks: tuple[int, ...],
    width: int = 64,
    classes: int = 10,
    features: int | None = None,
    short: str | None = "shortcut",
    head: str = "linear",
    kernel: int = 3,
) -> Shapes:
    """kuangliu/pytorch-cifar and PKU-ML; torchvision's names with short="downsample", head="fc"."""
    shapes, inputs = {"conv1.weight": (width, 3, kernel, kernel), **norm("bn1", width)}, width
    for stage, count in enumerate(blocks, 1):
        b = width * 2 ** (stage - 1)
        for i in range(count):
            name = f"layer{stage}.{i}"
            shapes |= {**norm(f"{name}.bn1", b), **norm(f"{name}.bn2", b)}
            shapes |= {f"{name}.conv1.weight": (b, inputs, 3, 3), f"{name}.conv2.weight": (b, b, 3, 3)}
            if inputs != b and short:
                shapes |= {f"{name}.{short}.0.weight": (b, inputs, 1, 1), **norm(f"{name}.{short}.1", b)}
            inputs = b
    return shapes | {f"{head}.weight": (classes, features or inputs), f"{head}.bias": (classes,)}


def official_wideresnet(depth: int, widen: int, unused: bool = True) -> Shapes:
    """yaodongyu/TRADES, with a group that its forward pass never enters; MART saves without it."""
    shapes: Shapes = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 64 * widen)}
    shapes |= {"fc.weight": (10, 64 * widen), "fc.bias": (10,)}
    groups = {"block1": (16, 16), "block2": (16 * widen, 32), "block3": (32 * widen, 64)}
    groups |= {"sub_block1": (16, 16)} if unused else {}
    for group, (a, b) in groups.items():
        for i in range((depth - 4) // 6):
            name, outputs, inputs = f"{group}.layer.{i}", b * widen, a if i == 0 else b * widen
            shapes |= {**norm(f"{name}.bn1", inputs), **norm(f"{name}.bn2", outputs)}
            shapes[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            if inputs != outputs:
                shapes[f"{name}.convShortcut.weight"] = (outputs, inputs, 1, 1)
    return shapes


def official_deit(
    width: int = 192, depth: int = 12, patch: int = 4, grid: int = 8, classes: int = 10
) -> Shapes:
    """timm's DeiT."""
    shapes: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + grid**2, width)}
    shapes |= {"head.weight": (classes, width), "head.bias": (classes,)}
    shapes |= {"patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(depth):
        for name, (a, b) in layers.items():
            shapes[f"blocks.{i}.{name}.weight"] = (a * width, b * width)
            shapes[f"blocks.{i}.{name}.bias"] = (a * width,)
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (width,), f"blocks.{i}.{name}.bias": (width,)}
    return shapes
