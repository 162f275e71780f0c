"""Run folders and results of `measure` in, one self-contained HTML page out.

Nothing is measured here: the arithmetic ends at differences of stored numbers. The page needs no network,
since style, script, figures and data are inside, and every number stands beside its conditions.
"""

from collections.abc import Sequence
from pathlib import Path

from crossclass.analysis.records import ResultFile, load_results
from crossclass.analysis.run_record import load_run
from crossclass.core.errors import UserError
from crossclass.core.files import require_writable, write_atomic
from crossclass.core.progress import Log
from crossclass.report.page import page
from crossclass.report.study import write_study

__all__ = ["write_report", "write_study"]


def write_report(targets: Sequence[Path], out: Path, log: Log = lambda text: None) -> Path:
    """Write one page about run folders and JSON files of `measure`.

    `out` is the file, or a folder in which it is `report.html`; `log` is told if it is replaced. Returns the
    path of the page. Raises UserError if a target cannot be read.
    """
    if not targets:
        raise UserError("no run folder was given; name at least one, as in 'report runs/NAME'")
    unique = list({target.resolve(): target for target in targets}.values())
    files = [path for path in unique if path.suffix == ".json" or path.is_file()]
    out = out / "report.html" if out.is_dir() or not out.suffix else out
    require_writable(out)
    runs = [load_run(path) for path in unique if path not in files]
    if out.exists():
        log(f"{out} is replaced")
    write_atomic(out, page(runs, [(file, _results(file)) for file in files]))
    return out


def _results(path: Path) -> ResultFile:
    """A result file with at least one checkpoint."""
    if path.is_file() and path.read_bytes()[:1].strip() not in (b"", b"[", b"{"):
        raise UserError(
            f"{path}: not a result of measure; if it is a checkpoint, 'crossclass measure {path.name} ... "
            "out=result.json' first, and report that"
        )
    file = load_results(path)
    if not file.results:
        raise UserError(f"{path}: holds no measured checkpoint; write it anew with 'crossclass measure'")
    return file
