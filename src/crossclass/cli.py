"""The command line: `crossclass COMMAND TARGET path.to.setting=value ...`. No setting is ever a flag.

Torch is imported only by the command that needs it, so `--help` answers at once. A user's mistake is
one sentence and exit code 2.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossclass.errors import UserError, did_you_mean
from crossclass.progress import watching
from crossclass.table import table

if TYPE_CHECKING:
    from crossclass.runtime import Runtime

app = typer.Typer(
    name="crossclass",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Shows what an adversarially trained network learns and then forgets.",
    epilog="Settings are path=value: crossclass train cifar10-mini data.path=DIR seed=1 out=runs",
)

Changes = Annotated[list[str] | None, typer.Argument(help="path=value ...", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust", help="Read pickles and import code that files name: both can run code.")
]
Partial = Annotated[
    bool, typer.Option("--allow-partial", help="Load a file that lacks weights; these stay random.")
]
Targets = Annotated[list[str], typer.Argument(help="Run folders, RUN@best.test, checkpoints; path=value")]


@app.command()
def demo(changes: Changes = None) -> None:
    """Train on the built-in Shapes for about three minutes and write a page about it.

    The last line printed is the path of the page. out=demo is the folder; other settings are the run's.
    """
    own, rest = _own(changes or [], "demo")
    folder = _train("shapes-demo", rest, own)
    from crossclass.report import write_report

    print(write_report([folder], folder / "report.html").absolute())


@app.command(name="list")
def list_() -> None:
    """Everything that has a name: runs, recipes, attacks, threats, data sets, models."""
    from crossclass.catalogue import lines

    for line in lines():
        print(line)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A named run, a run file, or any other name of `list`")],
    changes: Changes = None,
) -> None:
    """Print complete YAML, defaults included; with a second run, how the two differ."""
    from crossclass.catalogue import plugins
    from crossclass.experiments.runs import NAMED, resolve
    from crossclass.settings import differences, override

    others = [c for c in changes or [] if "=" not in c]
    assignments = [c for c in changes or [] if "=" in c]
    known = plugins()
    if name in known and not others:
        print(override(known[name][1](), assignments).yaml(), end="")
        return
    if not name.endswith((".yaml", ".yml")) and name not in NAMED:
        raise UserError(f"unknown name '{name}'{did_you_mean(name, [*NAMED, *known])}")
    _, run = resolve(name, assignments)
    if not others:
        print(run.yaml(), end="")
    for other in others:
        for path, (a, b) in differences(run, resolve(other)[1]).items():
            print(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")


@app.command()
def train(
    target: Annotated[str, typer.Argument(metavar="NAME|FILE.yaml", help="A named run or a run file")],
    changes: Changes = None,
    trust: Trust = False,
) -> None:
    """Train a run, or go on with it: the same command resumes what was interrupted.

    out=runs is the folder that holds the runs; runtime.device, runtime.threads say where it runs.
    """
    own, rest = _own(changes or [], "runs")
    print(_train(target, rest, own, trust))


@app.command()
def measure(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Measure checkpoints, ours or anyone's: accuracy, C, CAS, I-CAS with intervals; compare two.

    RUN is best.val and last; RUN@best.test selects. A stranger's file needs data.path=DIR, and
    model=python:my_nets:factory unless its network is built in. Settings: attack.steps=50,
    attack.kind=autoattack, attack=none, examples=correct, n=500, split=val, seed=1, saliency=6,
    out=measure.json (the grid of maps lies beside it).
    """
    from crossclass.files import write_atomic
    from crossclass.measure import measured

    names = [t for t in targets if "=" not in t]
    if not names:
        raise UserError("measure needs a run folder or a checkpoint, such as runs/cifar10-mini-...")
    (out, runtime), rest = _own([t for t in targets if "=" in t], "measure.json")
    place = Path(out)
    with watching("measure") as progress:
        results = measured(
            names,
            rest,
            runtime,
            progress.step,
            trust=trust,
            allow_partial=allow_partial,
            grid=place.with_name(f"{place.stem}-saliency.png"),
        )
    for line in table(results):
        print(line)
    write_atomic(place, json.dumps(results, indent=1) + "\n")
    print(out)


@app.command()
def doctor(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Examine a checkpoint: normalisation, classes, batch norm, weights, signs of gradient masking.

    Takes what `measure` takes; transfer=FILE is a second network whose adversarial images are tried,
    everything=true prints the evidence of sound findings too (out=FILE.json always holds it). Exit code 1
    if there is a fault.
    """
    from crossclass.doctor import Doctor, examine
    from crossclass.files import write_atomic
    from crossclass.settings import override
    from crossclass.subjects import subjects

    names = [t for t in targets if "=" not in t]
    if len(names) != 1:
        raise UserError("doctor examines one checkpoint, such as model.pt or runs/cifar10-mini-...@last")
    (out, runtime), rest = _own([t for t in targets if "=" in t], "")
    transfer = [c.partition("=")[2] for c in rest if c.startswith("transfer=")]
    source = [c for c in rest if c.split("=")[0].split(".")[0] in ("data", "model")]
    everything = "everything=true" in rest
    apart = [*source, "everything=true", *(c for c in rest if c.startswith("transfer="))]
    own = [c for c in rest if c not in apart]
    settings = override(Doctor(), own)
    who = {"runtime": runtime, "trust": trust, "allow_partial": allow_partial}
    patients = list(subjects(names, source, **who))  # type: ignore[arg-type]
    other = next(subjects(transfer, [c for c in source if c.startswith("data")], **who), None)  # type: ignore[arg-type]
    report: list[dict[str, Any]] = []
    for patient in patients:
        print(f"{patient.name}: {patient.about['model']}; {patient.about['data']}")
        for line in patient.about["loaded"]:
            print(f"  {line}")
        with watching("doctor") as progress:
            findings = examine(
                patient.model,
                patient.splits,
                settings,
                surrogate=None if other is None else other.model,
                file_normalisation=patient.file_normalisation,
                progress=progress.step,
            )
        for f in findings:
            if f.level != "fine" or everything:
                print(f"{f.level:8} {f.name}: {f.found}" + (f"; {f.remedy}" if f.remedy else ""))
        fine = [f.name for f in findings if f.level == "fine"]
        print(f"fine ({len(fine)}): {', '.join(fine)}")
        report.append({**patient.about, "findings": [asdict(f) for f in findings]})
    if out:
        write_atomic(Path(out), json.dumps(report, indent=1) + "\n")
        print(out)
    if any(f["level"] == "fault" for r in report for f in r["findings"]):
        raise typer.Exit(1)


@app.command()
def verify(
    target: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run")],
    changes: Changes = None,
) -> None:
    """Compare a run with a published training curve: which part of it agrees, and which does not.

    against=rice2020 names the curve (an unknown name lists them), tolerance=0.02 is in accuracy,
    out=PICTURE.svg draws both. Exit code 1 if the run contradicts the curve.
    """
    from crossclass import anchors, plot
    from crossclass.recipes import Run
    from crossclass.settings import load_yaml, split_assignment
    from crossclass.store import RunFolder

    own: dict[str, Any] = {"against": "rice2020", "tolerance": 0.02, "out": ""}
    for path, value in map(split_assignment, changes or []):
        if path not in own:
            raise UserError(f"verify has no setting '{path}'{did_you_mean(path, own)}")
        own[path] = value
    folder = RunFolder.at(Path(target))
    rows, name = folder.rows(), str(own["against"])
    run = load_yaml(Run, folder.config(), str(folder.path / "config.yaml"))
    conditions = anchors.conditions(run.plain(), rows, folder.read("env.json"))
    verdict = anchors.verify(rows, name, tolerance=float(own["tolerance"]), run=conditions)
    for line in anchors.table(verdict):
        print(line)
    if own["out"]:
        curves = anchors.overlay(rows, name, folder.path.name, conditions)
        plot.save(plot.curves(curves), Path(str(own["out"])))
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
    first = places[0].with_suffix(".html") if places[0].suffix == ".json" else places[0] / "report.html"
    default = first if len(places) == 1 else Path("report.html")
    print(write_report(places, Path(own.get("out", default))).absolute())


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
    from crossclass.experiments.reproduce import Study, reproduce
    from crossclass.report import write_study
    from crossclass.settings import override

    ids = [t for t in targets if "=" not in t]
    if not ids:
        raise UserError("reproduce needs an id, such as fig2 or all; `crossclass list` names them")
    (out, runtime), rest = _own([t for t in targets if "=" in t], "results")
    study = override(Study(), [*rest, f"out={out}"])
    with watching("reproduce") as progress:
        try:
            done = reproduce(ids, study, runtime, progress.step, progress.say, progress.row)
        except KeyboardInterrupt:
            progress.say("crossclass: stopped; the same command goes on after the last finished epoch")
            raise typer.Exit(130) from None
    if done:
        print(write_study(study.place).absolute())


def _own(changes: Sequence[str], out: str) -> tuple[tuple[str, "Runtime"], list[str]]:
    """Split a command's own settings (out, runtime.*) from those of the run."""
    from crossclass.runtime import Runtime
    from crossclass.settings import override, split_assignment

    rest, runtime = [], []
    for change in changes:
        path, value = split_assignment(change)
        if path == "out":
            out = str(value)
        elif path.startswith("runtime."):
            runtime.append(change.removeprefix("runtime."))
        else:
            rest.append(change)
    return (out, override(Runtime(), runtime)), rest


def _train(target: str, changes: list[str], own: tuple[str, "Runtime"], trust: bool = False) -> Path:
    from crossclass import train as training
    from crossclass.experiments.runs import resolve

    label, run = resolve(target, changes, trust=trust)
    out, runtime = own
    with watching(label, run.epochs) as progress:
        epochs = training.train(run, out, f"{label}-seed{run.seed}", runtime, progress.step, progress.say)
        try:
            for trained, row in epochs:
                folder = trained.path
                progress.row(row)
        except KeyboardInterrupt:
            progress.say("crossclass: stopped; the same command goes on after the last finished epoch")
            raise typer.Exit(130) from None
    return folder


def _version(value: bool | None) -> None:
    if value:
        from importlib.metadata import version

        print(f"crossclass {version('crossclass')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a UserError is one sentence on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    known = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
            raise UserError(f"unknown command '{arguments[0]}'{did_you_mean(arguments[0], known)}")
        app(args=arguments)
    except UserError as e:
        print(f"crossclass: {e}", file=sys.stderr)
        sys.exit(2)
