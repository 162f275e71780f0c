"""The page of a run that is going: it is there, reads itself anew until the end, and never harms the run."""

import re
from pathlib import Path

import pytest

from crossclass.cli import live_page
from crossclass.cli.live_page import LivePage, final_page
from crossclass.report import write_report
from report_files import ENDS, ROWS, write_run

pytestmark = pytest.mark.live_page
REFRESH = f'<meta http-equiv="refresh" content="{live_page.REFRESH}">'


def test_a_run_has_a_page_that_ends_with_it(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []
    update = LivePage.update

    def seen(self: LivePage, folder: Path) -> bool:
        began.append(folder.name)
        done = update(self, folder)
        if len(began) == 1:
            assert done
            assert self.process is not None
            self.process.wait(120)
            text = (folder / "report.html").read_text()
            assert REFRESH in text
            assert "in progress: epoch 1 of 2" in text
        return done

    monkeypatch.setattr(LivePage, "update", seen)
    small = "data.n_train=30 data.n_val=12 data.n_test=12 recipe.attack.steps=1 validation.attack.steps=1"
    words = (
        f"train shapes-demo out={tmp_path} epochs=2 model.width=4 validation.every=1 lr_milestones=[] {small}"
    )
    code, out, err = call(*words.split())
    assert code == 0
    assert len(began) == 2
    page = Path(out.strip().splitlines()[-1]) / "report.html"
    assert page.name in err
    text = page.read_text()
    assert 'http-equiv="refresh"' not in text
    assert "finished" in text
    assert not list(page.parent.glob(".*.tmp"))
    assert "Images that were measured" in text
    before = page.stat().st_mtime_ns
    code, _, err = call(*words.split())
    assert (code, page.stat().st_mtime_ns) == (0, before)  # finished already, and so is its page


def test_pages_are_drawn_one_at_a_time_and_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, page, now = write_run(tmp_path / "run", ROWS), LivePage(), [1000.0]
    monkeypatch.setattr(live_page.time, "monotonic", lambda: now[0])
    assert page.update(run)
    now[0] += 1e6
    assert page.process is not None
    assert page.process.poll() is not None or not page.update(run)  # the first is not ready
    page.process.wait(120)
    page.close()
    assert (run / "report.html").exists()
    assert page.cost > 0  # processor time
    now[0] = page.began + page.cost / live_page.SHARE - 1
    assert not page.update(run)
    now[0] += 2
    assert page.update(run)
    monkeypatch.setattr(live_page, "PATIENCE", 0.0)
    (half := run / f".report.html.{page.process.pid}.tmp").write_text("half")
    page.close()  # it does not hold up the end of the run, and leaves nothing behind
    assert page.process is None
    assert not half.exists()


@pytest.mark.parametrize("fault", ["no program", "damaged run", "no folder"])
def test_a_page_that_cannot_be_drawn_is_not_the_runs_concern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    run, told = write_run(tmp_path / "run", ROWS), []
    if fault == "no program":
        monkeypatch.setattr(live_page.sys, "executable", str(tmp_path / "none"))
    elif fault == "damaged run":
        (run / "events.jsonl").write_text("{}\n{}\n")
    page = LivePage()
    page.update(tmp_path / "nothing" if fault == "no folder" else run)
    page.close()
    (run / "events.jsonl").write_text("{}\n{}\n")
    final_page(run, told.append)
    assert len(told) == 1
    assert re.search("could not be written .*crossclass report", told[0])
    assert not (run / "report.html").exists()


def test_a_finished_run_is_not_read_anew(tmp_path: Path) -> None:
    done, going = write_run(tmp_path / "a", ROWS, ENDS), write_run(tmp_path / "b", ROWS)
    assert 'refresh"' not in write_report([done], live=30).read_text()
    assert REFRESH in write_report([going], live=30).read_text()
    assert 'refresh"' not in write_report([going], tmp_path / "later.html").read_text()
