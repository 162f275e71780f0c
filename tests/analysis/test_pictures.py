"""The few images beside a result file: the right ones, small, and never needed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crossclass.analysis import evaluate, pictures
from crossclass.analysis.measure import Measure, evaluate_checkpoint, measurement
from crossclass.analysis.records import CheckpointRef, DataRef, Measurement, ResultFile
from crossclass.analysis.result_files import write_results
from crossclass.attacks import FGSM
from crossclass.checkpoints.load import Identity
from crossclass.core.runtime import Runtime
from crossclass.data import Shapes, Split, Splits, as_float
from crossclass.models import PreActResNet

CPU = Runtime(device="cpu")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Shapes(n_train=6, n_val=6, n_test=30)()


@pytest.fixture(scope="module")
def network(splits: Splits) -> torch.nn.Module:
    torch.manual_seed(0)
    return PreActResNet(width=4, normalise="none", stem_stride=2, blocks=(1, 1))(6, 3, (0.5,) * 3, (0.2,) * 3)


def test_the_images_are_the_first_of_each_class() -> None:
    labels = torch.tensor([2, 2, 0, 1, 0, 2])
    assert pictures.chosen(labels, 3).tolist() == [0, 2, 3]
    assert pictures.chosen(labels, 5).tolist() == [0, 1, 2, 3, 4]
    assert pictures.chosen(labels, 99).tolist() == list(range(6))


@pytest.mark.parametrize("batch", [7, 30])
def test_what_is_kept_is_what_was_judged(network, splits: Splits, batch: int) -> None:
    attack, part = FGSM(), splits.test
    keep = pictures.chosen(part.labels, 8)
    seen = evaluate.evaluate(network, part, attack, batch=batch, keep=keep)
    shown = pictures.pictures(seen, part, splits, 8)
    assert shown is not None
    assert shown.attacked is not None
    assert sorted(shown.labels) == shown.labels.tolist()
    wanted = keep[part.labels[keep].argsort(stable=True)]
    assert (torch.from_numpy(shown.images).permute(0, 3, 1, 2) == part.images[wanted]).all()
    assert (torch.from_numpy(shown.robust) == seen.robust[wanted]).all()
    whole = evaluate.evaluate(network, part, attack, batch=batch, keep=torch.arange(len(part)))
    assert torch.equal(whole.images[keep], seen.images)
    judged = (255 * whole.images[wanted]).round().byte().permute(0, 2, 3, 1).numpy()
    assert (shown.attacked == judged).all()
    step = np.abs(shown.attacked.astype(int) - shown.images).max()
    assert 0 < step <= 8  # 8/255
    assert evaluate.evaluate(network, part, attack).images is None


def record(shown: pictures.Pictures | None) -> Measurement:
    return Measurement(checkpoint=CheckpointRef(name="a"), data=DataRef(), pictures=shown)


def measured(network, splits: Splits, **settings) -> Measurement:
    how = Measure(batch=30, **settings)
    seen = evaluate_checkpoint(network, splits, FGSM(), how, CPU)
    who = Identity("a", "shapes", "net", {}, "a.pt", "0")
    return measurement(seen, who, splits, FGSM(), how)


def test_they_lie_beside_the_result_file_and_never_in_it(network, splits: Splits, tmp_path: Path) -> None:
    results = [measured(network, splits), record(None)]
    file = tmp_path / "m.json"
    write_results(file, ResultFile(results=results))
    pictures.write_pictures(file, [r.pictures for r in results])
    assert "pictures" not in json.loads(file.read_text())["results"][0]
    beside = tmp_path / "m-pictures.npz"
    assert beside.stat().st_size < 60_000
    one, nothing = pictures.load_pictures(file, 2)
    assert nothing is None
    assert one == results[0].pictures
    assert one is not None
    assert one.shows is not None  # the planted parts of Shapes
    assert [own.nonzero()[0].tolist() for own in one.shows] == Shapes().parts_of


def test_pictures_of_another_file_or_damaged_ones_are_left_out(network, splits, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    assert pictures.load_pictures(file, 1) == [None]
    results = [measured(network, splits)]
    write_results(file, ResultFile(results=results))
    pictures.write_pictures(file, [r.pictures for r in results])
    assert pictures.load_pictures(file, 1) != [None]
    content = (beside := tmp_path / "m-pictures.npz").read_bytes()
    for damaged in (b"", b"PK", content[: len(content) // 2], content[:-700] + bytes(700)):
        beside.write_bytes(damaged)
        assert pictures.load_pictures(file, 1) == [None]
    beside.write_bytes(content)
    file.write_text(file.read_text().replace('"a"', '"b"'))
    assert pictures.load_pictures(file, 1) == [None]


def test_none_are_kept_where_none_are_wanted(network, splits: Splits, tmp_path: Path) -> None:
    result = measured(network, splits, images=0)
    assert result.pictures is None
    pictures.write_pictures(tmp_path / "m.json", [result.pictures])
    assert not list(tmp_path.iterdir())
    assert len(measured(network, splits, images=3).pictures.labels) == 3


def test_large_images_are_reduced_and_fewer() -> None:
    images = torch.randint(0, 256, (6, 3, 96, 128), dtype=torch.uint8)
    assert pictures.room_for(images, 10) == 5  # of 48 x 64 pixels
    part = Split(images, torch.arange(6))
    kept = torch.arange(5)
    seen = evaluate.EvaluationPass(
        part.labels,
        part.labels,
        part.labels,
        torch.ones(6, 2),
        torch.ones(6, 2),
        0,
        as_float(images[:5]),
        kept,
    )
    empty = part.take(torch.arange(0))
    shown = pictures.pictures(seen, part, Splits(empty, empty, part, tuple("abcdef"), "x"), 10)
    assert shown is not None
    assert shown.images.shape == (5, 48, 64, 3)
    assert shown.reduced
    assert shown.attacked is None  # they were judged as they are


def test_none_are_written_beside_a_pipe(network, splits: Splits, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pictures.write_pictures(pipe, [measured(network, splits).pictures])
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]
