"""Images that are not square: every family is built, trained, saved, read and measured at their own size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crossclass import models
from crossclass.analysis.compare import saliency_between
from crossclass.analysis.evaluate import evaluate
from crossclass.analysis.measure import Measure, measure
from crossclass.analysis.saliency import grad_cam
from crossclass.attacks import PGD
from crossclass.checkpoints.card import load_checkpoint
from crossclass.checkpoints.load import Source, load_model
from crossclass.core.errors import UserError
from crossclass.data import Npz, Split, as_float
from crossclass.data.augment import Augment
from crossclass.models import Python, ResNet, ViT, recognize
from crossclass.models.reordered import Arrangement, Reordered
from crossclass.training.loop import train
from crossclass.training.recipes import AT
from crossclass.training.run import Run
from networks import BUILT_IN, THIN
from tiny_runs import CPU, TINY

pytestmark = pytest.mark.usefixtures("trusted")
IMAGES = torch.randint(0, 256, (8, 3, 16, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


CASES = [*BUILT_IN, Python(call="odd_states:flat"), Python(call="odd_states:Tokens")]


@pytest.fixture
def data(tmp_path: Path) -> Npz:
    g = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 9)):
        labels = np.arange(n) % 3
        images = g.integers(0, 120, (n, 16, 32, 3)) + (40 * labels)[:, None, None, None]
        np.savez(tmp_path / f"{part}.npz", images=images.astype(np.uint8), labels=labels)
    return Npz(path=tmp_path)


def small(data: Npz, **changes: object) -> Run:
    short = {"epochs": 1, "lr_milestones": (), "batch": 6, "checkpoint_every": 0}
    return TINY.replace(data=data, recipe=AT(attack=PGD(steps=1)), **short, **changes)


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_outputs_and_maps_have_the_shape_of_the_images(settings: models.AnyModel) -> None:
    net = models.build(settings.replace(normalise="data"), IMAGES, 3, 0).eval()
    x, y = as_float(IMAGES), torch.arange(8) % 3
    g, logits = net.outputs(x)
    assert logits.shape == (8, 3)
    torch.testing.assert_close(logits, g @ net.head.weight.T + net.head.bias, rtol=1e-4, atol=1e-4)
    maps = grad_cam(net, x, y)
    assert maps.shape[2] == 2 * maps.shape[1]
    assert float(maps.abs().max()) > 0


@pytest.mark.parametrize("settings", [THIN, ViT(patch=8, width=12, depth=1), *CASES[-2:]], ids=str)
def test_trained_saved_and_measured(settings: models.AnyModel, data: Npz, tmp_path: Path) -> None:
    folder = train(small(data, model=settings), tmp_path / "runs", "x", CPU)
    assert load_checkpoint(folder.checkpoint("last"))[1].size == (16, 32)
    network, _ = load_model(folder.checkpoint("last"))
    splits = data()
    right = (network(as_float(splits.test.images)).argmax(1) == splits.test.labels).double().mean()
    found = measure([f"{folder.path}@last"], Measure(attack=PGD(steps=1))).results[0]
    assert found["clean"] == pytest.approx(float(right))


def test_maps_are_drawn_at_the_size_of_the_images() -> None:
    split, nets = Split(IMAGES, torch.arange(8) % 3), []
    for seed in range(2):
        net = models.build(THIN.replace(normalise="none"), IMAGES, 3, seed).eval()
        judged = evaluate(net, split, None, keep=torch.arange(len(split)))
        nets.append((str(seed), net, replace(judged, robust=split.labels if seed == 0 else split.labels * 0)))
    found = saliency_between(nets[0], nets[1], split, ("a", "b", "c"), 2, "x")
    assert found is not None
    assert all(m.shape == (2, 16, 32) for m in found[1].maps.values())


def test_weights_alone_are_recognised_and_measured(data: Npz, tmp_path: Path) -> None:
    for settings in (ViT(patch=4, width=192, depth=1), ResNet(width=4, blocks=(1, 1), pool=4)):
        net = models.build(settings.replace(normalise="none"), IMAGES, 3, 0).eval()
        found = recognize(net.state_dict())
        assert found is not None
        assert (found.share, found.classes) == (1, 3)
        torch.save(
            {k: v for k, v in net.state_dict().items() if k not in ("mean", "std")}, tmp_path / "a.pth"
        )
        source = Source(data=data, changes={"model.normalise": "none"})
        right = (net(as_float(data().test.images)).argmax(1) == data().test.labels).double().mean()
        result = measure([str(tmp_path / "a.pth")], Measure(clean=True, check_inputs=False), source).results[
            0
        ]
        assert result["clean"] == pytest.approx(float(right))


def test_exchanged_sides_reach_the_network_as_they_are_wanted() -> None:
    net = models.build(THIN.replace(normalise="none"), IMAGES, 3, 0).eval()
    x = as_float(IMAGES)
    assert torch.equal(Reordered(net, Arrangement(transposed=True))(x), net(x.transpose(2, 3)))


def test_sentences_name_the_images_as_they_are() -> None:
    with pytest.raises(UserError, match="16x32"):
        models.build(ViT(patch=5, normalise="none"), IMAGES, 3, 0)
    with pytest.raises(UserError, match="16x32"):
        models.build(ResNet(width=4, blocks=(1, 1), pool=16, normalise="none"), IMAGES, 3, 0)
    with pytest.raises(UserError, match=r"\[2, 3, 16, 24\]"):
        models.build(Python(call="odd_states:flat"), IMAGES[..., :24], 3, 0)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_crops_stay_in_the_images(padding: str) -> None:
    out = Augment(crop=3, padding=padding, flip=False)(IMAGES, torch.Generator().manual_seed(0))
    shift = torch.randint(0, 7, (2, 8), generator=torch.Generator().manual_seed(0))
    mode = {"reflect": "reflect", "zero": "constant"}[padding]
    padded = nn.functional.pad(IMAGES.float(), (3, 3, 3, 3), mode=mode)
    for m, (a, b) in enumerate(shift.T.tolist()):
        assert torch.equal(out[m].float(), padded[m, :, a : a + 16, b : b + 32])
