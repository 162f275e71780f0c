"""Commands that examine checkpoints, ours or anyone's."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from crossclass.cli.app import Partial, Targets, Trust, app, own_settings
from crossclass.core.errors import UserError
from crossclass.core.progress import watching
from crossclass.core.trust import trusting
from crossclass.report.console import table

if TYPE_CHECKING:
    from crossclass.analysis.compare import SaliencyMaps


@app.command()
def measure(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Measure checkpoints, ours or anyone's: accuracy, C, CAS, I-CAS with intervals; compare two.

    RUN is best.val and last; RUN@best.test selects. A stranger's file needs data.path=DIR, and
    model=python:my_nets:factory unless its network is built in. Settings: attack.steps=50,
    attack.kind=autoattack, attack=none, attribution_subset=correct, n=500, split=val, seed=1, saliency=6,
    out=measure.json (the grid of maps lies beside it).
    """
    from crossclass.analysis.measure import measure
    from crossclass.analysis.records import write_results
    from crossclass.core.files import demand_writable

    names = [t for t in targets if "=" not in t]
    if not names:
        raise UserError("measure needs a run folder or a checkpoint, such as runs/cifar10-mini-...")
    (out, runtime), rest = own_settings([t for t in targets if "=" in t], "measure.json")
    place = Path(out)
    demand_writable(place)

    def draw(maps: "SaliencyMaps", name: str) -> str:
        from crossclass.report.plots.entries import draw_maps  # matplotlib is slow to import

        return draw_maps(maps, place.with_name(f"{place.stem}-saliency{name and '-'}{name}.png"))

    with watching("measure") as progress:
        try:
            results = measure(
                names,
                rest,
                runtime,
                progress.step,
                trust=trust,
                allow_partial=allow_partial,
                draw=draw,
            )
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; nothing was written")
            raise typer.Exit(130) from None
    for line in table(results):
        print(line)
    runtime.on_main_process(lambda: write_results(place, results))
    print(out)


@app.command()
def doctor(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Examine a checkpoint: normalisation, classes, batch norm, weights, signs of gradient masking.

    Takes the files that `measure` takes, and n=500, n_attack=200 (images), threat.eps=4/255;
    transfer=FILE is a second network whose adversarial images are tried, everything=true prints the
    evidence of sound findings too (out=FILE.json always holds it). Exit code 1 if there is a fault.
    """
    from crossclass.checkpoints.load import subjects
    from crossclass.core.config import override, split_assignment
    from crossclass.core.files import write_atomic
    from crossclass.diagnostics import Doctor, examine

    names = [t for t in targets if "=" not in t]
    if len(names) != 1:
        raise UserError("doctor examines one checkpoint, such as model.pt or runs/cifar10-mini-...@last")
    (out, runtime), rest = own_settings([t for t in targets if "=" in t], "")
    transfer = [c.partition("=")[2] for c in rest if c.startswith("transfer=")]
    if len(transfer) > 1:
        raise UserError("doctor tries the images of one other network; give transfer=FILE once")
    source = [c for c in rest if c.split("=")[0].split(".")[0] in ("data", "model")]
    asked = [c for c in rest if c.startswith("everything=")]
    if any(not isinstance(split_assignment(c)[1], bool) for c in asked):
        raise UserError(f"{asked[-1]}: give true or false")
    everything = any(split_assignment(c)[1] for c in asked)
    own = [c for c in rest if c not in (*source, *asked) and not c.startswith("transfer=")]
    settings = override(Doctor(), own)
    with trusting(everything=trust):
        patients = list(subjects(names, source, runtime, allow_partial=allow_partial))
        images = [c for c in source if c.startswith("data")]
        other = next(subjects(transfer, images, runtime, allow_partial=allow_partial), None)
    report: list[dict[str, Any]] = []
    for patient in patients:
        print(f"{patient.name}: {patient.about.model}; {patient.about.data}")
        for line in patient.about.loaded:
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
                print(f"{f.level:8} {f.name}: {f.evidence}" + (f"; {f.remedy}" if f.remedy else ""))
        fine = [f.name for f in findings if f.level == "fine"]
        print(f"fine ({len(fine)}): {', '.join(fine)}")
        report.append({**asdict(patient.about), "findings": [asdict(f) for f in findings]})
    if out:
        write_atomic(Path(out), json.dumps(report, indent=1) + "\n")
        print(out)
    if any(f["level"] == "fault" for r in report for f in r["findings"]):
        raise typer.Exit(1)
