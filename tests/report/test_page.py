"""The page: every name escaped, nothing loaded from outside, every error a sentence, no file half-written."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from crossclass.core.errors import UserError
from crossclass.report import plots, write_report
from report_files import (
    ATTACK,
    CAS_NOTE,
    ENDS,
    EVIL,
    ROWS,
    Page,
    page_text,
    row,
    visible_text,
    write_run,
)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "toy-1", ROWS, ENDS, settings_changed={"lr": [0.1, None]}
    )
    return write_report([folder], folder / "report.html").read_text()


def test_names_cannot_break_out(html: str) -> None:
    page = Page(html)
    kinds = [attributes.get("type") for attributes in page.all("script")]
    assert kinds.count(None) == 1  # ours, whatever the classes are called
    assert set(kinds) == {None, "application/json"}
    assert "<script>alert" not in html
    assert "<b>alarm" not in html
    assert "&lt;b&gt;alarm" in html
    assert not page.values("onload")
    data = re.findall(r'<script type="application/json" id="data-[^"]*">(.*?)</script>', html, re.DOTALL)
    assert [json.loads(one)["names"] for one in data] == [EVIL]


def test_nothing_is_loaded_from_outside(html: str) -> None:
    urls = Page(html).values("src", "href", "xlink:href", "action", "poster")
    assert urls
    assert all(u.startswith(("data:", "#")) for u in urls), urls
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", html))
    assert "@import" not in html


def test_every_number_has_its_conditions(html: str) -> None:
    text = visible_text(html)
    shown = (ATTACK, "1,000 test images", "seed=5", "fp32", "PGD-10, 100 test images", "finished", "not set")
    for expected in shown:
        assert expected in text, expected
    assert "chosen on the test set itself" in text
    assert text.count(CAS_NOTE) == 1
    assert "AUC 0.93" in text
    assert "gradient masking?" in text
    assert "142 of 1,000 images fewer" in text


@pytest.mark.usefixtures("undrawn")
def test_in_progress(tmp_path: Path) -> None:
    going = write_run(tmp_path / "going", ROWS)
    with open(going / "events.jsonl", "a") as file:
        file.write('{"epoch": 5, "cas"')  # being written just now
    (going / "metrics.csv").unlink()
    (going / "env.json").write_text("{}")
    text = page_text(write_report([going], tmp_path / "new" / "page.html"))
    assert "in progress: epoch 4 of 9" in text
    assert "so far" in text
    assert "metrics.csv" not in text


def test_a_folder_with_hardly_anything(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "events.jsonl").write_text('{"epoch": 1}\n')
    assert "No epoch has been checked" in page_text(write_report([bare], tmp_path / "bare.html"))


def test_several_runs(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"toy-{s}", ROWS, ENDS, seed=s, label=f"toy-seed{s}") for s in (0, 1)]
    page = write_report([*runs, runs[0]], tmp_path).read_text()
    text = visible_text(page)
    assert "<h1>toy, seed 0 against toy, seed 1</h1>" in page
    assert "toy, seed 1" in text
    assert "toy (mean of 2 seeds, band: all)" in text
    ids = [v for v in Page(page).values("id") if v.startswith(("run-", "data-"))]
    assert {"data-run-1-epochs", "data-run-2-epochs", "run-1", "run-2"} <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("events.jsonl", "", "no epochs yet; train it"),
        ("events.jsonl", '{"epoch": 1}\n{"epoch"\n', "events.jsonl, line 2: not an epoch"),
        ("events.jsonl", '{"epoch": 1, "cas": "high"}\n', "line 1: not an epoch of a run \\('cas"),
        ("events.jsonl", '{"epoch": 1, "C": [[1, 0]]}\n', "line 1: .*not a square matrix"),
        ("events.jsonl", '["epoch"]\n', "line 1: not an epoch of a run"),
        ("measure.json", "[", "measure.json: not valid JSON"),
        ("measure.json", "{}", "measure.json: not what .* writes"),
        ("config.yaml", "a: [", r"config\.yaml, line 1: "),
    ],
)
def test_errors_in_one_sentence(tmp_path: Path, name: str, content: str, expected: str) -> None:
    folder = write_run(tmp_path / "run", ROWS, ENDS)
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=expected):
        write_report([folder], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_errors_about_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        write_report([tmp_path / "none"], tmp_path / "page.html")
    with pytest.raises(UserError, match="no run is in this folder"):
        write_report([tmp_path], tmp_path / "page.html")
    write_run(tmp_path / "run", ROWS)
    with pytest.raises(UserError, match="no run folder was given"):
        write_report([], tmp_path / "page.html")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write_report([tmp_path / "run"], tmp_path / "file" / "page.html")


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = write_run(tmp_path / "run", ROWS), tmp_path / "pages" / "page.html"
    write_report([folder], out)
    old = out.read_bytes()

    def fail(*_: object) -> str:
        raise RuntimeError("no figure today")

    monkeypatch.setattr(plots, "svg", fail)
    with pytest.raises(RuntimeError):
        write_report([folder], out)
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pages", "run"]
    assert out.read_bytes() == old


def test_alarms_stand_with_their_end_and_notes_apart(tmp_path):
    def watched(epoch, robust, fgsm, cosine, texts=()):
        more = {
            "val_robust": robust,
            "watched_fgsm": fgsm,
            "fgsm_gap": fgsm - robust,
            "gradient_cosine": cosine,
        }
        more |= {"watched": "val", "watched_n": 1000, "fgsm_n": 500, "watched_attack": "PGD-10, l_inf 8/255"}
        return row(epoch, robust, 0.2, **more, watched_predicted_classes=6, watched_largest_share=0.3) | {
            "warnings": list(texts)
        }

    raised = "catastrophic overfitting in epoch 3: FGSM 71.0 %, PGD-10 0.3 %"
    rows = [watched(1, 0.30, 0.32, 0.9), watched(2, 0.35, 0.37, 0.9)]
    rows += [watched(3, 0.003, 0.71, 0.1, [raised, "another thing"]), watched(4, 0.34, 0.36, 0.9)]
    rows += [watched(5, 0.34, 0.36, 0.1), watched(6, 0.34, 0.36, 0.9)]
    text = unescape(write_report([write_run(tmp_path / "run", rows)], tmp_path / "p.html").read_text())
    assert "2 warnings" in text  # the alarm once, and the other thing
    assert re.search(r"catastrophic overfitting in epoch 3: FGSM 71.0 %, PGD-10 0.3 %.*over in epoch 4", text)
    assert text.count("catastrophic overfitting in epoch 3") == 1
    noted = text.split("Noted during training")[1]
    assert re.search(r"gradient cosine low in epoch 5: .* \(over in epoch 6\)", noted)


def test_alarms_of_a_loop_that_logs_no_numbers_behind_them_are_still_shown(tmp_path):
    rows = [row(1, 0.3, 0.2), row(2, 0.1, 0.2, warnings=["robust overfitting since epoch 1: it fell"])]
    text = write_report([write_run(tmp_path / "run", rows)], tmp_path / "p.html").read_text()
    assert "robust overfitting since epoch 1: it fell" in text
