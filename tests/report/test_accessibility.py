"""Pages for everyone: entries that lack a key, small windows, screen readers, paper; none above 3 MB."""

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from crossclass.report import plots, write_report
from crossclass.report.sections import TEMPLATES
from crossclass.report.study import write_study
from report_files import Page, measure, result_file, row, visible_text, write_run

MINI = Path(__file__).parents[2] / "results" / "mini"
MOST = 3_000_000  # bytes of a page
NAMES = [f"class {i}" for i in range(10)]


def cosines(rng: np.random.Generator, K: int) -> list[list[float]]:
    half = np.triu(rng.uniform(-0.3, 0.9, (K, K)), 1)
    return (half + half.T + np.eye(K)).tolist()


def long_run(folder: Path, epochs: int = 200, K: int = 10) -> Path:
    """A finished run, checked in every epoch; no matrix is like another."""
    rng = np.random.default_rng(0)
    rows = [
        row(e, rng.random(), 0.2, K, val_robust=rng.random(), C=cosines(rng, K)) for e in range(1, epochs + 1)
    ]
    counts = rng.integers(0, 99, (K, K)).tolist()
    ends = [
        measure(name, epoch, robust, 0.2, K, C=cosines(rng, K), confusion=counts)
        for name, epoch, robust in (("best.val", 90, 0.5), ("last", epochs, 0.4))
    ]
    return write_run(folder, rows, ends, class_names=[f"class {i}" for i in range(K)])


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = long_run(tmp_path_factory.mktemp("runs") / "long")
    return write_report([folder], folder / "report.html").read_text()


@pytest.fixture(scope="module")
def bare_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A result file of another program: it says neither attack nor images."""
    rng = np.random.default_rng(1)
    one, two = (
        {"checkpoint": name, "robust": 0.3, "cas": 8.0, "C": cosines(rng, 10), "class_names": NAMES}
        | {"classwise_robust": rng.random(10).tolist(), "confusion": [[1] * 10] * 10}
        for name in ("one.pt", "two.pt")
    )
    pair = {"a": "one.pt", "b": "two.pt", "robust": [0.3, 0.3], "cas": [8.0, 8.0], "classes": []}
    pair |= {"C_difference": np.subtract(one["C"], two["C"]).tolist(), "pairs": []}
    place = tmp_path_factory.mktemp("results") / "measured.json"
    place.write_text(json.dumps(result_file([one, two, {"comparison": pair}])))
    return write_report([place], place.with_suffix(".html")).read_text()


def linked(place: Path, *names: str) -> Path:
    """A folder of stored entries, of all or of those that are named."""
    place.mkdir()
    for file in MINI.iterdir():
        if file.stem in names or (not names and file.name != "index.html"):
            (place / file.name).symlink_to(file)
    return place


@pytest.fixture(scope="module")
def study_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_study(linked(tmp_path_factory.mktemp("study") / "mini")).read_text()


@pytest.fixture(params=["run_page", "bare_page", "study_page"])
def page(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_what_a_file_lacks_is_shown_as_not_recorded(bare_page: str) -> None:
    assert bare_page.count("attack not recorded") > 4
    assert "their number not recorded" in bare_page
    assert "robust accuracy differs by 0.0" in bare_page


def test_pages_are_below_three_megabytes(page: str) -> None:
    assert len(page.encode()) < MOST


def test_a_page_of_a_hundred_classes_is_below_three_megabytes(tmp_path: Path) -> None:
    folder = long_run(tmp_path / "long", K=100)
    assert write_report([folder], folder / "report.html").stat().st_size < MOST


def test_downloads_of_a_study_are_the_files(study_page: str) -> None:
    found = {a["download"]: a["href"] or "" for a in Page(study_page).all("a") if "download" in a}
    assert set(found) == {f"{p.name}.gz" for kind in ("json", "csv") for p in MINI.glob(f"*.{kind}")}
    for name, data in found.items():
        packed = base64.b64decode(data.removeprefix("data:application/gzip;base64,"))
        assert gzip.decompress(packed) == (MINI / str(name).removesuffix(".gz")).read_bytes()


def test_a_file_of_maps_stands_once_on_the_page(study_page: str) -> None:
    assert study_page.count("data:image/png;base64,") - study_page.count('xlink:href="data:image/png') == 1
    assert '<a href="#fig3c">The same pictures as in fig3c</a>' in study_page


@pytest.mark.parametrize("names", [("thm3",), ("thm2", "thm3"), ("thm1", "thm2", "thm3")])
def test_the_first_theorem_has_the_panel(tmp_path: Path, names: tuple[str, ...]) -> None:
    text = write_study(linked(tmp_path / "some", *names)).read_text()
    assert text.count('<section class="theory-panel"') == 1
    first = text.split(f'<article id="{names[0]}"')[1].split("</article>")[0]
    assert 'class="theory-panel"' in first
    assert "theory-panel" not in write_study(linked(tmp_path / "other", "fig2")).read_text()


def test_every_head_of_a_column_says_so(page: str) -> None:
    heads = re.findall(r"<th\b[^>]*>", "".join(re.findall(r"<thead>.*?</thead>", page, re.DOTALL)))
    assert heads
    assert all('scope="col"' in head for head in heads)


def test_no_row_of_a_study_has_an_empty_head(study_page: str) -> None:
    heads = re.findall(r"<th\b[^>]*>(.*?)(?=<t[hdr]|</t)", study_page, re.DOTALL)
    assert all(visible_text(head) for head in heads)
    table = study_page.split('aria-label="All claims"')[1].split("</table>")[0]
    entries = [json.loads(p.read_text()) for p in MINI.glob("*.json")]
    claims = {e["id"]: sum(not v["extension"] for v in e["verdicts"]) for e in entries}
    spans = re.findall(r'<th scope="row" rowspan="(\d+)"><a href="#([^"]+)">', table)
    assert {id_: int(rows) for rows, id_ in spans} == {k: n for k, n in claims.items() if n}


def test_pictures_of_a_study_are_described(study_page: str) -> None:
    drawn = [a["aria-label"] or "" for a in Page(study_page).all("div") if a.get("role") == "img"]
    entries = {e["id"]: e for e in (json.loads(p.read_text()) for p in MINI.glob("*.json"))}
    assert len(drawn) == len(entries) - 1  # a table is a table
    for id_, entry in entries.items():
        described = [label for label in drawn if label.endswith(f" in {id_}.csv.")]
        assert len(described) == (id_ != "table2")
        assert all(label.startswith(f"{entry['title']}. {entry['claim']}") for label in described)
    assert all(a.get("alt") for a in Page(study_page).all("img"))


def test_table_2_is_a_table(study_page: str) -> None:
    section = study_page.split('<article id="table2"')[1].split("</article>")[0]
    assert "<svg" not in section
    table = section.split('aria-label="Settings of table2"')[1].split("</table>")[0]
    numbers = json.loads((MINI / "table2.json").read_text())["numbers"]
    assert re.findall(r'<th scope="row">([^<]+)', table) == ["Table 2", *numbers["runs"]]
    cells = re.sub(r' data-label="[^"]*"', "", table)
    assert "<td>100, 150<td>" in cells
    assert "<td>2/255<td>10<td>0.25" in cells


def test_wide_pictures_move_under_the_fingers_and_the_keys(study_page: str) -> None:
    regions = [a for a in Page(study_page).all("div") if a.get("class") == "pan"]
    assert len(regions) == study_page.count('<figure class="card"') - 1  # the maps that stand elsewhere
    assert all((a["tabindex"], a["role"]) == ("0", "region") and a["aria-label"] for a in regions)


def test_roles_say_what_a_thing_does(run_page: str) -> None:
    (canvas,) = Page(run_page).all("canvas")
    assert (canvas["role"], canvas["tabindex"]) == ("application", "0")  # arrow keys reach it
    assert canvas["aria-label"]
    arrows = [a for a in Page(run_page).all("span") if a.get("class") == "arrow"]
    assert arrows
    assert {(a.get("role"), a["aria-label"]) for a in arrows} == {("img", "to")}  # a bare span has no name


def test_paper_shows_what_the_screen_shows() -> None:
    paper = (TEMPLATES / "style.css").read_text().split("@media print")[1]
    assert ".pan { overflow: visible; }" in paper
    assert ".drawn svg, .pan svg { filter: none; }" in paper  # dark figures are for dark screens
    assert "details::details-content { content-visibility: visible" in paper
    panel = (TEMPLATES / "theory_panel" / "style.css").read_text().split("@media print")[1]
    assert "input" in panel


def test_inlined_drawings_are_the_same_drawings() -> None:
    text = '<?xml?>\n<svg width="9pt">\n <style>*{x}</style>\n  <g id="a">\n   '
    text += '<path d="M 1.23456 -0.5 \nL 2.999999 3"/>'
    text += '\n  <use xlink:href="#a" x="0.123456"/></g></svg>\n'
    once = plots.inline(text, "m")
    assert 'd="M 1.23 -0.5\nL 3.00 3"' in once
    assert 'id="m-a"' in once
    assert 'href="#m-a" x="0.12"' in once
    assert "<style" not in once


def test_what_was_not_measured_stays_unknown() -> None:
    assert plots.subtract([[1.0, None], [0.5, 2.0]], [[0.25, 1.0], [None, 2.0]]) == [
        [0.75, None],
        [None, 0.0],
    ]
    figure = plots.confusion([[3, None], [0, 7]], ["a", "b"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["3", "0", "7"]
    assert figure.axes[0].collections[0].get_clim() == (0, 7)
    assert figure.axes[0].get_xlabel() == "predicted under attack"
