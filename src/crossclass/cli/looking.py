"""Commands that look at what is there: names, settings, finished runs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from crossclass.cli.app import Changes, app
from crossclass.core.errors import UserError, did_you_mean


@app.command(name="list")
def list_() -> None:
    """Everything that has a name: runs, recipes, attacks, threats, data sets, models."""
    from crossclass.cli.catalogue import lines

    for line in lines():
        print(line)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A named run, a run file, or any other name of `list`")],
    changes: Changes = None,
) -> None:
    """Print complete YAML, defaults included; with a second run, how the two differ."""
    from crossclass.cli.catalogue import plugins
    from crossclass.core.config import differences, override
    from crossclass.paper.registry import EXPERIMENTS
    from crossclass.paper.runs import NAMED, resolve

    others = [c for c in changes or [] if "=" not in c]
    assignments = [c for c in changes or [] if "=" in c]
    known = plugins()
    if name in known and not others:
        print(override(known[name][1](), assignments).yaml(), end="")
        return
    if not name.endswith((".yaml", ".yml")) and name not in NAMED:
        if name in EXPERIMENTS:
            raise UserError(
                f"{name} has no settings to show; crossclass reproduce {name} plan=true says its runs"
            )
        raise UserError(f"unknown name '{name}'{did_you_mean(name, [*NAMED, *known])}")
    _, run = resolve(name, assignments)
    if not others:
        print(run.yaml(), end="")
    for other in others:
        for path, (a, b) in differences(run, resolve(other)[1]).items():
            print(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run")],
    changes: Changes = None,
) -> None:
    """Compare a run with a published training curve: which part of it agrees, and which does not.

    against=rice2020 names the curve (an unknown name lists them), tolerance=0.02 is in accuracy,
    out=PICTURE.svg draws both. Exit code 1 if the run contradicts the curve.
    """
    from crossclass.checkpoints.run_folder import RunFolder
    from crossclass.core.config import load_yaml, split_assignment
    from crossclass.paper import published_curves
    from crossclass.report import plots
    from crossclass.training.run import Run

    own: dict[str, Any] = {"against": "rice2020", "tolerance": 0.02, "out": ""}
    for path, value in map(split_assignment, changes or []):
        if path not in own:
            raise UserError(f"verify has no setting '{path}'{did_you_mean(path, own)}")
        own[path] = value
    if not isinstance(own["tolerance"], int | float) or isinstance(own["tolerance"], bool):
        raise UserError(f"tolerance={own['tolerance']} is no number; it is a difference of accuracies: 0.02")
    folder = RunFolder.at(Path(target))
    rows, name = folder.rows(), str(own["against"])
    run = load_yaml(Run, folder.config(), str(folder.path / "config.yaml"))
    conditions = published_curves.conditions(run.to_dict(), rows, folder.read("env.json"))
    verdict = published_curves.verify(rows, name, tolerance=float(own["tolerance"]), run=conditions)
    for line in published_curves.table(verdict):
        print(line)
    if own["out"]:
        curves = published_curves.overlay(rows, name, folder.path.name, conditions)
        plots.save(plots.curves(curves), Path(str(own["out"])))
        print(own["out"])
    if verdict.verdict == "does not hold":
        raise typer.Exit(1)


@app.command()
def report(
    targets: Annotated[list[str], typer.Argument(help="Run folders, results of measure; out=PAGE.html")],
) -> None:
    """Write one self-contained page about runs or measured checkpoints; its path is the last line."""
    from crossclass.report import write_report

    places = [Path(t) for t in targets if "=" not in t]
    own = dict(a.split("=", 1) for a in targets if "=" in a)
    if unknown := set(own) - {"out"}:
        raise UserError(f"report has no setting '{min(unknown)}'; known: out")
    if not places:
        raise UserError("report needs a run folder or a result of measure, such as runs/cifar10-mini-...")
    first = places[0].with_suffix(".html") if places[0].is_file() else places[0] / "report.html"
    default = first if len(places) == 1 else Path("report.html")
    print(write_report(places, Path(own.get("out", default))).absolute())
