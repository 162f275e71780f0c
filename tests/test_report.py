"""The page: right sentences, every name escaped, nothing loaded from outside, no file half-written."""

import base64
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from crossclass import plot
from crossclass.errors import UserError
from crossclass.report import finding, write_report
from crossclass.report.words import moved, span

EVIL = ["<script>alert(1)</script>", "</script>", "a & b", '" onload="x', "$x^$", "类"]
ATTACK = "PGD-20, l_inf 8/255, step eps/4, uniform start"
CAS_NOTE = "Read CAS together with accuracy"


def square(K: int, off: float) -> list[list[float]]:
    return [[1.0 if i == j else off for j in range(K)] for i in range(K)]


def row(epoch: int, robust: float | None, off: float | None, K: int = 6, **more: Any) -> dict[str, Any]:
    nothing = ("cas", "classwise_robust", "predicted_classes", "C", "test_clean")
    at: dict[str, Any] = dict.fromkeys(nothing)
    if off is not None:
        at = {"cas": K * (K - 1) * off, "classwise_robust": [robust] * K, "predicted_classes": K}
        at |= {"C": square(K, off), "test_clean": 0.5}
    logged = {"lr": 0.1 if epoch < 3 else 0.01, "seconds": 2.0, "train_robust": 0.2 + 0.1 * epoch}
    return {"epoch": epoch, "test_robust": robust, "warnings": [], **logged, **at, **more}


def made(folder: Path, rows: list[dict[str, Any]], measures: Any = None, **env: Any) -> Path:
    """A run folder as training leaves it; without measures it is still in progress."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("epochs: 9\ndrops: [3]\nseed: 0\nrecipe: {kind: at}\n")
    (folder / "events.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "metrics.csv").write_text("epoch,cas\n1,2\n")
    about = {"label": "toy", "seed": 0, "check": "PGD-10, 100 test images", "crossclass": "0.1.0"}
    (folder / "env.json").write_text(json.dumps({**about, "class_names": EVIL, **env}))
    if measures is not None:
        (folder / "measure.json").write_text(json.dumps(measures))
        (folder / "DONE").touch()
    return folder


def measure(name: str, epoch: int, robust: float, off: float, K: int = 6, **more: Any) -> dict[str, Any]:
    how: dict[str, Any] = {"data": "toy", "split": "test", "n": 1000, "attack": ATTACK}
    how["chosen_by"] = name.partition(".")[2] or None
    how["conditions"] = {"eps": "8/255", "steps": 20, "seed": 5, "precision": "fp32"}
    numbers: dict[str, Any] = {"clean": 0.5, "robust": robust, "C": square(K, off)}
    numbers["classwise_robust"] = [robust] * K
    numbers |= {"cas": K * (K - 1) * off, "cas_normalised": off, "negative_mass": 0.0}
    numbers |= {"confusion": [[i + j for j in range(K)] for i in range(K)], "warnings": ["gradient masking?"]}
    return {"checkpoint": name, "epoch": epoch, **how, **numbers, **more}


ROWS = [row(1, 0.1, 0.2), row(2, 0.3, 0.4, warnings=["<b>alarm</b>"]), row(3, None, None), row(4, 0.1, 0.1)]
ENDS = [
    measure("best.test", 2, 0.203, 0.4, truth={"sharing": [[1] * 6] * 6, "auc": 0.93}),
    measure("last", 4, 0.061, 0.1),
]


class Page(HTMLParser):
    """The tags and attributes a browser would see, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data if self.tags and self.tags[-1] not in ("script", "style") else ""


def words(path: Path) -> str:
    return " ".join(Page(path.read_text()).text.split())


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = made(tmp_path_factory.mktemp("runs") / "toy-1", ROWS, ENDS, settings_changed={"lr": [0.1, None]})
    return write_report([folder], folder / "report.html").read_text()


def test_names_cannot_break_out(html: str) -> None:
    page = Page(html)
    assert page.tags.count("script") == 2  # the data and ours, whatever the classes are called
    assert "<script>alert" not in html
    assert "<b>alarm" not in html
    assert "&lt;b&gt;alarm" in html
    assert "onload" not in [name for name, _ in page.attributes]
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["names"] == EVIL


def test_nothing_is_loaded_from_outside(html: str) -> None:
    page = Page(html)
    urls = [v or "" for k, v in page.attributes if k in ("src", "href", "xlink:href", "action", "poster")]
    assert urls
    assert all(u.startswith(("data:", "#")) for u in urls), urls
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert "@import" not in html


def test_every_number_has_its_conditions(html: str) -> None:
    text = " ".join(Page(html).text.split())
    for said in (ATTACK, "n = 1,000", "seed 5", "fp32", "PGD-10, 100 test images", "finished", "not set"):
        assert said in text, said
    assert "chosen on the test set itself" in text
    assert text.count(CAS_NOTE) >= 5
    assert "AUC 0.93" in text
    assert "gradient masking?" in text
    assert "142 of 1,000 images fewer" in text


@pytest.mark.parametrize(
    ("best", "last", "by", "done", "said"),
    [
        ((10, 0.203, 12.7), (60, 0.061, 2.8), "test", True,
         "peaked at 20.3 % in epoch 10 and ended at 6.1 % in epoch 60; CAS went from 12.7 to 2.8."),
        ((10, 0.203, 12.7), (60, 0.25, 13.5), "val", True,
         "was 20.3 % in epoch 10, the best by validation, and did not fall: it ended at 25.0 % in epoch 60; "
         "CAS did not fall: 12.7 to 13.5."),
        ((10, 0.203, None), (20, 0.1, None), "test", False,
         "peaked at 20.3 % in epoch 10 and stands at 10.0 % in epoch 20 so far; CAS was not measured."),
        ((9, 0.2, 5.0), (9, 0.2, 5.0), "val", True,
         "is 20.0 % in epoch 9, the best by validation and the last one checked; CAS there is 5.0."),
    ],
)  # fmt: skip
def test_finding(best: tuple[Any, ...], last: tuple[Any, ...], by: str, done: bool, said: str) -> None:
    keys = ("epoch", "robust", "cas")
    ends = {k: dict(zip(keys, v, strict=True)) for k, v in (("best", best), ("last", last))}
    sentence = finding({**ends, "by": by, "split": "test"}, done).replace("\u00a0", " ")
    assert sentence == f"Test robust accuracy {said}"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their figures, for the tests that only read."""
    nothing = plot.matrix([[1.0]], ["a"])
    for name in ("curves", "matrix", "difference"):
        monkeypatch.setattr(plot, name, lambda *_, **__: nothing)
    monkeypatch.setattr(plot, "svg", lambda _: "<svg></svg>")


@pytest.mark.usefixtures("undrawn")
def test_a_small_loss_is_not_oversold(tmp_path: Path) -> None:
    ends = [measure("best.val", 2, 0.210, 0.4), measure("last", 4, 0.205, 0.1)]
    text = words(write_report([made(tmp_path / "a", ROWS, ends)], tmp_path / "a.html"))
    assert "1,000 images cannot tell this loss of accuracy from chance" in text


@pytest.mark.usefixtures("undrawn")
def test_best_and_last_are_compared_under_the_same_attack_only(tmp_path: Path) -> None:
    ends = [measure("best.val", 2, 0.9, 0.4, attack="none"), measure("last", 4, 0.1, 0.1)]
    text = words(write_report([made(tmp_path / "a", ROWS, ends)], tmp_path / "a.html"))
    assert "90.0 %" in text  # in the table of evaluations
    assert "peaked at 30.0 % in epoch 2" in text  # but judged by the checks of the epochs
    assert "(from events.jsonl)" in text


@pytest.mark.usefixtures("undrawn")
def test_in_progress(tmp_path: Path) -> None:
    going = made(tmp_path / "going", ROWS)
    with open(going / "events.jsonl", "a") as file:
        file.write('{"epoch": 5, "cas"')  # being written just now
    (going / "metrics.csv").unlink()
    (going / "env.json").write_text("{}")
    text = words(write_report([going], tmp_path / "new" / "page.html"))
    assert "in progress: epoch 4 of 9" in text
    assert "so far" in text
    assert "metrics.csv" not in text


def test_a_folder_with_hardly_anything(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "events.jsonl").write_text('{"epoch": 1}\n')
    assert "No epoch has been checked" in words(write_report([bare], tmp_path / "bare.html"))


def test_several_runs(tmp_path: Path) -> None:
    runs = [made(tmp_path / f"toy-{s}", ROWS, ENDS, seed=s, label=f"toy-seed{s}") for s in (0, 1)]
    page = write_report([*runs, runs[0]], tmp_path).read_text()
    text = " ".join(Page(page).text.split())
    assert "2 runs side by side" in text
    assert "toy, seed 1" in text
    assert "toy (mean of 2 seeds, band: all)" in text
    ids = [v for k, v in Page(page).attributes if k == "id" and v and v.startswith(("run-", "data-"))]
    assert sorted(ids) == ["data-1", "data-2", "run-1", "run-2"]


@pytest.mark.usefixtures("undrawn")
def test_a_hundred_classes(tmp_path: Path) -> None:
    K = 100
    rows = [row(e, 0.2, e / 100, K) for e in range(1, 61)]
    folder = made(tmp_path / "big", rows, class_names=[f"class {i}" for i in range(K)])
    page = write_report([folder], tmp_path / "big.html")
    assert page.stat().st_size < 3e6


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("events.jsonl", "", "no epochs yet; train it"),
        ("events.jsonl", '{"epoch": 1}\n{"epoch"\n', "events.jsonl, line 2: not an epoch"),
        ("events.jsonl", '{"epoch": 1, "cas": "high"}\n', "line 1: not an epoch of a run \\('cas' is not"),
        ("events.jsonl", '{"epoch": 1, "C": [[1, 0]]}\n', "line 1: .*not a square matrix"),
        ("events.jsonl", '["epoch"]\n', "line 1: .*no whole number 'epoch'"),
        ("measure.json", "[", "measure.json: not valid JSON"),
        ("measure.json", "{}", "measure.json: not what a run writes"),
        ("config.yaml", "a: [", "config.yaml: not valid YAML"),
    ],
)
def test_errors_in_one_sentence(tmp_path: Path, name: str, content: str, said: str) -> None:
    folder = made(tmp_path / "run", ROWS, ENDS)
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=said):
        write_report([folder], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_errors_about_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        write_report([tmp_path / "none"], tmp_path / "page.html")
    with pytest.raises(UserError, match="not a run folder"):
        write_report([tmp_path], tmp_path / "page.html")
    made(tmp_path / "run", ROWS)
    with pytest.raises(UserError, match=r"give such as .*run"):
        write_report([tmp_path], tmp_path / "page.html")
    with pytest.raises(UserError, match="no run folder was given"):
        write_report([], tmp_path / "page.html")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write_report([tmp_path / "run"], tmp_path / "file" / "page.html")


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = made(tmp_path / "run", ROWS), tmp_path / "pages" / "page.html"
    out.parent.mkdir()
    out.write_text("old")

    def fail(*_: object) -> str:
        raise RuntimeError("no figure today")

    monkeypatch.setattr(plot, "svg", fail)
    with pytest.raises(RuntimeError):
        write_report([folder], out)
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pages", "run"]
    assert out.read_text() == "old"


def test_figures_are_deterministic(tmp_path: Path) -> None:
    def drawn() -> list[str]:
        several = plot.curves({"a seed 0": ROWS, "a seed 1": ROWS, "b": ROWS[:2]})
        one, C = plot.curves({"a": ROWS}, {"a": [3]}), plot.matrix(square(6, 0.1), EVIL)
        minus = plot.difference([[0.0, None], [-0.3, 0.0]], ["a", "b"])
        return [plot.svg(figure) for figure in (several, one, C, minus)]

    first = drawn()
    assert first == drawn()
    assert all(ElementTree.fromstring(s).tag.endswith("}svg") for s in first)
    assert all("<style" not in s and "<metadata" not in s for s in first)
    ids = [set(re.findall(r'\bid="([^"]*)"', s)) for s in first]
    assert not ids[0] & ids[1]
    figure = plot.curves({"a": ROWS}, {"a": [3]})
    assert plot.svg(figure) == plot.svg(figure)
    assert "lr /10" in first[1]
    for kind in ("svg", "png", "pdf"):
        assert plot.save(figure, tmp_path / f"f.{kind}").stat().st_size > 1000
    assert len(list(tmp_path.iterdir())) == 3


def test_the_best_epoch_is_chosen_by_validation_where_there_is_any() -> None:
    assert plot.chosen(ROWS) == (2, "test")
    assert plot.chosen([*ROWS, row(5, 0.0, 0.1, val_robust=0.1)]) == (5, "val")
    assert plot.chosen([{"epoch": 1}]) is None
    assert plot.points(ROWS, "cas")[-1][0] == 4


def test_an_epoch_of_few_classes_does_not_flatten_cas() -> None:
    rows = [row(1, 0.1, 0.99, predicted_classes=1), *(row(e, 0.2, 0.1) for e in range(2, 6))]
    figure = plot.curves({"a": rows})
    assert figure.axes[1].get_ylim()[1] < 10
    assert "few classes predicted" in plot.svg(figure)


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def foreign(name: str, robust: float, off: float, **more: Any) -> dict[str, Any]:
    """What `measure` writes about a stranger's file."""
    extra: dict[str, Any] = {
        "run": "",
        "chosen_by": None,
        "class_names": EVIL,
        "model": "PreActResNet-18 <w>",
    }
    extra |= {"icas": 30 * off + 3, "icas_normalised": off + 0.1, "icas_matrix": square(6, off + 0.1)}
    extra |= {"all_pairs_cas": 0.6, "all_pairs_matrix": square(6, 0.02), "sharing_confusion": 0.414}
    extra |= {"classwise_clean": [0.5, None, 0.5, 0.5, 0.5, 0.5], "loaded": ["removed the prefix 'module.'"]}
    pair = {"i": 0, "j": 2, "classes": [EVIL[0], EVIL[2]], "C": off}
    ends: dict[str, Any] = {"clean": [0.47, 0.53], "robust": [robust - 0.02, robust + 0.02]}
    ends |= {"cas": [30 * off - 1, 30 * off + 1], "icas": None, "level": 0.9, "bias": {"cas": 0.1}}
    extra |= {"pairs": [pair], "intervals": ends}
    return {**measure(name, 1, robust, off), "epoch": None, **extra, **more}


def compared(**more: Any) -> dict[str, Any]:
    both = {"robust": [0.203, 0.061], "cas": [12.0, 3.0], "icas": [15.0, 6.0], "clean": [0.5, 0.5]}
    ends = {"d_robust": [0.11, 0.17], "d_cas": [8.4, 9.6], "d_clean": [-0.01, 0.01], "level": 0.9}
    pair = {"i": 0, "j": 2, "classes": [EVIL[0], EVIL[2]], "a": 0.4, "b": 0.1, "change": 0.3}
    classes = [{"class": n, "a": 0.2, "b": 0.1 * i, "change": 0.2 - 0.1 * i} for i, n in enumerate(EVIL)]
    spread = {"a": 0.241, "b": 0.166, "difference": 0.075, "interval": [0.064, 0.086]}
    saliency = {"grid": "grid.png", "layer": "layer4.1", "at": "adversarial images", "n": 174, "shown": 12}
    saliency |= {"half_mass_area": spread, "entropy": spread}
    how = {"a": "one.pt", "b": "two <pt>", "attack": ATTACK, "n": 1000, "split": "test"}
    told = {"d_robust": 0.142, "d_cas": 9.0, "d_icas": 9.0, "d_clean": 0.0, "intervals": ends}
    told |= {"C_difference": square(6, 0.3), "pairs": [pair], "classes": classes, "saliency": saliency}
    return {"comparison": {**how, **both, **told, **more}}


def result(folder: Path, objects: Any, name: str = "measure.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(objects))
    return folder / name


def seen(html: str) -> str:
    """The words of a page, those of neighbouring cells and boxes apart."""
    body = re.sub(r"<(style|script).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


STRANGERS = [foreign("one.pt", 0.203, 0.4), foreign("two <pt>", 0.061, 0.1), compared()]


@pytest.fixture(scope="module")
def page_of_results(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = result(tmp_path_factory.mktemp("results"), STRANGERS)
    (file.parent / "grid.png").write_bytes(PNG)
    return write_report([file], file.with_suffix(".html")).read_text()


def test_results_of_strangers(page_of_results: str) -> None:
    text = seen(page_of_results)
    said = (
        "2 checkpoints measured",
        "Robust accuracy is 20.3 % [18.3, 22.3]; CAS is 12.0 [11.0, 13.0], 0.400 of its largest",
        "I-CAS 15.0",
        "It grows with the number of images",
        "Negative mass, which it leaves out: 0.00",
        "90 % interval over images",
        "PreActResNet-18 <w>",
        "removed the prefix 'module.'",
        "gradient masking?",
        "hovers near zero",
        "its sum 0.6",
        "rank correlation +0.41",
        "seed 5",
        "fp32",
        ATTACK,
    )
    for words_said in said:
        assert words_said in text, words_said
    assert "epoch None" not in text
    assert text.count(CAS_NOTE) >= 10
    assert page_of_results.count('aria-label="Instance by instance: ') == 2
    assert page_of_results.count('aria-label="All pairs of images: ') == 2


def test_comparison_of_strangers(page_of_results: str) -> None:
    text = seen(page_of_results)
    sentence = (
        "two <pt> against one.pt: robust accuracy is lower by 14.2 points [11.0, 17.0] and CAS is lower by "
        "9.0 [8.4, 9.6]."
    )
    assert text.count(sentence) == 2  # at the top and where it stands
    assert "20.3 % → 6.1 % is lower by 14.2 points [11.0, 17.0]" in text
    assert "90 % interval of the difference, same images for both Read" not in text
    assert "50.0 % → 50.0 % differs by 0.0 points" in text
    assert text.count("it holds 0, so this may be chance") == 1
    assert "15.0 → 6.0 is lower by 9.0 no interval was computed" in text
    assert "0.40 0.10 −0.30" in text  # the pair that changed most, from a to b
    assert "share of the image that holds half of a map these images 24.1 % 16.6 % +7.5 [6.4, 8.6]" in text
    assert "174 of 1,000 test images" in text
    assert "at layer4.1, on adversarial images" in text
    assert "That choice itself favours one.pt" in text
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in page_of_results
    for title in ("one.pt: CAS 12.0", "two &lt;pt&gt;: CAS 3.0", "one.pt minus two &lt;pt&gt;: blue"):
        assert f'aria-label="{title}' in page_of_results


def test_names_in_results_cannot_break_out(page_of_results: str) -> None:
    page = Page(page_of_results)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in page_of_results
    assert "two <pt>" not in page_of_results
    assert "onload" not in [name for name, _ in page.attributes]
    pictures = [v for k, v in page.attributes if k in ("src", "href")]
    assert all(v and v.startswith(("data:", "#")) for v in pictures)
    links = {v[1:] for v in pictures if v and v.startswith("#") and not v.startswith("#f")}
    assert links
    assert links <= {v for k, v in page.attributes if k == "id"}
    ids = [v for k, v in page.attributes if k == "id" and v and not re.match("f[0-9a-f]{8}-", v)]
    assert len(ids) == len(set(ids))
    (picture,) = re.findall(r'<img [^>]*alt="([^"]+)"', page_of_results)
    assert "24.1" in picture


@pytest.mark.usefixtures("undrawn")
def test_one_measured_checkpoint_has_the_page_to_itself(tmp_path: Path) -> None:
    file = result(tmp_path, [foreign("one.pt", 0.203, 0.4, intervals=None, warnings=[])])
    html = write_report([file], tmp_path / "a.html").read_text()
    text = seen(html)
    assert html.count("<h1>") == 1
    assert "<h1>one.pt</h1>" in html
    assert "Robust accuracy is 20.3 %; CAS is 12.0, 0.400" in text
    assert "no interval was computed" in text
    assert "In brackets" not in text
    assert "[" not in text.split("Which classes share")[0]
    assert "warning" not in text


@pytest.mark.usefixtures("undrawn")
def test_what_older_files_lack_is_left_out(tmp_path: Path) -> None:
    older = measure("best.val", 2, 0.203, 0.4)
    del older["confusion"], older["conditions"], older["C"], older["warnings"]
    old = compared(intervals=None, saliency=None, pairs=[], classes=[], C_difference=None)["comparison"]
    lacking = {k: v for k, v in old.items() if not k.startswith("d_") and k not in ("icas", "clean")}
    file = result(tmp_path, [older, {"comparison": lacking}])
    text = words(write_report([file], tmp_path / "a.html"))
    assert "I-CAS" not in text
    assert "is lower by 14.2 points and CAS is lower by 9.0." in text
    assert "Where both look" not in text


@pytest.mark.usefixtures("undrawn")
def test_clean_images_are_not_called_robust(tmp_path: Path) -> None:
    none = "none (clean images)"
    objects = [foreign(name, 0.5, 0.2, attack=none) for name in ("one.pt", "two <pt>")]
    file = result(tmp_path, [*objects, compared(attack=none)])
    text = words(write_report([file], tmp_path / "a.html"))
    assert "Clean accuracy is 50.0 % [47.0, 53.0]; CAS" in text
    assert "On clean images, without an attack" in text
    assert "Adversarial predictions" not in text
    assert "two <pt> against one.pt: clean accuracy differs by 0.0 points" in text
    assert ", which may be chance and CAS" in text


@pytest.mark.usefixtures("undrawn")
def test_within_a_run_numbers_fall_and_rise(tmp_path: Path) -> None:
    ends = [foreign("best.val", 0.203, 0.4, run="r"), foreign("last", 0.061, 0.1, run="r")]
    of = [{"checkpoint": "best.val", "run": "r"}, {"checkpoint": "last", "run": "r"}]
    both = compared(a="best.val", b="last", of=of, d_clean=-0.075, intervals={"d_clean": [-0.1, -0.04]})
    text = words(write_report([result(tmp_path, [*ends, both])], tmp_path / "a.html"))
    assert "From best.val to last robust accuracy fell by 14.2 points and CAS fell by 9.0." in text
    assert "rose by 7.5 points [4.0, 10.0]" in text
    assert "best.val against last of r" in text


@pytest.mark.parametrize(
    ("d", "ends", "options", "said"),
    [
        (7.56, [6.94, 8.36], {}, "fell by 7.6 [6.9, 8.4]"),
        (-7.56, [-8.36, -6.94], {}, "rose by 7.6 [6.9, 8.4]"),
        (0.155, [0.129, -0.18], {"points": True, "within": False}, "is lower by 15.5 points [12.9, −18.0]"),
        (-0.02, None, {"points": True, "within": False}, "is higher by 2.0 points"),
        (0.04, [-0.1, 0.2], {}, "moved by 0.0 [−0.1, 0.2]"),
        (0.0004, None, {"points": True, "within": False}, "differs by 0.0 points"),
    ],
)
def test_moved(d: float, ends: Any, options: dict[str, bool], said: str) -> None:
    assert moved(d, ends, **options).replace("\u00a0", " ") == said
    assert span(None) == ""


@pytest.mark.usefixtures("undrawn")
def test_matrices_of_a_comparison_are_those_of_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    nothing = plot.matrix([[1.0]], ["a"])
    monkeypatch.setattr(plot, "matrix", lambda C, *_, **__: drawn.append(C) or nothing)
    # the same file under another attack, where accuracy and CAS happen to be the same
    other = foreign("one.pt", 0.203, 0.4, C=square(6, 0.3), attack="FGSM")
    objects = [other, *STRANGERS[:2], foreign("two <pt>", 0.9, 0.2), compared()]
    write_report([result(tmp_path, objects)], tmp_path / "a.html")
    assert drawn[-2:] == [square(6, 0.4), square(6, 0.1)]


@pytest.mark.usefixtures("undrawn")
def test_the_picture_must_lie_beside_the_file_and_be_one(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "grid.png").write_bytes(b"<svg onload=x>")
    for grid in ("../secret.png", str(tmp_path / "secret.png"), "grid.png", "missing.png"):
        both = compared()
        both["comparison"]["saliency"]["grid"] = grid
        page = write_report(
            [result(tmp_path / "in", [*STRANGERS[:2], both])], tmp_path / "a.html"
        ).read_text()
        assert "<img" not in page
        assert "does not lie beside the result file" in page
        assert "24.1" in page


@pytest.mark.usefixtures("undrawn")
def test_all_images_are_the_control_of_those_chosen(tmp_path: Path) -> None:
    both = compared()
    spread = {"a": 0.188, "b": 0.165, "difference": 0.023, "interval": [0.018, 0.028]}
    both["comparison"]["saliency"]["all_images"] = {"n": 1000, "half_mass_area": spread}
    text = seen(write_report([result(tmp_path, [*STRANGERS[:2], both])], tmp_path / "a.html").read_text())
    assert "all images 18.8 % 16.5 % +2.3 [1.8, 2.8]" in text


@pytest.mark.usefixtures("undrawn")
def test_a_run_whose_ends_were_compared(tmp_path: Path) -> None:
    of = [{"checkpoint": "best.test", "run": "r"}, {"checkpoint": "last", "run": "r"}]
    ends = [{**end, "run": "r", "icas": 9.0} for end in ENDS]
    both = compared(a="best.test", b="last", of=of)
    folder = made(tmp_path / "r", ROWS, [*ends, both])
    (folder / "grid.png").write_bytes(PNG)
    html = write_report([folder], tmp_path / "a.html").read_text()
    text = seen(html)
    assert "From best.test to last robust accuracy fell by 14.2 points" in text
    assert "data:image/png" in html
    assert "I-CAS" in text
    table = html.split('aria-label="Every evaluation of a checkpoint"')[1].split("</table>")[0]
    assert table.count('<th scope="row">') == 2  # the comparison is no row
    assert "peaked at 20.3 %" in text


@pytest.mark.usefixtures("undrawn")
def test_runs_and_results_on_one_page(tmp_path: Path) -> None:
    run = made(tmp_path / "run", ROWS, ENDS)
    file = result(tmp_path, [STRANGERS[0]], "m.json")
    html = write_report([run, file, file], tmp_path / "a.html").read_text()
    assert "<h1>1 run and 1 measured checkpoint</h1>" in html
    assert "Measured in m.json" in seen(html)
    assert html.count('class="run"') == 2
    two = result(
        tmp_path, [foreign("one.pt", 0.2, 0.4), foreign("one.pt", 0.1, 0.3, attack="FGSM")], "n.json"
    )
    assert "4 checkpoints" not in html
    text = words(write_report([file, two], tmp_path / "b.html"))
    assert "3 checkpoints measured" in text
    assert "one.pt, eps 8/255" in text  # told apart by the attack


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds no measured checkpoint"),
        ("{}", "not what a run writes"),
        ("[1]", "not what a run writes"),
        ("[", "not valid JSON"),
        ('[{"checkpoint": "a", "cas": "high"}]', "object 1: 'cas' is not a number"),
        ('[{"checkpoint": "a", "C": [[1, 0]]}]', "object 1: 'C' is not a square matrix"),
        ('[{"checkpoint": "a", "icas_matrix": 3}]', "'icas_matrix' is not a square matrix"),
        ('[{"checkpoint": "a", "intervals": {"cas": [1]}}]', "interval of 'cas' is not two numbers"),
        ('[{"checkpoint": "a"}, {"comparison": {"a": "x"}}]', "object 2: not what 'measure' writes"),
        (
            '[{"checkpoint": "a"}, {"comparison": {"a": "x", "b": "y", "cas": 3}}]',
            "object 2: 'cas' is not two numbers",
        ),
        ('[{"checkpoint": "a"}, {"comparison": 5}]', "object 2: not what 'measure' writes"),
    ],
)
def test_errors_in_result_files(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(content)
    with pytest.raises(UserError, match=said):
        write_report([file], tmp_path / "page.html")
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        write_report([tmp_path / "none.json"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_alarms_stand_with_their_end_and_notes_apart(tmp_path):
    def watched(epoch, robust, fgsm, cosine, said=()):
        more = {"val_robust": robust, "val_fgsm": fgsm, "fgsm_gap": fgsm - robust, "gradient_cosine": cosine}
        more |= {"watched": "val", "watched_n": 1000, "fgsm_n": 500, "watched_attack": "PGD-10, l_inf 8/255"}
        return row(epoch, robust, 0.2, **more, val_predicted=6, val_share=0.3) | {"warnings": list(said)}

    told = "catastrophic overfitting in epoch 3: FGSM 71.0 %, PGD-10 0.3 %"
    rows = [watched(1, 0.30, 0.32, 0.9), watched(2, 0.35, 0.37, 0.9)]
    rows += [watched(3, 0.003, 0.71, 0.1, [told, "another thing"]), watched(4, 0.34, 0.36, 0.9)]
    text = unescape(write_report([made(tmp_path / "run", rows)], tmp_path / "p.html").read_text())
    assert "2 warnings" in text  # the alarm once, and the other thing
    assert re.search(r"catastrophic overfitting in epoch 3: FGSM 71.0 %, PGD-10 0.3 %.*over in epoch 4", text)
    assert text.count("catastrophic overfitting in epoch 3") == 1
    assert re.search(r'class="note">Noted: gradient cosine low in epoch 3: .* \(over in epoch 4\)', text)


def test_alarms_of_a_loop_that_logs_no_numbers_behind_them_are_still_shown(tmp_path):
    rows = [row(1, 0.3, 0.2), row(2, 0.1, 0.2, warnings=["robust overfitting since epoch 1: it fell"])]
    text = write_report([made(tmp_path / "run", rows)], tmp_path / "p.html").read_text()
    assert "robust overfitting since epoch 1: it fell" in text
