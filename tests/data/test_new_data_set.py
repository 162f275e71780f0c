"""A new data set is one class: defined here, registered, and seen everywhere without further edits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from crossclass.cli import main
from crossclass.core.errors import UserError
from crossclass.core.plugins import family, register
from crossclass.data import AnyData, ArraySplit, Npz, Splits, Subset
from crossclass.models import PreActResNet, build, statistics
from crossclass.paper.runs import resolve
from crossclass.paper.sizes import shrink
from crossclass.training.run import Run
from run_file import TINY


class Stripes(Subset):
    """Noisy stripes of three widths."""

    kind: Literal["noisy_stripes"] = "noisy_stripes"
    n_val: int = 8

    statistics: ClassVar[Any] = ((0.5,), (0.4,))
    shape: ClassVar[Any] = (3, 12)
    mini: ClassVar[Any] = {"n_train": 10}
    patterns: ClassVar[tuple[str, ...]] = ("stripes-*",)

    def __call__(self) -> Splits:
        g = np.random.default_rng(0)
        labels = np.arange(48) % 3
        bright = (np.arange(12)[None, :] // (labels[:, None] + 1)) % 2
        images = bright[:, None, :, None] * 200 + g.integers(0, 40, (48, 12, 12, 1))
        whole = ArraySplit(images.astype(np.uint8), labels, ("thin", "middle", "wide"))
        tail = ArraySplit(whole.images[36:], whole.labels[36:], whole.class_names)
        return self.cut(whole.first(36), tail, "stripes")


@pytest.fixture
def registered() -> Iterator[None]:
    register(AnyData, Stripes)
    try:
        yield
    finally:
        family(AnyData).remove(Stripes)


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as e:
        main(arguments)
    assert not e.value.code, arguments


def test_its_attributes_are_used(registered: None, tmp_path: Path) -> None:
    assert statistics()["noisystripes"] == Stripes.statistics
    net = build(
        PreActResNet(width=4, blocks=(1,), normalise="noisystripes"),
        Stripes()().train.images,
        classes=3,
        seed=0,
    )
    assert torch.allclose(net.std.flatten(), torch.tensor([0.4]))
    assert shrink(Run(data=Stripes()), "mini").data == Stripes(n_train=10)
    (tmp_path / "stripes-1").touch()
    with pytest.raises(UserError, match=r"data\.kind=noisy_stripes"):
        Npz(path=tmp_path)()


def test_an_unknown_normalisation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"model\.normalise.*cifar10"):
        resolve("shapes-demo", {"model.normalise": "cifar-10"})


def test_it_is_listed_shown_trained_on_measured_and_printed_on_pages(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    call("list")
    assert "noisy_stripes" in {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    call("show", "noisy_stripes")
    assert "n_val: 8" in capsys.readouterr().out
    changes = ("data.kind=noisy_stripes", "model.normalise=noisystripes")
    call("show", "tiny.yaml", *changes)
    assert "kind: noisy_stripes" in capsys.readouterr().out
    call("train", "tiny.yaml", *changes, "out=runs")
    (run,) = Path("runs").iterdir()
    call("measure", str(run), "out=measured.json")
    text = Path("measured.json").read_text()
    assert Stripes()().checksum in text
    assert "noisy_stripes" in json.dumps(json.loads(text))
    for source in (str(run), "measured.json"):
        call("report", source, f"out={Path(source).stem}.html")
        assert "noisy_stripes" in Path(f"{Path(source).stem}.html").read_text()
