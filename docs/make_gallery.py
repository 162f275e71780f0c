"""Draws the pictures of gallery.md into docs/gallery: `python docs/make_gallery.py`, about a minute.

Some are of the run in examples/first_look.py, which is trained for it, the others of runs in results/mini.
"""

import csv
import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import crossclass as cc
from crossclass.analysis.records import EpochRow
from crossclass.analysis.run_record import RunRecord
from crossclass.core.yaml_reader import read_yaml

DOCS = Path(__file__).parent
STORED = DOCS.parent / "results" / "mini" / "runs"


@cache
def first_look() -> dict[str, Any]:
    """The names of the notebook after it has run."""
    return runpy.run_path(str(DOCS.parent / "examples" / "first_look.py"))


def stored(name: str) -> RunRecord:
    """A run whose measurements are kept without weights."""
    (folder,) = STORED.glob(f"{name}-*")
    with (folder / "metrics.csv").open() as file:
        rows = [
            EpochRow.model_validate({k: v or None for k, v in row.items()}) for row in csv.DictReader(file)
        ]
    for row in rows:  # a metric is a number, which CSV does not say
        for key, value in row.metrics.items():
            row.__pydantic_extra__[key] = None if value is None else float(value)
    config = read_yaml((folder / "config.yaml").read_text(), [], "config.yaml")
    env = json.loads((folder / "env.json").read_text())
    return RunRecord(folder, config, env, rows, cc.load_results(folder / "measure.json"), True)


def c_of_shapes() -> Any:
    """C of the notebook's network."""
    return cc.plot.matrix(first_look()["result"])


def images() -> Any:
    """Its images under the attack."""
    return cc.plot.images(first_look()["result"], n=6)


def c_of_cifar10() -> Any:
    """C of a network for CIFAR-10, similar classes side by side."""
    result = stored("wei2025-at-linf-8-mini-seed0").results.of("best.test")
    return cc.plot.matrix(result, order="similar")


def best_and_last() -> Any:
    """Two matrices side by side, in axes of one's own figure."""
    results = stored("wei2025-at-linf-8-mini-seed0").results
    figure = cc.plot.Figure(figsize=(6.75, 2.9), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), ("best.test", "last"), strict=True):
        cc.plot.matrix(results.of(name), numbers=False, ax=ax)
        ax.set_title(f"{name}: CAS {results.of(name)['cas']:.1f}", fontsize=8)
    return figure


def curves() -> Any:
    """Three seeds of one run: mean and band."""
    return cc.plot.curves([stored(f"wei2025-at-linf-8-mini-seed{seed}") for seed in range(3)])


def curves_of_eps() -> Any:
    """CAS of runs that differ in eps, three seeds each."""
    runs = {
        f"eps {eps}/255": [stored(f"wei2025-at-linf-{eps}-mini-seed{seed}") for seed in range(3)]
        for eps in (2, 6, 12)
    }
    return cc.plot.curves(runs, "cas")


PICTURES = {
    "c-shapes.svg": c_of_shapes,
    "images.svg": images,
    "c-cifar10.svg": c_of_cifar10,
    "best-last.svg": best_and_last,
    "curves.svg": curves,
    "cas-eps.svg": curves_of_eps,
}
"""Every picture by its file."""


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        cc.plot.save(draw(), DOCS / "gallery" / name)
