"""Runs, records and data in one line, and results as HTML."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

import crossclass as cc
from crossclass.analysis.result_files import load_results
from report_files import (
    ENDS,
    EVIL,
    ROWS,
    Page,
    compared,
    foreign,
    square,
    visible_text,
    write_results,
    write_run,
)


@pytest.fixture
def results(tmp_path):
    return load_results(
        write_results(tmp_path, [foreign("one.pt", 0.203, 0.4), foreign("b", 0.061, 0.1), compared()])
    )


@pytest.fixture
def run(tmp_path):
    return cc.load_run(write_run(tmp_path / "toy", ROWS, ENDS))


def test_each_record_is_one_line_with_its_numbers(results, run):
    first, *_ = results.results
    for thing in (first, results.comparisons[0], run, run.rows[1], cc.Shapes(n_train=9, n_val=0, n_test=9)()):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 250
    for part in ("one.pt", "20.3%", "12.00", "1 warning", "1000 test images"):
        assert part in repr(first)
    assert "+14.2%" in repr(results.comparisons[0])
    assert "finished" in repr(run)
    assert "toy" in repr(run)
    assert "epoch=2" in repr(run.rows[1])
    assert repr(results).splitlines() == [repr(r) for r in (*results.results, *results.comparisons)]
    assert str(first) == repr(first)


def test_data_say_their_sizes():
    data = cc.Shapes(n_train=20, n_val=10, n_test=10, size=16)()
    assert "20 train, 10 val, 10 test" in repr(data)
    assert repr(data.train).startswith("<20 images of 16 x 16")


def test_a_notebook_shows_warnings_intervals_and_a_cell_for_each_entry(results):
    first = results.results[0]
    html = first._repr_html_()
    text = visible_text(html)
    assert "gradient masking?" in text
    assert "[18.3, 22.3]" in text
    assert text.count("0.40") == 30  # beside the diagonal
    page = Page(html)
    assert not page.all("script")
    assert not page.all("b")[1:]  # class names are text
    assert all(name in text for name in EVIL)
    both = visible_text(results._repr_html_())
    assert both.count("0.40") == both.count("0.10") == 30


def test_many_classes_are_a_picture_with_a_pixel_for_each(results):
    C = [[None if i == j == 0 else v for j, v in enumerate(row)] for i, row in enumerate(square(40, 0.5))]
    many = results.results[0].model_copy(update={"matrices": {"C": C}, "class_names": ["x"] * 40})
    (image,) = Page(many._repr_html_()).all("img")
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
    assert pixels.shape == (40, 40, 3)
    assert len({tuple(p) for p in pixels.reshape(-1, 3)}) == 3
    assert tuple(pixels[1, 1]) < tuple(pixels[1, 2])  # darker


def test_a_run_gives_its_columns_and_matrices_as_arrays(run):
    assert run["epoch"].tolist() == [1, 2, 3, 4]
    assert np.isnan(run["cas"]).tolist() == [False, False, True, False]
    assert run.C.shape == (4, 6, 6)
    assert np.isnan(run.C[2]).all()
    assert run.C[1, 0, 1] == pytest.approx(0.4)
    assert run.results.of("last").C.shape == (6, 6)
    with pytest.raises(cc.UserError, match="test_robust"):
        run["tst_robust"]
