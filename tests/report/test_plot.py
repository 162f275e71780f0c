"""`cc.plot`: sizes, numbers, names, order, files and axes of one's own."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import crossclass as cc
from crossclass.analysis.pictures import Pictures
from crossclass.analysis.result_files import load_results
from report_files import ROWS, foreign, row, write_results, write_run

C = np.array([[1, 0.1, 0.8], [0.1, 1, 0.2], [0.8, 0.2, 1]])
NAMES = ("cat", "ship", "dog")


def cells(ax):
    return [text.get_text() for text in ax.texts]


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_a_matrix_has_its_size_names_and_numbers():
    figure = cc.plot.matrix(C, NAMES)
    ax = figure.axes[0]
    assert figure.get_size_inches()[0] == 3.25
    assert names(ax) == list(NAMES)
    assert cells(ax)[:3] == ["1.00", "0.10", "0.80"]
    assert cc.plot.matrix(C, NAMES, width="page").get_size_inches()[0] == 6.75
    assert cc.plot.matrix(C, NAMES, width=5).get_size_inches()[0] == 5
    assert not cells(cc.plot.matrix(C, NAMES, numbers=False).axes[0])
    assert not cells(cc.plot.matrix(np.eye(13)).axes[0])
    assert len(cells(cc.plot.matrix(np.eye(13), numbers=True).axes[0])) == 13 * 13


def test_similar_classes_stand_side_by_side_with_their_numbers():
    ax = cc.plot.matrix(C, NAMES, order="similar").axes[0]
    at = names(ax)
    assert abs(at.index("cat") - at.index("dog")) == 1
    i, j = at.index("cat"), at.index("ship")
    assert cells(ax)[3 * i + j] == "0.10"


def test_a_result_file_of_one_measurement_is_drawn_like_it(tmp_path):
    path = write_results(tmp_path, [foreign("a.pt", 0.2, 0.4)])
    file = cc.load_results(path)
    (one,) = file.results
    assert np.array_equal(file.C, one.C)
    assert file["robust"] == one["robust"] == 0.2
    with pytest.raises(KeyError, match="did you mean 'robust'"):
        file["roust"]
    drawn = [cells(cc.plot.matrix(of).axes[0]) for of in (one, file, path, str(path))]
    assert drawn[0]
    assert drawn == [drawn[0]] * 4
    two = cc.load_results(write_results(tmp_path, [foreign("a.pt", 0.2, 0.4), foreign("b.pt", 0.1, 0.3)]))
    for refused in (lambda: cc.plot.matrix(two), lambda: two.C, lambda: two["robust"]):
        with pytest.raises(cc.UserError, match=r"a\.pt, b\.pt"):
            refused()


def test_it_draws_into_axes_that_are_given():
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert cc.plot.matrix(C, NAMES, ax=second) is figure
    assert cells(second)
    assert not cells(first)


def test_files_are_the_same_bytes_with_truetype_fonts(tmp_path):
    for name in ("C.pdf", "C.svg", "C.png"):
        one = cc.plot.save(cc.plot.matrix(C, NAMES), tmp_path / name).read_bytes()
        assert cc.plot.save(cc.plot.matrix(C, NAMES), tmp_path / name).read_bytes() == one
    cc.plot.matrix(C, NAMES).savefig(tmp_path / "own.pdf")
    for name in ("C.pdf", "own.pdf"):
        pdf = (tmp_path / name).read_bytes()
        assert b"/Type3" not in pdf
        assert b"/FontFile2" in pdf
    assert cc.plot.matrix(C)._repr_png_().startswith(b"\x89PNG")


def test_runs_that_differ_by_the_seed_are_a_mean_with_a_band(tmp_path):
    folders = []
    for seed, robust in ((0, 0.2), (1, 0.4)):
        rows = [row(1, robust, 0.1), row(2, robust + 0.1, 0.2)]
        folders.append(write_run(tmp_path / f"a{seed}", rows, seed=seed, label=f"toy-seed{seed}"))
        text = (folders[-1] / "config.yaml").read_text()
        (folders[-1] / "config.yaml").write_text(text.replace("seed: 0", f"seed: {seed}"))
    ax = cc.plot.curves(folders).axes[0]
    mean = ax.lines[0]
    assert mean.get_ydata().tolist() == pytest.approx([30, 40])  # percent
    assert len(ax.collections) == 1
    assert "robust accuracy (%)" in ax.get_ylabel()
    path = folders[1] / "config.yaml"
    path.write_text(path.read_text().replace("epochs: 9", "epochs: 8"))
    ax = cc.plot.curves([cc.load_run(folder) for folder in folders]).axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["epochs 9", "epochs 8"]
    assert not ax.collections
    ax = cc.plot.curves({"both": folders, "one": folders[0]}, "cas").axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["both", "one"]
    assert ax.lines[0].get_ydata()[1] == pytest.approx(6.0)  # no percent


def test_images_of_each_class_are_shown_first(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 250, (4, 8, 8, 3), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1])
    shown = Pictures(images, images + 3, labels, labels, 1 - labels)
    result = (
        load_results(write_results(tmp_path, [foreign("a.pt", 0.2, 0.4)]))
        .results[0]
        .model_copy(update={"pictures": shown, "class_names": ["a", "b"]})
    )
    figure = cc.plot.images(result, n=2)
    captions = [t.get_text() for t in figure.texts if "→" in t.get_text()]
    assert captions == ["a\n→ a, b", "b\n→ b, a"]
    assert len(figure.axes) == 6
    assert figure._repr_png_()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda run: cc.plot.matrix(C[:2]), "shape"),
        (lambda run: cc.plot.matrix(C, "ab"), "class_names"),
        (lambda run: cc.plot.matrix(C, width=0.1), "column"),
        (lambda run: cc.plot.curves(run, "robust"), "no column"),
        (lambda run: cc.plot.curves(run, "gradient_cosine"), "no epoch"),
        (lambda run: cc.plot.curves([]), "run"),
        (lambda run: cc.plot.save(cc.plot.matrix(C), "C.gif"), "pdf"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, call, word):
    run = write_run(tmp_path / "toy", ROWS)
    with pytest.raises(cc.UserError, match=word):
        call(run)
