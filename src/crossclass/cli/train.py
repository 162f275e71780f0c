"""`crossclass train NAME`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossclass.cli.app import Changes, Trust, app
from crossclass.cli.catalogue import require_run
from crossclass.cli.finished import finished_folder, keep_command
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError
from crossclass.core.launch_environment import is_main_process

if TYPE_CHECKING:
    from crossclass.checkpoints.run_folder import RunFolder
    from crossclass.cli.own_settings import Fork, Train
    from crossclass.core.overrides import Changes as Changed
    from crossclass.training.run import Run


@app.command()
def train(
    target: Annotated[
        str, typer.Argument(metavar="NAME|FILE.yaml|RUN", help="A named run, a run file, or a run folder")
    ],
    changes: Changes = None,
    trust: Trust = False,
) -> None:
    """Train a run, or go on with it.

    The same command resumes what was interrupted, and so does `train RUN`. NAME is a named run. The page
    report.html in the run's folder shows how far it is. The last line printed is the folder.

    \b
    Examples:
      crossclass train shapes-demo
      crossclass train cifar10-mini data.path=DIR epochs=20 seed=1
      crossclass train mine.yaml out=runs runtime.threads=4
      crossclass train runs/cifar10-mini-seed1-0123456789ab
    """
    if not is_run_folder(target):
        require_run(target)
    from crossclass.core.trust import trusting

    with trusting(everything=trust):
        folder = train_run(target, changes or [], Path("runs"))
    with progress_display("") as progress:
        progress.log("its folder, where report.html is its page:")
    print(folder)


def is_run_folder(target: str) -> bool:
    """Whether a target is a folder that holds the settings of a run."""
    return Path(target, "config.yaml").is_file()


def train_run(target: str, arguments: Sequence[str], out: Path) -> Path:
    """Train the run of a name, file or run folder to its end, showing how far it is; its folder."""
    if known := finished_folder(target, arguments, out):
        with progress_display("") as progress:
            progress.log("finished already")
        return known
    from crossclass.checkpoints.run_folder import RunFolder
    from crossclass.cli.arguments import read_settings
    from crossclass.cli.own_settings import Train
    from crossclass.paper.runs import resolve
    from crossclass.training.run import Run

    begun = RunFolder(Path(target).absolute()) if is_run_folder(target) else None
    out = begun.path.parent if begun else out
    read = read_settings(arguments, Run, own=Train(out=out))
    if begun:
        if read.own.out.absolute() != out:
            raise UserError(f"{target} is a run that lies where it lies; leave out={read.own.out} away")
        label, run = begun.path.name, _run_of(begun, read.changes)
        usual = run
    else:
        label, run = resolve(target, read.changes)
        label, usual = f"{label}-seed{run.seed}", resolve(target)[1]
    notes = []
    if "lr_milestones" not in read.changes and run.lr_milestones != usual.lr_milestones:
        notes.append(f"lr_milestones={list(run.lr_milestones)}, at the same shares of {run.epochs} epochs")
    folder = show_training(run, read.own.out, label, read.own, begun, notes)
    if is_main_process() and begun is None:
        keep_command(folder, target, arguments)
    return folder


def show_training(
    run: "Run",
    out: Path,
    label: str,
    own: "Train | Fork",
    begun: "RunFolder | None" = None,
    notes: Sequence[str] = (),
) -> Path:
    """Train a run to its end, showing how far it is and keeping its page; its folder."""
    from crossclass.cli.live_page import LivePage, final_page
    from crossclass.cli.remaining_time import RemainingTime
    from crossclass.training import loop

    with progress_display(label) as progress:
        for note in notes:
            progress.log(note)
        page, before = LivePage(), False
        for folder, row in loop.iterate_epochs(
            run,
            out,
            label,
            own.runtime,
            progress.step,
            progress.log,
            begun,
            images=own.images,
            keep_state=own.keep_state,
        ):
            if before := folder.done:
                progress.log("finished already")
                break
            if progress.remaining is None:
                sizes = (folder.read("env.json") or {}).get("sizes", {})
                progress.remaining = RemainingTime(run, sizes.get("test", 0))
            progress.row(row)
            if row.watched:
                page.update(folder.path)
        page.close()
        if not before or not (folder.path / "report.html").exists():
            final_page(folder.path, progress.log)
    return folder.path


def run_with_images(folder: "RunFolder") -> "Run":
    """The run of a folder, with where its images lay."""
    from crossclass.core.config import load_yaml
    from crossclass.training.run import Run

    run = load_yaml(Run, folder.config(), str(folder.path / "config.yaml"))
    if hasattr(run.data, "path"):
        path = (folder.read("env.json") or {}).get("data_path")
        run = run.replace(data=run.data.replace(path=path))
    return run


def _run_of(folder: "RunFolder", changes: "Changed") -> "Run":
    """The run of a folder, with its images; raises UserError for a change of what it computes."""
    from crossclass.core.config import differences
    from crossclass.core.overrides import override
    from crossclass.training.recipes import distillations, map_teachers

    config, run = folder.path / "config.yaml", run_with_images(folder)
    changed = override(run, changes)
    # a file that is given again for a teacher must be the same one
    known = iter([t.fingerprint for kd in distillations(run.recipe) for t in kd.teachers])
    recipe = map_teachers(changed.recipe, lambda _, teacher: teacher.replace(fingerprint=next(known, None)))
    changed = changed.replace(recipe=recipe)
    for path, (before, now) in differences(run, changed).items():
        raise UserError(
            f"{config} has {path}={before}, and {path}={now} is another run; leave it out to go on with this "
            "one, or train the other from its name or a run file"
        )
    return changed
