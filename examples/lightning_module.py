"""crossclass inside Lightning: python examples/lightning_module.py DIR [EPOCHS]; `pip install lightning`.

The attack and the metrics are ordinary objects; Lightning sums the metrics over processes and logs them.
"""

import sys

import lightning
import torch
from plain_loop import CLASSES, WIDTH, network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import crossclass as cc


class Robust(lightning.LightningModule):
    """PGD-7 AT, with CAS and class-wise robust accuracy of every validation epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.attack = network(), cc.PGD(steps=7)
        self.cas = cc.CAS(num_classes=CLASSES, num_features=WIDTH)
        self.classwise = cc.ClasswiseAccuracy(num_classes=CLASSES)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss at the worst images that the attack finds."""
        x, y = batch
        return nn.functional.cross_entropy(self.net(self.attack(self.net, x, y)), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Lightning validates without gradients; the attack takes its own."""
        x, y = batch
        features = self.net[:-1](self.attack.replace(steps=20)(self.net, x, y))
        head = self.net[-1]
        self.cas.update(features, y, head.weight.detach())
        self.classwise.update(head(features).argmax(dim=1), y)
        self.log("cas", self.cas, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Per class: what Lightning's log cannot hold as one number."""
        print("robust accuracy per class:", [round(v, 3) for v in self.classwise.compute().tolist()])
        self.classwise.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As everyone does."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def main(folder: str, epochs: int = 3) -> None:
    """Fit."""
    splits = cc.Npz(path=folder)()
    loaders = [
        DataLoader(TensorDataset(part.images / 255, part.labels), batch_size=64, shuffle=part is splits.train)
        for part in (splits.train, splits.test)
    ]
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, accelerator="cpu"
    )
    trainer.fit(Robust(), *loaders)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
