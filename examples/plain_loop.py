"""crossclass inside a plain PyTorch loop: python examples/plain_loop.py DIR [EPOCHS].

DIR holds train.npz and test.npz. Your network, your optimizer, your loop; from crossclass come the attack,
the metrics, and at the end a file that
`crossclass measure net.safetensors model=python:plain_loop:network model.normalise=none data.path=DIR` reads.
"""

import sys

import torch
from safetensors.torch import save_file
from torch import nn

import crossclass as cc
from crossclass.data import Split

WIDTH, CLASSES, BATCH = 32, 10, 64


def network() -> nn.Module:
    """Any network from images in [0, 1] to logits that ends in one linear layer."""
    return nn.Sequential(
        *(nn.Conv2d(3, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH), nn.ReLU()),
        *(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, CLASSES)),
    )


def main(folder: str, epochs: int = 3) -> None:
    """Train by PGD-7 AT, and watch CAS and robust accuracy on test images."""
    splits = cc.Npz(path=folder)()
    net, crop, attack = network(), cc.Augment(), cc.PGD(steps=7)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    random = torch.Generator().manual_seed(0)
    for epoch in range(1, epochs + 1):
        net.train()
        for index in torch.randperm(len(splits.train), generator=random).split(BATCH):
            x = crop(splits.train.images[index], random) / 255
            y = splits.train.labels[index]
            x_adv = attack(net, x, y, random)  # the network's mode, statistics and gradients stay as they are
            loss = nn.functional.cross_entropy(net(x_adv), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: {tested(net, splits.test)}", flush=True)
    save_file(net.state_dict(), "net.safetensors")


def tested(net: nn.Sequential, split: Split) -> str:
    """Robust accuracy and CAS under PGD-20, in float32."""
    net.eval()
    cas, right = cc.CAS(num_classes=CLASSES, num_features=WIDTH), 0
    for x, y in zip((split.images / 255).split(250), split.labels.split(250), strict=True):
        x_adv = cc.PGD(steps=20)(net, x, y, torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = net[:-1](x_adv)
            right += int((net[-1](features).argmax(dim=1) == y).sum())
        cas.update(features, y, net[-1].weight.detach())
    return f"robust accuracy {right / len(split):.1%}, CAS {cas.compute():.2f}"


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
