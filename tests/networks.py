"""Small networks of every family, and how many parameters one has."""

import torch

from crossclass import models
from crossclass.models import PreActResNet, ResNet, ViT, WideResNet

IMAGES = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


THIN = PreActResNet(width=4, stem=4, stem_stride=2, blocks=(1, 1))


SMALL = {
    "preactresnet": THIN,
    "resnet": ResNet(width=4, blocks=(1, 2)),
    "wideresnet": WideResNet(depth=10, widen=1),
    "vit": ViT(width=12, depth=2, heads=3),
}


STRIDED = ResNet(width=4, blocks=(1, 1), stem=4, stem_stride=2, pool=4)


RAW = THIN.replace(last_norm=False, shortcut_input="raw")
"""As in tml-epfl/understanding-fast-adv-training."""
BUILT_IN = [*SMALL.values(), ResNet(width=2, depth=50, blocks=(1, 1), pool=4), THIN.replace(depth=50), RAW]


FOREIGN = {"python", "timm", "torchvision", "hf"}


def made(settings, size=16, classes=5, channels=3, seed=0):
    """A net whose norms have seen something, in eval mode."""
    images = IMAGES[:, :channels].repeat(1, 1, size // 16, size // 16)
    net = models.build(settings.replace(normalise="data"), images, classes, seed)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, t in net.state_dict().items():
            if name.endswith("running_var"):
                t.copy_(0.5 + torch.rand(t.shape, generator=g))
            elif name not in ("mean", "std") and t.is_floating_point() and t.ndim <= 1:
                t.add_(0.3 * torch.randn(t.shape, generator=g))
        if isinstance(settings, ViT):
            net.cls_token.add_(torch.randn(net.cls_token.shape, generator=g))
    return net.eval()


def parameters(settings, classes=10, size=32):
    with torch.device("meta"):
        net = settings(classes, 3, (0.0,), (1.0,), size)
    return net, sum(p.numel() for p in net.parameters())
