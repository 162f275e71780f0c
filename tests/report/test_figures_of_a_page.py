"""What a page promises of its figures: words, a file of each, one attack at each number, few bytes."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossclass.analysis.class_order import by_similarity
from crossclass.report import write_report
from crossclass.report.packed import pack
from report_files import (
    CAS_NOTE,
    FOREIGN,
    Page,
    foreign,
    measure,
    row,
    visible_text,
    write_results,
    write_run,
)

OTHER = "PGD-20, l_inf 8/255, step eps/4"


def cosines(rng: np.random.Generator, K: int) -> list[list[float]]:
    z = rng.normal(size=(K, 12))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return (z @ z.T).round(6).tolist()


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """Line by line what the page's script does."""
    K, whole = packed["K"], np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), "<i2")
    entries = K * (K + 1) // 2 if packed["half"] else K * K
    frames = whole.reshape(-1, entries).astype(float)
    frames[frames == -32768] = np.nan
    out = np.empty((len(frames), K, K))
    for i in range(K):
        for j in range(K):
            a, b = (j, i) if packed["half"] and i > j else (i, j)
            out[:, i, j] = frames[:, a * K - a * (a - 1) // 2 + (b - a) if packed["half"] else a * K + b]
    return out / 10 ** packed["digits"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    names = [f"class {i}" for i in range(6)]
    rows = [row(e, 0.3 + 0.01 * e, 0.2, C=cosines(rng, 6)) for e in range(1, 5)]
    ends = [measure("best.val", 3, 0.4, 0.2), measure("last", 4, 0.3, 0.1)]
    check = "PGD-10, l_inf 8/255, step 0.25 eps, judged in fp32 on 100 test images"
    runs = [
        write_run(place / f"run-{lr}", rows, ends, class_names=names, label="toy", check=check)
        for lr in (1, 2)
    ]
    for folder, lr in zip(runs, (0.1, 0.5), strict=True):
        (folder / "config.yaml").write_text(
            f"epochs: 9\nlr: {lr}\nlr_milestones: [3]\nseed: 0\nrecipe: {{kind: at}}\n"
        )
    one, two = (write_results(place, [foreign(n, r, 0.4)], f"{n}.json") for n, r in (("a", 0.2), ("b", 0.3)))
    both = write_results(place, FOREIGN, "both.json")
    made = {"run": [runs[0]], "runs": runs, "one": [one], "different files": [one, two], "one file": [both]}
    return {k: write_report(v, place / f"{k.replace(' ', '-')}.html").read_text() for k, v in made.items()}


def figures(page: str) -> list[str]:
    return re.findall(r"<figure.*?</figure>", page, re.DOTALL)


@pytest.mark.parametrize("kind", ["run", "runs", "one", "different files", "one file"])
def test_every_figure_has_words_files_and_numbers(pages: dict[str, str], kind: str) -> None:
    page = pages[kind]
    ids = {attributes.get("id") for attributes in Page(page).all("script")}
    drawn = [f for f in figures(page) if "data:image/png;base64," not in f or "<svg" in f]
    assert len(drawn) >= 5
    for figure in drawn:
        inside = Page(figure)
        assert [b["data-kind"] for b in inside.all("button") if "data-kind" in b] == ["svg", "png", "csv"]
        assert inside.all("figure")[0]["data-save"]
        if "data-matrix" in figure:
            assert inside.all("canvas")[0]["aria-label"]
            continue
        assert all(a["aria-label"] for a in inside.all("div") if a.get("role") == "img")
        (table,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', figure, re.DOTALL)
        numbers = json.loads(table)
        if "of" in numbers:
            assert {at for at, _ in numbers["of"]} <= ids
        elif "packed" in numbers:
            assert unpacked(numbers["packed"]).shape == (1, 6, 6)
        else:
            assert all(len(cells) == len(numbers["columns"]) for cells in numbers["rows"])


@pytest.mark.parametrize("kind", ["run", "runs", "one", "different files", "one file"])
def test_the_caution_about_cas_stands_once(pages: dict[str, str], kind: str) -> None:
    assert visible_text(pages[kind]).count(CAS_NOTE) == 1


def test_every_tile_and_every_figure_names_its_attack(pages: dict[str, str]) -> None:
    page = pages["run"]
    under = [visible_text(t) for t in re.findall(r'<div class="tile-attack">(.*?)</div>', page, re.DOTALL)]
    assert len(under) == page.count('<div class="tile">') > 2
    assert {"PGD-20, l_inf 8/255; 1,000 test images", "no attack; 1,000 test images"} <= set(under)
    captions = [visible_text(c) for c in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)]
    of_both = [c for c in captions if c.startswith(("C at", "Robust accuracy per class", "Adversarial"))]
    assert len(of_both) == 5
    assert all("PGD-20, l_inf 8/255; 1,000 test images" in c for c in of_both)
    (curves,) = (c for c in captions if c.startswith("Accuracy and CAS over"))
    assert "PGD-10, l_inf 8/255; 100 test images" in curves
    assert "Of each check: PGD-10, l_inf 8/255; 100 test images" in visible_text(page)


def test_two_networks_of_different_files_are_one_comparison(pages: dict[str, str], tmp_path: Path) -> None:
    page = pages["different files"]
    text = visible_text(page)
    assert page.count("<article") == 1
    assert "<h1>a against b</h1>" in page
    assert "b against a: robust accuracy is higher by 10.0 points" in text
    assert "no interval of the differences was computed" in text.lower()
    unlike = [
        write_results(tmp_path, [foreign(name, 0.2, 0.4, attack=attack)], f"{name}.json")
        for name, attack in (("a", OTHER), ("b", "FGSM, l_inf 8/255"))
    ]
    apart = write_report(unlike, tmp_path / "apart.html").read_text()
    assert "is higher by" not in visible_text(apart)
    assert "different attacks" in visible_text(apart)
    assert apart.count("<article") == 2


def test_runs_are_named_by_what_differs(pages: dict[str, str]) -> None:
    heads = re.findall(r"<h1>(.*?)</h1>", pages["runs"])
    assert heads == ["toy: lr 0.1 against lr 0.5"]
    assert "lr 0.5 against lr 0.1: robust accuracy" in visible_text(pages["runs"])


def test_packed_matrices_are_the_matrices() -> None:
    rng = np.random.default_rng(1)
    C = [cosines(rng, 9) for _ in range(3)]
    C[1][2][3] = C[1][3][2] = None  # type: ignore[call-overload]
    found = pack(C)
    assert found["half"]
    wanted = np.array(C, dtype=float)
    assert np.allclose(unpacked(found), wanted, atol=5.1e-4, equal_nan=True)
    counts = rng.integers(0, 5000, (9, 9)).astype(float).tolist()
    found = pack([counts], 0)
    assert not found["half"]
    assert (unpacked(found)[0] == counts).all()


def test_similar_classes_stand_side_by_side() -> None:
    groups = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    C = np.where(groups[:, None] == groups, 0.8, -0.1)
    np.fill_diagonal(C, 1)
    order = by_similarity(C.tolist())
    assert sorted(order) == list(range(9))
    changes = np.diff(groups[order]) != 0
    assert changes.sum() == 2
    assert by_similarity([[1.0, None], [None, 1.0]]) == [0, 1]


def test_a_thousand_classes_stay_below_five_megabytes(tmp_path: Path) -> None:
    K, rng = 1000, np.random.default_rng(2)
    names = [f"class {i}" for i in range(K)]
    ends = [
        measure(name, epoch, 0.3, 0.1, K, C=cosines(rng, K), confusion=rng.poisson(0.03, (K, K)).tolist())
        for name, epoch in (("best.val", 1), ("last", 2))
    ]
    rows = [row(e, 0.3, 0.1, K, C=cosines(rng, K)) for e in (1, 2)]
    folder = write_run(tmp_path / "run", rows, ends, class_names=names)
    page = write_report([folder], tmp_path / "page.html")
    assert page.stat().st_size < 5_000_000
    html = page.read_text()
    assert html.count('<option value="class ') == K  # each can be searched for
    assert '<option value="similar">' in html
