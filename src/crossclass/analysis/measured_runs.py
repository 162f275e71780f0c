"""Many runs and result files at once: what is below a folder, and what was measured of it, without torch."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossclass.analysis import result_files
from crossclass.analysis.records import Measurement, ResultFile
from crossclass.analysis.result_files import read_json
from crossclass.analysis.setting_names import settings_of
from crossclass.core.errors import UserError
from crossclass.core.yaml_reader import read_yaml

_SEED = re.compile(r"[-_ ]seed[-_= ]?\d+(?=$|[-_ ])")


@dataclass(frozen=True)
class MeasuredRun:
    """One run, or one file that belongs to none, with all that was measured of it."""

    name: str
    """The label without its seed; of a file its name."""
    settings: dict[str, Any] = field(default_factory=dict)
    """By path, as `settings_of` gives them; empty if they are not known."""
    results: list[Measurement] = field(default_factory=list)
    """Without matrices."""
    folder: Path | None = None
    missing: str = ""
    """Why there are no results, such as `failed (...)` or `unfinished, epoch 3 of 9`."""

    @property
    def title(self) -> str:
        """Its own name: that of its folder, else of the file."""
        return self.folder.name if self.folder else self.name


def without_seed(label: str) -> str:
    """The label of a run without its seed."""
    return _SEED.sub("", label) or label


def run_folders(path: Path) -> list[Path]:
    """The run folders at or below a path, by name. Raises UserError if there is none."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a run, or one that holds runs")
    if (path / "config.yaml").exists() or (path / "events.jsonl").exists():
        return [path]
    if found := sorted(config.parent for config in path.rglob("config.yaml")):
        return found
    raise UserError(
        f"{path}: no run is in this folder (no config.yaml); give one that 'crossclass train' has made"
    )


def measured_runs(targets: Iterable[Path | str]) -> list[MeasuredRun]:
    """Everything that was measured of run folders, of all runs below folders, and in files of `measure`.

    What a file of `measure` says of a run that is given too is counted with that run. Raises UserError for a
    target that is none of these.
    """
    runs: dict[Path, MeasuredRun] = {}
    files: list[Path] = []
    for target in map(Path, targets):
        if target.is_file() or target.suffix == ".json":
            files.append(target)
            continue
        for folder in run_folders(target):
            runs.setdefault(folder.resolve(), read_run(folder))
    out = list(runs.values())
    for file in dict.fromkeys(files):
        out = _with_file(out, result_files.load_results(file, matrices=False), file)
    return out


def read_run(folder: Path) -> MeasuredRun:
    """What a run folder says of its settings and its evaluation, also of a run that has no epoch yet."""
    config, measured = folder / "config.yaml", folder / "measure.json"
    env = read_json(folder / "env.json") if (folder / "env.json").exists() else {}
    settings = _settings(config) if config.exists() else {}
    label = str((env if isinstance(env, dict) else {}).get("label") or folder.name)
    run = MeasuredRun(without_seed(label), settings, folder=folder)
    if measured.exists():
        return replace(run, results=result_files.load_results(measured, matrices=False).results)
    return replace(run, missing=_missing(folder, settings.get("epochs")))


def _settings(path: Path) -> dict[str, Any]:
    try:
        return settings_of(read_yaml(path.read_text("utf-8"), [], str(path)))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not valid YAML; restore the file") from e


def _missing(folder: Path, epochs: Any) -> str:
    """Why a run folder has no evaluation."""
    failure = read_json(folder / "failure.json") if (folder / "failure.json").exists() else {}
    if isinstance(failure, dict) and failure.get("evidence"):
        return f"failed ({str(failure.get('name', '')).replace('-', ' ')}, epoch {failure.get('epoch')})"
    events = folder / "events.jsonl"
    done = events.read_text("utf-8", errors="replace").count("\n") if events.exists() else 0
    if epochs and done >= epochs:
        return f"all {epochs} epochs are trained, the evaluation at the end is missing"
    return f"unfinished, epoch {done}" + (f" of {epochs}" if epochs else "")


def _with_file(runs: Sequence[MeasuredRun], file: ResultFile, path: Path) -> list[MeasuredRun]:
    """The runs with what a result file says of them, then its other checkpoints."""
    out, by_folder = list(runs), {run.folder.name: i for i, run in enumerate(runs) if run.folder}
    others: dict[str, MeasuredRun] = {}
    for result in file.results:
        at = result.checkpoint
        if at.run in by_folder:
            i = by_folder[at.run]
            out[i] = replace(out[i], results=[*out[i].results, result], missing="")
            continue
        one = others.setdefault(at.run or at.name, MeasuredRun(at.run or at.name))
        others[one.name] = replace(one, results=[*one.results, result])
    known = {run.name for run in runs}
    named = (replace(o, name=f"{o.name} in {path.name}") if o.name in known else o for o in others.values())
    return [*out, *named]


def load_results(path: Path | str | Iterable[Path | str]) -> ResultFile:
    """Read the measurements of a result file, of all runs below a folder, or of several of these.

    Args:
        path: One path or several. Of one file the record is what the file holds, comparisons included.

    Raises:
        UserError: A file is none of `measure`, or is newer, or there is no run below a folder.
    """
    if isinstance(path, str | Path) and not Path(path).is_dir():
        return result_files.load_results(path)
    several = [path] if isinstance(path, str | Path) else path
    return ResultFile(results=list(_all_results(map(Path, several))))


def _all_results(paths: Iterable[Path]) -> Iterator[Measurement]:
    for path in paths:
        if not path.is_dir():
            yield from result_files.load_results(path).results
            continue
        for folder in run_folders(path):
            if (folder / "measure.json").exists():
                yield from result_files.load_results(folder / "measure.json").results
