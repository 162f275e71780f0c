"""Pages of measured files: numbers, comparisons and pictures; names escaped, mistakes in one sentence."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from crossclass.core.errors import UserError
from crossclass.report import plots, write_report
from report_files import (
    ATTACK,
    CAS_NOTE,
    ENDS,
    FOREIGN,
    PNG,
    ROWS,
    Page,
    compared,
    foreign,
    measure,
    page_text,
    square,
    visible_text,
    write_results,
    write_run,
)


@pytest.fixture(scope="module")
def page_of_results(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = write_results(tmp_path_factory.mktemp("results"), FOREIGN)
    (file.parent / "grid.png").write_bytes(PNG)
    return write_report([file], file.with_suffix(".html")).read_text()


def test_results_of_foreign_files(page_of_results: str) -> None:
    text = visible_text(page_of_results)
    shown = (
        "one.pt against two <pt>",
        "20.3 % [18.3, 22.3] 6.1 % [4.1, 8.1]",
        "12.00 [11.00, 13.00] 3.00 [2.00, 4.00]",
        "I-CAS 15.00 → 6.00",
        "90 % intervals of the difference",
        "PreActResNet-18 <w>",
        "removed the prefix 'module.'",
        "gradient masking?",
        "+0.41",
        ATTACK,
    )
    for expected in shown:
        assert expected in text, expected
    assert "epoch None" not in text
    assert text.count(CAS_NOTE) == 1
    assert page_of_results.count("<article") == 1  # two networks are one comparison
    frames = re.findall(r'"label": "([^"]*)"', page_of_results)
    assert len(frames) == 4  # C and instance by instance of both


def test_comparison_of_foreign_files(page_of_results: str) -> None:
    text = visible_text(page_of_results)
    sentence = (
        "two <pt> against one.pt: robust accuracy is lower by 14.2 points [11.0, 17.0] and CAS is lower by "
        "9.00 [8.40, 9.60]."
    )
    assert text.count(sentence) == 1
    assert "20.3 % → 6.1 % is lower by 14.2 points [11.0, 17.0]" in text
    assert "50.0 % → 50.0 % differs by 0.0 points" in text
    assert text.count("he interval holds 0: it may be chance") == 1
    assert "15.00 → 6.00 is lower by 9.00 PGD-20" in text
    assert "0.40 0.10 −0.30" in text  # the pair that changed most, from a to b
    assert (
        "share of the image that holds half of a map these images 24.1 % 16.6 % +7.5 points [6.4, 8.6]"
        in text
    )
    assert "174 of 1,000 test images" in text
    assert "at layer4.1, on adversarial images" in text
    assert "That choice itself favours one.pt" in text
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in page_of_results
    titles = ("C of one.pt: CAS 12.00", "C of two &lt;pt&gt;: CAS 3.00", "one.pt minus two &lt;pt&gt;: blue")
    for title in titles:
        assert f'aria-label="{title}' in page_of_results


def test_names_in_results_cannot_break_out(page_of_results: str) -> None:
    page = Page(page_of_results)
    assert [attributes.get("type") for attributes in page.all("script")].count(None) == 1
    assert "<script>alert" not in page_of_results
    assert "two <pt>" not in page_of_results
    assert not page.values("onload")
    targets, ids = page.values("src", "href"), page.values("id")
    assert all(v.startswith(("data:", "#")) for v in targets)
    links = {v[1:] for v in targets if v.startswith("#") and not v.startswith("#f")}
    assert links <= set(ids)
    own = [v for v in ids if not re.match("f[0-9a-f]{8}-", v)]
    assert len(own) == len(set(own))
    (picture,) = re.findall(r'<img [^>]*alt="([^"]+)"', page_of_results)
    assert "24.1" in picture


@pytest.mark.usefixtures("undrawn")
def test_one_measured_checkpoint_has_the_page_to_itself(tmp_path: Path) -> None:
    file = write_results(tmp_path, [foreign("one.pt", 0.203, 0.4, intervals=None, warnings=[])])
    html = write_report([file], tmp_path / "a.html").read_text()
    text = visible_text(html)
    assert html.count("<h1>") == 1
    assert "<h1>one.pt</h1>" in html
    assert "Robust accuracy is 20.3 %; CAS is 12.00, 0.400" in text
    assert "In brackets" not in text
    assert "[" not in text.split("Which classes share")[0].replace("C[i, j]", "")
    assert "warning" not in text


@pytest.mark.usefixtures("undrawn")
def test_what_older_files_lack_is_left_out(tmp_path: Path) -> None:
    older = measure("best.val", 2, 0.203, 0.4)
    del older["confusion"], older["conditions"], older["C"], older["warnings"]
    old = compared(intervals=None, saliency=None, pairs=[], classes=[])["comparison"]
    del old["C_difference"]
    lacking = {k: v for k, v in old.items() if not k.startswith("d_") and k not in ("icas", "clean")}
    file = write_results(tmp_path, [older, {"comparison": lacking}])
    text = page_text(write_report([file], tmp_path / "a.html"))
    assert "I-CAS" not in text
    assert "is lower by 14.2 points and CAS is lower by 9.00." in text
    assert "Where both look" not in text


@pytest.mark.usefixtures("undrawn")
def test_clean_images_are_not_called_robust(tmp_path: Path) -> None:
    none = "none (clean images)"
    objects = [foreign(name, 0.5, 0.2, attack=none) for name in ("one.pt", "two <pt>")]
    file = write_results(tmp_path, [*objects, compared(attack=none)])
    text = page_text(write_report([file], tmp_path / "a.html"))
    assert "On clean images, without an attack" in text
    assert "Adversarial predictions" not in text
    assert "two <pt> against one.pt: clean accuracy differs by 0.0 points" in text
    assert ", which may be chance and CAS" in text


@pytest.mark.usefixtures("undrawn")
def test_matrices_of_a_comparison_are_those_of_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    nothing = plots.matrix([[1.0]], ["a"])
    monkeypatch.setattr(plots, "matrix", lambda C, *_, **__: drawn.append(C) or nothing)
    # the same file under another attack, where accuracy and CAS happen to be the same
    other = foreign("one.pt", 0.203, 0.4, C=square(6, 0.3), attack="FGSM")
    objects = [other, *FOREIGN[:2], foreign("two <pt>", 0.9, 0.2), compared()]
    write_report([write_results(tmp_path, objects)], tmp_path / "a.html")
    assert drawn[:2] == [square(6, 0.4), square(6, 0.1)]


@pytest.mark.usefixtures("undrawn")
def test_the_picture_must_lie_beside_the_file_and_be_one(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "grid.png").write_bytes(b"<svg onload=x>")
    for grid in ("../secret.png", str(tmp_path / "secret.png"), "grid.png", "missing.png"):
        both = compared()
        both["comparison"]["saliency"]["grid"] = grid
        page = write_report(
            [write_results(tmp_path / "in", [*FOREIGN[:2], both])], tmp_path / "a.html"
        ).read_text()
        assert "<img" not in page
        assert "does not lie beside the result file" in page
        assert "24.1" in page


@pytest.mark.usefixtures("undrawn")
def test_two_comparisons_show_their_own_pictures(tmp_path: Path) -> None:
    objects: list[Any] = list(FOREIGN[:2])
    for name, attack in (("grid-a.png", ATTACK), ("grid-b.png", "PGD-20, l_inf 4/255")):
        both = compared(attack=attack)
        both["comparison"]["saliency"]["grid"] = name
        objects.append(both)
        (tmp_path / name).write_bytes(PNG + name.encode())
    html = write_report([write_results(tmp_path, objects)], tmp_path / "a.html").read_text()
    for name in ("grid-a.png", "grid-b.png"):
        assert base64.b64encode(PNG + name.encode()).decode() in html


@pytest.mark.usefixtures("undrawn")
def test_all_images_are_the_control_of_those_chosen(tmp_path: Path) -> None:
    both = compared()
    spread = {"a": 0.188, "b": 0.165, "difference": 0.023, "interval": [0.018, 0.028]}
    both["comparison"]["saliency"]["all_images"] = {"n": 1000, "half_mass_area": spread}
    text = visible_text(
        write_report([write_results(tmp_path, [*FOREIGN[:2], both])], tmp_path / "a.html").read_text()
    )
    assert "all images 18.8 % 16.5 % +2.3 points [1.8, 2.8]" in text


@pytest.mark.usefixtures("undrawn")
def test_a_run_whose_ends_were_compared(tmp_path: Path) -> None:
    of = [{"checkpoint": "best.test", "run": "r"}, {"checkpoint": "last", "run": "r"}]
    ends = [{**end, "run": "r", "icas": 9.0} for end in ENDS]
    both = compared(a="best.test", b="last", of=of)
    folder = write_run(tmp_path / "r", ROWS, [*ends, both])
    (folder / "grid.png").write_bytes(PNG)
    html = write_report([folder], tmp_path / "a.html").read_text()
    text = visible_text(html)
    assert text.count("fell by 14.2 points") == 1  # the page is this comparison
    assert "data:image/png" in html
    assert "I-CAS" in text
    table = html.split('aria-label="All numbers after training"')[1].split("</table>")[0]
    assert table.split("<tbody>")[0].count('<th scope="col"') == 3  # the comparison is no column
    assert "peaked at 20.3 %" in text


@pytest.mark.usefixtures("undrawn")
def test_runs_and_results_on_one_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ROWS, ENDS)
    file = write_results(tmp_path, [FOREIGN[0]], "m.json")
    html = write_report([run, file, file], tmp_path / "a.html").read_text()
    assert "<h1>toy against one.pt</h1>" in html
    assert html.count('class="run"') == 2
    two = write_results(
        tmp_path, [foreign("one.pt", 0.2, 0.4), foreign("one.pt", 0.1, 0.3, attack="FGSM")], "n.json"
    )
    assert "4 checkpoints" not in html
    text = page_text(write_report([file, two], tmp_path / "b.html"))
    assert "3 measured checkpoints" in text
    assert "one.pt, eps 8/255" in text  # only the attack differs


def one(more: str) -> str:
    return json.dumps({"schema": 1, "results": [{"checkpoint": {"name": "a"}, **json.loads(more)}]})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"schema": 1}', "holds no measured checkpoint"),
        ("{}", "it has no 'schema'"),
        ("[1]", "it has no 'schema'"),
        ("[", "not valid JSON"),
        ('{"schema": 2, "results": []}', "format 2 is newer than this crossclass can read"),
        (one('{"cas": "high"}'), "'results.0.cas.*valid"),
        (one('{"matrices": {"C": [[1, 0]]}}'), r"'results.0.matrices.C': is not a square matrix"),
        (one('{"matrices": {"icas_matrix": 3}}'), "'results.0.matrices.icas_matrix': "),
        (one('{"intervals": {"cas": [1]}}'), "'results.0.intervals.cas.1'"),
        ('{"schema": 1, "comparisons": [{"a": "x"}]}', "'comparisons.0.b': Field required"),
        ('{"schema": 1, "comparisons": [{"a": "x", "b": "y", "cas": [3]}]}', "'comparisons.0.cas"),
        ('{"schema": 1, "results": [5]}', "'results.0'"),
    ],
)
def test_errors_in_result_files(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(content)
    with pytest.raises(UserError, match=expected):
        write_report([file], tmp_path / "page.html")
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        write_report([tmp_path / "none.json"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
