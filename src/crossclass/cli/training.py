"""Commands that train: the demo, one run, the paper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossclass.cli.app import Changes, Trust, app, own_settings
from crossclass.core.errors import UserError
from crossclass.core.progress import watching
from crossclass.core.trust import trusting

if TYPE_CHECKING:
    from crossclass.core.runtime import Runtime


@app.command()
def demo(changes: Changes = None) -> None:
    """Train on the built-in Shapes for about three minutes and write a page about it.

    The last line printed is the path of the page. out=demo is the folder; other settings are the run's.
    """
    own, rest = own_settings(changes or [], "demo")
    folder = _train("shapes-demo", rest, own)
    from crossclass.report import write_report

    print(write_report([folder], folder / "report.html").absolute())


@app.command()
def train(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A named run or a run file")],
    changes: Changes = None,
    trust: Trust = False,
) -> None:
    """Train a run, or go on with it: the same command resumes what was interrupted.

    out=runs is the folder that holds the runs; runtime.device, runtime.threads say where it runs.
    """
    own, rest = own_settings(changes or [], "runs")
    print(_train(target, rest, own, trust))


@app.command()
def sweep(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A named run, a run or sweep file")],
    changes: Changes = None,
    trust: Trust = False,
) -> None:
    """Train many runs: path=a,b,c makes a grid, each point a run folder that is found again.

    jobs=2 trains so many at a time; plan=true prints one command per run for any scheduler;
    slurm={partition: gpu, timeout_min: 600} hands them to SLURM (needs the extra `slurm`). out=runs and
    runtime.* are every run's. Exit code 1 if a run failed.
    """
    from crossclass.cli.jobs import expand, lines, run_all, submit
    from crossclass.core.config import split_assignment

    own: dict[str, Any] = {"jobs": 1, "plan": False, "slurm": None}
    mine = [c for c in changes or [] if c.partition("=")[0] in own]
    own |= dict(map(split_assignment, mine))
    every = [c for c in changes or [] if c.startswith(("out=", "runtime."))]
    (out, _), _ = own_settings(every, "runs")  # a mistake in them is said before anything starts
    with trusting(everything=trust):
        points = expand(target, [c for c in changes or [] if c not in (*mine, *every)])
    more = [*every, *(["--trust"] if trust else [])]
    if not isinstance(own["plan"], bool):
        raise UserError(f"plan={own['plan']}: give true or false")
    if own["plan"]:
        for line in lines(points, more):
            print(line)
        return
    if own["slurm"]:
        settings = own["slurm"] if isinstance(own["slurm"], dict) else {}
        for job in submit(points, more, Path(out) / "slurm-logs", settings):
            print(job)
        return
    if not isinstance(own["jobs"], int):
        raise UserError(f"jobs={own['jobs']} is not a number of processes")
    with watching("sweep") as progress:
        try:
            failed = run_all(points, more, own["jobs"], progress.log)
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; the same command goes on where each run was")
            raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(1)


@app.command(name="reproduce")
def reproduce_(
    targets: Annotated[
        list[str], typer.Argument(metavar="ID...", help="fig1 ... table1 ... thm1, or all; path=value")
    ],
) -> None:
    """Reproduce figures, tables and theorems of the paper; each claim is judged on the numbers.

    size=smoke (seconds, no data), mini (hours on two cores) or paper (a GPU); seeds=3; data_root=DIR holds
    cifar10/, cifar100/, tiny_imagenet/; out=results, runs=runs; plan=true only says what would be done.
    Interrupt it at will: the same command goes on. The page's path is the last line.
    """
    from crossclass.core.config import override
    from crossclass.paper.study import Callbacks, Study, reproduce
    from crossclass.report import write_study
    from crossclass.report.plots.entries import draw, draw_maps

    ids = [t for t in targets if "=" not in t]
    if not ids:
        raise UserError("reproduce needs an id, such as fig2 or all; `crossclass list` names them")
    (out, runtime), rest = own_settings([t for t in targets if "=" in t], "results")
    study = override(Study(), rest).replace(out=Path(out))
    with watching("reproduce") as progress:
        try:
            calls = Callbacks(progress.step, progress.log, progress.row, draw, draw_maps)
            done = reproduce(ids, study, runtime, calls)
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; the same command goes on after the last finished epoch")
            raise typer.Exit(130) from None
    if done:
        print(write_study(study.folder).absolute())


def _train(target: str, changes: list[str], own: tuple[str, "Runtime"], trust: bool = False) -> Path:
    from crossclass.paper.runs import resolve
    from crossclass.training import loop

    label, run = resolve(target, changes)
    out, runtime = own
    with trusting(everything=trust), watching(label, run.epochs) as progress:
        epochs = loop.iterate_epochs(
            run, out, f"{label}-seed{run.seed}", runtime, progress.step, progress.log
        )
        try:
            for trained, row in epochs:
                folder = trained.path
                progress.row(row)
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; the same command goes on after the last finished epoch")
            raise typer.Exit(130) from None
    return folder
