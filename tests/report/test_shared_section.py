"""The section about features on a run's page: its numbers, its links, and what it says without numbers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossclass.analysis.feature_pictures import FeaturePicture, load_feature_pictures, write_feature_pictures
from crossclass.report import write_report
from report_files import ATTACK, ENDS, EVIL, ROWS, measure, page_text, square, write_results, write_run

pytestmark = pytest.mark.usefixtures("undrawn")


def feature(k: int, a: float, b: float) -> dict[str, Any]:
    return {"k": k, "C": [a, b], "i": [0.5, 0.25], "j": [0.75, 0.125]}


def numbers(pairs: int = 3, more: int = 0) -> dict[str, Any]:
    where = [(0, 1), (0, 2), (3, 5), (1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)]
    own = [feature(17, 0.31, 0.07), feature(4, 0.21, 0.22)]
    lost = {"k": 17, "share": [2.61, 1.11], "lost": 1.53, "lost_interval": [1.25, 1.75]}
    return {
        "width": 128,
        "half": 9,
        "lost": 8.5,
        "changed_sign": 0.5,
        "features": [{**lost, "effective_classes": 3.4, "classes": [[0, 0.5, 0.25]]}],
        "pairs": [{"i": i, "j": j, "C": [0.4, 0.1], "features": own} for i, j in where[:pairs]],
        "more_pairs": more,
    }


def compared(**more: Any) -> dict[str, Any]:
    both = {"robust": [0.203, 0.061], "cas": [12.0, 3.0], "n": 1000, "split": "test", "attack": ATTACK}
    return {"comparison": {"a": "best.test", "b": "last", **both, **more}}


def page(tmp_path: Path, measures: list[Any], pictures: list[FeaturePicture] | None = None) -> str:
    run = write_run(tmp_path / "toy run", ROWS, measures)
    if pictures:
        write_feature_pictures(run / "measure.json", [pictures])
        assert load_feature_pictures(run / "measure.json", 0)
    return write_report([run], tmp_path / "page.html").read_text("utf-8")


def picture(k: int, of_class: int) -> FeaturePicture:
    images = np.full((2, 8, 8, 3), 99, dtype=np.uint8)
    maps = np.zeros((2, 2, 8, 8), dtype=np.uint8)
    return FeaturePicture((0, 1), k, of_class, images, maps, np.array([[0.62, 0.5], [0.31, 0.25]], "f4"))


def test_each_pair_has_its_features_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    html = page(tmp_path, [*ENDS, compared(features=numbers(10, more=7))], [picture(17, 0), picture(17, 1)])
    text = page_text(tmp_path / "page.html")
    assert "9 of 128 features carry half" in text
    assert "fell by 9.00" in text
    assert "0.310 → 0.070" in text
    assert "1.53" in text
    assert "[1.25, 1.75]" in text
    assert html.count('<img src="data:image/png') == 2
    assert "0.62, 0.50" in text
    links = set(re.findall(r'href="#(run-1-pair-[^"]*)"', html))
    ids = re.findall(r'id="(run-1-pair-[^"]*)"', html)
    assert len(ids) == len(set(ids)) == 10
    assert links
    assert links <= set(ids)
    assert '"pairs": [[0, 1], [0, 2]' in html  # what the cells of C lead to
    assert "'toy run'" in text  # commands can be pasted
    assert EVIL[0] not in html
    assert "7 more pairs share less" in text


def test_without_numbers_it_says_what_to_run(tmp_path: Path) -> None:
    page(tmp_path, [*ENDS, compared()])
    assert "crossclass features 'toy run'" in page_text(tmp_path / "page.html")


def test_where_best_is_last_there_is_nothing_to_compare(tmp_path: Path) -> None:
    page(tmp_path, [measure("best.val", 4, 0.2, 0.4), measure("last", 4, 0.2, 0.4)])
    text = page_text(tmp_path / "page.html")
    assert "nothing to compare" in text
    assert "crossclass features 'toy run'" in text


def test_a_run_in_progress_has_no_such_section(tmp_path: Path) -> None:
    write_report([write_run(tmp_path / "toy", ROWS)], tmp_path / "page.html")
    assert "What was shared, and forgotten" not in page_text(tmp_path / "page.html")


def test_classes_that_share_nothing(tmp_path: Path) -> None:
    nothing = {**numbers(0), "half": 0, "features": [], "lost": 0.0, "changed_sign": 0.0}
    page(tmp_path, [*ENDS, compared(features=nothing)])
    assert "no two classes share" in page_text(tmp_path / "page.html")


def test_a_result_of_measure_shows_it_too(tmp_path: Path) -> None:
    of = [
        {"checkpoint": "best.test", "run": "toy", "epoch": 2},
        {"checkpoint": "last", "run": "toy", "epoch": 4},
    ]
    ends = [{**one, "run": "toy"} for one in ENDS]
    file = write_results(tmp_path, [*ends, compared(features=numbers(), of=of, C_difference=square(6, 0.3))])
    text = page_text(write_report([file], tmp_path / "page.html"))
    assert "What was shared, and forgotten" in text
    assert "crossclass features toy 'pair=" in text
